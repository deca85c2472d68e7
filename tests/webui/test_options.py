"""The settings page: what it adds, what is read from it, and flags that go before it."""

from __future__ import annotations

from dataclasses import fields

import pytest
from fakes import ui

from lib_layerdiffuse.webui.page.options import PREFIX, SECTION, Options, inside, read_options, register_options


def read(monkeypatch, flags=None, **saved) -> Options:
    ui.put_modules(monkeypatch, shared=ui.shared(flags, **saved))
    return read_options()


def test_without_settings_and_flags_all_is_default(monkeypatch):
    assert read(monkeypatch) == Options()


def test_settings_of_the_page_are_read(monkeypatch):
    saved = {
        "layerdiffuse_models_folder": " /files ",
        "layerdiffuse_mirror": "https://mirror/",
        "layerdiffuse_offline": True,
        "layerdiffuse_passes": "4",
        "layerdiffuse_file_format": "webp",
        "layerdiffuse_subfolder": "layers",
        "layerdiffuse_precision": "float32",
        "layerdiffuse_checkerboard": False,
    }
    assert read(monkeypatch, **saved) == Options(
        "/files", "https://mirror", True, 4, "webp", "layers", "float32", False
    )


def test_flags_go_before_settings(monkeypatch):
    flags = {"layerdiffuse_models": "/flag", "layerdiffuse_mirror": "https://flag/", "layerdiffuse_offline": True}
    options = read(monkeypatch, flags, layerdiffuse_models_folder="/setting", layerdiffuse_mirror="https://setting")
    assert (options.models_folder, options.mirror, options.offline) == ("/flag", "https://flag", True)


def test_flags_that_were_not_given_do_not(monkeypatch):
    flags = {"layerdiffuse_models": None, "layerdiffuse_mirror": None, "layerdiffuse_offline": False}
    options = read(monkeypatch, flags, layerdiffuse_mirror="https://setting", layerdiffuse_offline=True)
    assert (options.mirror, options.offline) == ("https://setting", True)


def test_the_home_folder_may_be_written_short(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert read(monkeypatch, layerdiffuse_models_folder="~/layers").models_folder == "/home/someone/layers"


@pytest.mark.parametrize(
    ("name", "value"),
    [("passes", "3"), ("passes", True), ("file_format", "gif"), ("precision", None), ("offline", "yes"), ("mirror", 5)],
)
def test_a_value_of_no_use_is_told_and_read_as_the_default(monkeypatch, caplog, name, value):
    assert read(monkeypatch, **{f"layerdiffuse_{name}": value}) == Options()
    assert value is None or f"layerdiffuse_{name}" in caplog.text


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("", ""),
        ("layers", "layers"),
        (" a/b ", "a/b"),
        ("a\\b", "a/b"),
        ("../../etc", "etc"),
        ("/tmp/x", "tmp/x"),
        ("D:\\layers", "layers"),
        (".", ""),
    ],
)
def test_the_sub_folder_stays_inside(written, used):
    assert inside(written) == used


def test_the_page_shows_every_option_and_its_values_are_read_back(monkeypatch):
    pytest.importorskip("gradio")
    shared = ui.shared()
    ui.put_modules(monkeypatch, shared=shared)
    register_options()
    assert list(shared.opts.data_labels) == [PREFIX + row.name for row in fields(Options)]
    for info in shared.opts.data_labels.values():
        assert info.section == SECTION and info.label
        if info.component_args and "choices" in info.component_args:
            assert info.default in info.component_args["choices"]
    assert read_options() == Options()


def test_reloading_the_page_keeps_what_was_set(monkeypatch):
    pytest.importorskip("gradio")
    ui.put_modules(monkeypatch, shared=ui.shared(layerdiffuse_passes="2"))
    register_options()
    register_options()
    assert read_options().passes == 2


def test_paths_hide_with_the_webuis_own_and_what_reaches_out_is_not_for_the_api(monkeypatch):
    pytest.importorskip("gradio")
    shared = ui.shared()
    shared.hide_dirs = {"visible": False}
    ui.put_modules(monkeypatch, shared=shared)
    register_options()
    hidden = {key for key, info in shared.opts.data_labels.items() if info.component_args == {"visible": False}}
    assert hidden == {"layerdiffuse_models_folder", "layerdiffuse_subfolder"}
    restricted = {key for key, info in shared.opts.data_labels.items() if info.restrict_api}
    assert restricted == {"layerdiffuse_models_folder", "layerdiffuse_mirror"}
