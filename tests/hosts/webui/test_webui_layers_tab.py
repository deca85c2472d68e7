"""The Layers tab on the WebUI's page, with the demo model: painted in its queue, sent to and from its other tabs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from client import same
from layers_tab import LINES, PLACE, LayersTab, cut_out, give, wait_until
from webui_page import RECOMMENDED, SEED

ARRIVED = f"{PLACE}style [data-arrived]"


@pytest.fixture
def layers(webui, page) -> Iterator[LayersTab]:
    """The tab with an empty stack; the plain picture must be the same before and after."""
    if "demo" not in webui.checkpoints:
        pytest.skip("this WebUI loads no small checkpoints")
    client = webui.use("demo", page=True)
    before = client.txt2img().images[0]
    page.tab.wait_for_selector(ARRIVED, state="attached")
    page.tab.set_default_timeout(30_000)
    tab = LayersTab(page.tab)
    tab.unfold("files", "new")
    tab.number("width", 128)
    tab.number("height", 128)
    tab.click("new")
    tab.wait_for()
    tab.unfold("settings", "setting_steps")
    tab.number("setting_steps", 20)
    yield tab
    page.tab.click("#tabs button:has-text('txt2img')")
    assert same(before, client.txt2img().images[0])


def test_a_scene_is_painted_layer_by_layer_and_survives_a_reload(layers, page, webui):
    layers.paint("a beach", "paint_background", SEED)
    layers.wait_for("a beach · background")
    background = layers.composite()
    job = {"prompt": "a beach", "negative_prompt": "", "sampler_name": "DDIM", **RECOMMENDED["demo"]}
    plain = webui.server.client.txt2img(seed=SEED, **job).images[0]
    assert same(background.convert("RGB"), plain.convert("RGB")), "it is an ordinary picture of this WebUI"
    shown = layers.after_change(lambda: layers.paint("a red apple", "paint_layer", SEED))
    layers.wait_for("a red apple", "a beach · background")
    assert not same(shown, background)
    layers.number("scale", 0.5)
    layers.number("right", -25)
    layers.click("apply")
    layers.after_change(lambda: layers.paint("a green apple", "paint_layer", SEED))
    layers.wait_for("a green apple", "a red apple", "a beach · background")
    assert layers.message() == ""
    page.screenshot("webui-layers")
    last = layers.composite()
    page.tab.reload()
    page.tab.wait_for_selector(ARRIVED, state="attached")
    layers.open()
    layers.wait_for("a green apple", "a red apple", "a beach · background")
    assert wait_until(layers.shown) and same(layers.composite(), last)


def test_a_thing_on_nothing_has_alpha_and_goes_to_img2img_with_it(layers, page):
    layers.after_change(lambda: layers.paint("a red apple", "paint_layer", SEED))
    assert layers.picture().mode == "RGBA" and layers.picture().getextrema()[3][0] == 0
    layers.click("to_img2img")
    page.tab.wait_for_selector("#img2img_image img, #img2img_image canvas", state="visible")
    layers.open()


def test_a_picture_of_the_gallery_becomes_a_layer(layers, page):
    page.tab.click("#tabs button:has-text('txt2img')")
    page.enable(True)
    page.fill_in("a red apple", seed=SEED)
    made = page.generate()
    page.tab.click("#txt2img_send_to_layers")
    page.tab.wait_for_selector(f"{PLACE}prompt", state="visible")
    page.tab.wait_for_selector(f"{PLACE}picture img", state="attached")
    layers.unfold("given", "add_picture")
    layers.after_change(lambda: layers.click("add_picture"))
    layers.wait_for("Picture")
    picture = layers.picture()
    seen = np.asarray(made)[..., 3] > 0
    assert np.array_equal(np.asarray(picture)[seen], np.asarray(made)[seen])
    page.tab.click("#tabs button:has-text('txt2img')")
    page.enable(False)
    layers.open()


def test_stop_ends_the_job_and_the_next_one_is_fine(layers):
    layers.number("setting_steps", 150)
    layers.paint("a beach", "paint_background", SEED)
    layers.tab.wait_for_selector(f"{PLACE}stop:not([disabled])")
    layers.tab.wait_for_selector(f"{PLACE}progress [role=progressbar]")
    layers.click("stop")
    assert wait_until(lambda: "stopped" in layers.message()) and layers.names() == []
    layers.number("setting_steps", 2)
    layers.paint("a beach", "paint_background", SEED)
    layers.wait_for("a beach · background")


def test_own_pictures_undo_and_files(layers, tmp_path):
    give(layers, cut_out((128, 128)))
    layers.click("set_background")
    layers.wait_for("Background · background")
    give(layers, cut_out((128, 128)))
    layers.click("add_picture")
    layers.wait_for("Picture", "Background · background")
    layers.number("right", 60)
    layers.click("apply")
    assert wait_until(lambda: layers.composite().getpixel((72, 12)) == (255, 0, 0, 255))
    layers.tab.uncheck(f"{PLACE}visible input")
    layers.wait_for("Picture · hidden", "Background · background")
    layers.click("undo")
    layers.wait_for("Picture", "Background · background")
    layers.tab.check(f"{LINES}:has-text('Background') input")
    layers.click("delete")
    layers.wait_for("Picture")
    name, data = layers.save("Project")
    layers.click("new")
    layers.wait_for()
    (tmp_path / name).write_bytes(data)
    with layers.tab.expect_file_chooser() as chooser:
        layers.click("load")
    chooser.value.set_files(tmp_path / name)
    layers.wait_for("Picture")


def test_wrong_input_is_told(layers):
    layers.paint(" ", "paint_layer")
    assert wait_until(lambda: "empty prompt" in layers.message())
    assert layers.names() == []
