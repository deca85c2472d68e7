"""Axes of the X/Y/Z plot: added once, checked before the first picture, set for one cell only."""

from __future__ import annotations

from copy import copy
from types import SimpleNamespace

import pytest
from fakes import ui

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.form.ways import ways_for
from lib_layerdiffuse.webui.page.axes import register_axes

LABELS = ["[LayerDiffuse] Method", "[LayerDiffuse] Weight", "[LayerDiffuse] Stop At"]
FILES = ["[LayerDiffuse] Method file", "[LayerDiffuse] Decoder file"]


@pytest.fixture
def axes(monkeypatch) -> dict:
    script = ui.plot_script()
    ui.put_modules(monkeypatch, scripts=SimpleNamespace(scripts_data=[ui.plot_script("a/other.py"), script]))
    register_axes()
    register_axes()  # as after "Reload UI"
    assert [axis.label for axis in script.module.axis_options] == ["Nothing", "Seed", *LABELS, *FILES]
    return {axis.label: axis for axis in script.module.axis_options}


def test_a_webui_without_the_plot(monkeypatch):
    ui.put_modules(monkeypatch, scripts=SimpleNamespace(scripts_data=[ui.plot_script("a/other.py")]))
    register_axes()


def test_methods_are_offered_by_the_labels_users_know(axes):
    assert axes[LABELS[0]].choices() == [way.label for way in ways_for()]
    assert axes[LABELS[1]].choices is None


def test_files_are_offered_by_their_names_and_the_usual_one_too(axes, monkeypatch):
    monkeypatch.setattr(
        "lib_layerdiffuse.webui.layer_files.own_files.offered", lambda catalogue, name, method: [f"my {name}"]
    )
    assert [axes[label].choices() for label in FILES] == [
        ["Automatic", "my method_file"],
        ["Automatic", "my decoder_file"],
    ]
    p = SimpleNamespace()
    axes[FILES[0]].apply(p, "my method_file", ["my method_file"])
    axes[FILES[1]].apply(p, "Automatic", ["Automatic"])
    assert p.layerdiffuse_axes == {"enabled": True, "method_file": "my method_file", "decoder_file": ""}


def test_a_cell_sets_its_values_and_switches_on(axes):
    p = SimpleNamespace()
    for label, value in zip(
        LABELS, ["(SDXL) Only Generate Transparent Image (Conv Injection)", 0.5, 0.25], strict=True
    ):
        axes[label].apply(p, value, [value])
    assert p.layerdiffuse_axes == {"enabled": True, "method": "xl_fg_conv", "weight": 0.5, "ending_step": 0.25}


def test_cells_do_not_share_values(axes):
    p = SimpleNamespace()
    axes[LABELS[0]].apply(p, "sd15_fg", ["sd15_fg"])
    first, second = copy(p), copy(p)
    axes[LABELS[1]].apply(first, 0.1, [0.1])
    axes[LABELS[1]].apply(second, 0.2, [0.2])
    assert "weight" not in p.layerdiffuse_axes
    assert (first.layerdiffuse_axes["weight"], second.layerdiffuse_axes["weight"]) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("label", "value", "told"),
    [(LABELS[0], "(SDXL) Nonsense", "xl_fg_attn"), (LABELS[1], 2.1, "0 to 2"), (LABELS[2], -0.1, "0 to 1")],
)
def test_unknown_values_are_refused_before_the_first_picture(axes, label, value, told):
    with pytest.raises(InputError, match=told):
        axes[label].confirm(None, [value])


def test_rounding_at_the_end_of_a_range_is_no_error(axes):
    axes[LABELS[2]].confirm(None, [0.1 * 3, 1.0000000000000002])
    p = SimpleNamespace()
    axes[LABELS[2]].apply(p, 1.0000000000000002, [])
    assert p.layerdiffuse_axes["ending_step"] == 1.0
