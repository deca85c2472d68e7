"""The page's Layers tab in headless Chromium on a tiny random model: every button, a reload, files there and back."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from layers_tab import LINES, PLACE, LayersTab, cut_out, give, wait_until
from page_visitor import Visitor

gradio = pytest.importorskip("gradio", minversion="6.0")
pytest.importorskip("tiny", reason="needs the standalone extra")


@pytest.fixture
def layers(visitor):
    """The tab with a new, empty stack."""
    tab = LayersTab(visitor.tab)
    tab.unfold("files", "new")
    tab.number("width", 64)
    tab.number("height", 64)
    tab.click("new")
    tab.wait_for()
    tab.few_steps()
    yield tab
    tab.tab.click("button[role=tab]:has-text('Pictures')")


def test_background_and_layers_are_painted_and_survive_a_reload(layers, visitor):
    layers.paint("beach", "paint_background")
    layers.wait_for("beach · background")
    layers.paint("red apple", "paint_layer")
    layers.wait_for("red apple", "beach · background")
    assert wait_until(lambda: layers.tab.input_value(f"{PLACE}again_prompt textarea, {PLACE}again_prompt input"))
    picture = layers.composite()
    layers.tab.reload()
    layers.tab.wait_for_selector("#page_generate")
    layers.open()
    layers.wait_for("red apple", "beach · background")
    assert wait_until(layers.shown)
    assert np.array_equal(np.asarray(layers.composite()), np.asarray(picture))
    layers.tab.wait_for_selector(f"{PLACE}undo:not([disabled])")


def test_every_button_of_the_list(layers):
    layers.tab.wait_for_selector(f"{PLACE}empty")
    for colour, name in ((1, "a.png"), (2, "b.png")):
        give(layers, cut_out((40 + colour, 40)), name)
        layers.click("add_picture")
        assert wait_until(lambda count=colour: len(layers.names()) == count)
    layers.click("duplicate")
    assert wait_until(lambda: len(layers.names()) == 3)
    layers.tab.fill(f"{PLACE}name input, {PLACE}name textarea", "Third")
    layers.click("apply")
    layers.wait_for("Third", "Picture", "Picture")
    layers.click("lower")
    layers.wait_for("Picture", "Third", "Picture")
    layers.click("raise")
    layers.wait_for("Third", "Picture", "Picture")
    layers.tab.uncheck(f"{PLACE}visible input")
    layers.wait_for("Third · hidden", "Picture", "Picture")
    layers.click("delete")
    layers.wait_for("Picture", "Picture")
    layers.click("undo")
    layers.wait_for("Third · hidden", "Picture", "Picture")
    layers.click("redo")
    layers.wait_for("Picture", "Picture")
    assert layers.message() == ""


def test_place_scale_and_opacity(layers):
    give(layers, cut_out())
    picture = layers.after_change(lambda: layers.click("add_picture"))
    assert picture.getpixel((10, 10)) == (255, 0, 0, 255) and picture.getpixel((40, 40))[3] == 0
    layers.number("right", 30)
    layers.number("down", 20)
    layers.click("apply")
    assert wait_until(lambda: layers.composite().getpixel((40, 30)) == (255, 0, 0, 255))
    assert layers.composite().getpixel((10, 10))[3] == 0
    layers.number("opacity", 0.5)
    layers.click("apply")
    layers.tab.wait_for_selector(f"{LINES}:has-text('50%')")
    assert wait_until(lambda: layers.composite().getpixel((40, 30)) == (255, 0, 0, 128))
    layers.number("scale", 2)
    layers.click("apply")
    assert wait_until(lambda: layers.composite().getpixel((25, 15)) == (255, 0, 0, 128)), "it grows about its middle"
    slider = layers.tab.locator(f"{PLACE}opacity input[type=range]")
    slider.hover()
    layers.after_change(slider.click)
    layers.tab.wait_for_selector(f"{LINES}:has-text('5')")  # about the middle


def test_one_is_painted_again_and_replaced_by_a_picture(layers):
    layers.paint("beach", "paint_background")
    layers.wait_for("beach · background")
    layers.paint("banana", "paint_layer")
    layers.wait_for("banana", "beach · background")
    layers.tab.fill(f"{PLACE}again_prompt textarea, {PLACE}again_prompt input", "red apple")
    layers.after_change(lambda: layers.click("again"))
    layers.wait_for("red apple", "beach · background")
    layers.tab.check(f"{LINES}:has-text('beach') input")
    assert wait_until(lambda: layers.tab.input_value(f"{PLACE}name input, {PLACE}name textarea") == "beach")
    give(layers, cut_out((80, 64)))
    picture = layers.after_change(lambda: layers.click("replace"))
    assert picture.size == (64, 64)
    layers.wait_for("red apple", "beach · background")


def test_projects_and_layered_files_there_and_back(layers, tmp_path):
    give(layers, cut_out())
    layers.click("set_background")
    layers.wait_for("Background · background")
    give(layers, cut_out())
    layers.after_change(lambda: layers.click("add_picture"))
    layers.wait_for("Picture", "Background · background")
    project, psd, zipped = layers.save("Project"), layers.save("PSD"), layers.save("ZIP")
    assert psd[0].endswith(".psd") and psd[1].startswith(b"8BPS")
    assert "layers.json" in zipfile.ZipFile(io.BytesIO(zipped[1])).namelist()
    for name, data in (project, psd, zipped):
        layers.click("new")
        layers.wait_for()
        path = tmp_path / name
        path.write_bytes(data)
        with layers.tab.expect_file_chooser() as chooser:
            layers.click("load")
        chooser.value.set_files(path)
        layers.wait_for("Picture", "Background · background")


def test_wrong_input_is_told_and_nothing_is_lost(layers):
    give(layers, cut_out())
    layers.click("add_picture")
    layers.wait_for("Picture")
    layers.paint(" ", "paint_layer")
    assert wait_until(lambda: "empty prompt" in layers.message())
    layers.click("add_picture")
    assert wait_until(lambda: "no picture" in layers.message())
    layers.number("width", 5)
    layers.click("new")
    assert wait_until(lambda: "width 5" in layers.message())
    with layers.tab.expect_file_chooser() as chooser:
        layers.click("load")
    chooser.value.set_files({"name": "x.zip", "mimeType": "application/zip", "buffer": b"PK no"})
    assert wait_until(lambda: "What to do" in layers.message() and "x.zip" in layers.message())
    assert layers.names() == ["Picture"]


def test_stop(layers, slow):
    layers.number("setting_steps", 100)
    layers.tab.keyboard.press("Tab")
    layers.paint("beach", "paint_background")
    layers.tab.wait_for_selector(f"{PLACE}stop:not([disabled])")
    layers.click("stop")
    assert wait_until(lambda: "stopped" in layers.message())
    assert layers.names() == []
    layers.tab.wait_for_selector(f"{PLACE}paint_background:not([disabled])")


def test_another_browser_has_a_stack_of_its_own(layers, chromium, demo_server):
    give(layers, cut_out())
    layers.click("add_picture")
    layers.wait_for("Picture")
    context = chromium.new_context()
    other = Visitor(context, demo_server)
    try:
        assert LayersTab(other.tab).names() == []
    finally:
        context.close()
