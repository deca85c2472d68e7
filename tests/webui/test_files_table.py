"""The table of layer files in the settings: built once, true, and its button downloads what is missing."""

from __future__ import annotations

import shutil
import sys

import pytest
from fakes.hub import point_to, serve

gradio = pytest.importorskip("gradio")

from lib_layerdiffuse.core.bases import BASES, SD_HUB  # noqa: E402
from lib_layerdiffuse.core.methods import methods_for  # noqa: E402
from lib_layerdiffuse.webui.layer_files import files_table  # noqa: E402
from lib_layerdiffuse.webui.layer_files.transfers import TRANSFERS, Transfer  # noqa: E402

NAME = "layer_sd15_joint.safetensors"


@pytest.fixture(autouse=True)
def no_transfer_yet(monkeypatch) -> None:
    """What one test downloads is none of the others' business."""
    monkeypatch.setattr(TRANSFERS, "last", Transfer())


@pytest.fixture
def folder(a1111, monkeypatch, tmp_path):
    """The models folder of this test alone, without one of the files."""
    shutil.copytree(a1111.models, tmp_path / "mine")
    monkeypatch.setattr(a1111, "models", tmp_path / "mine")
    monkeypatch.setattr(sys.modules["modules.paths"], "models_path", str(tmp_path / "mine"))
    (tmp_path / "mine" / "layer_model" / NAME).unlink()
    return tmp_path / "mine" / "layer_model"


def test_it_stands_below_its_setting_once(a1111) -> None:
    a1111.callbacks.fire("before_ui")
    with gradio.Blocks() as page:
        for name in ("setting_other", files_table.BELOW, files_table.BELOW):  # quick settings have it a second time
            a1111.callbacks.fire("after_component", gradio.Textbox(elem_id=name), elem_id=name)
    elements = [
        block.elem_id for block in page.blocks.values() if (block.elem_id or "").startswith("layerdiffuse_files")
    ]
    assert sorted(elements) == ["layerdiffuse_files", *(f"layerdiffuse_files_{part}" for part in PARTS)]


PARTS = ("download", "refresh", "stop", "table")


def test_it_names_every_file_of_the_loaded_base_and_the_licence(folder) -> None:
    shown = files_table.table_html()
    for stem in (BASES["sd15"].decoder, *(method.weights for method in methods_for("sd15"))):
        assert f"{stem}.safetensors" in shown
    assert shown.count("missing") == 1 and SD_HUB.licence in shown


def test_its_button_downloads_what_is_missing(folder, monkeypatch) -> None:
    with serve(NAME, b"0123456789" * 1000) as server:
        point_to(monkeypatch, server)
        *_, last = files_table.fetched()
    assert (folder / NAME).stat().st_size == 10_000 and "missing" not in last


def test_a_download_that_fails_says_why_and_a_second_one_waits(a1111, folder, monkeypatch) -> None:
    with a1111.settings(layerdiffuse_offline=True):
        *_, last = files_table.fetched()
    assert "offline" in last and "What to do" in last
    monkeypatch.setattr(type(TRANSFERS.last), "running", property(lambda self: True))
    assert "one at a time" in list(files_table.fetched())[-1]


def test_without_a_checkpoint_it_asks_for_one(a1111, monkeypatch) -> None:
    monkeypatch.setattr(files_table, "loaded_base", lambda: None)
    assert list(files_table.fetched()) == [files_table.table_html()] and "load one" in files_table.table_html()
