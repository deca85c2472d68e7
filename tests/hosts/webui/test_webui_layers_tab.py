"""The Layers tab on the WebUI's page: painted in its queue, sent to and from its other tabs.

With the demo model, or with a full-size SDXL in one step, where the WebUI loads no small checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from client import same
from layers_tab import LINES, PLACE, LayersTab, cut_out, give, wait_until
from webui_page import RECOMMENDED, SEED

FULL_SIZE_PATIENCE = 300  # seconds
ARRIVED = f"{PLACE}style [data-arrived]"


@pytest.fixture
def layers(webui, page) -> Iterator[LayersTab]:
    """The tab with an empty stack; the plain picture must be the same before and after."""
    if page.base == "flux":
        pytest.skip("nothing paints Flux's layers on a background")
    client = webui.use(page.base, page=True)
    before = client.txt2img().images[0]
    patience = FULL_SIZE_PATIENCE if webui.full_size else 30
    page.tab.wait_for_selector(ARRIVED, state="attached")
    page.tab.set_default_timeout(1000 * patience)
    tab = LayersTab(page.tab, patience)
    tab.unfold("files", "new")
    for name in ("width", "height"):
        tab.number(name, RECOMMENDED[page.base][name])
    tab.click("new")
    tab.wait_for()
    tab.unfold("settings", "setting_steps")
    tab.number("setting_steps", RECOMMENDED[page.base]["steps"])
    tab.number("setting_guidance", RECOMMENDED[page.base]["cfg_scale"])
    yield tab
    page.tab.click("#tabs button:has-text('txt2img')")
    assert same(before, client.txt2img().images[0])


def test_a_scene_is_painted_layer_by_layer_and_survives_a_reload(layers, page, webui):
    layers.paint("a beach", "paint_background", SEED)
    layers.wait_for("a beach · background")
    background = layers.composite()
    job = {"prompt": "a beach", "negative_prompt": "", **RECOMMENDED[page.base]}
    job["sampler_name"] = layers.tab.input_value(f"{PLACE}setting_sampler input")
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
    message = layers.message()  # random weights may paint a haze, of which this comment is true
    assert message == "" or message.startswith("The picture's alpha is")
    page.screenshot("webui-layers")
    last = layers.composite()
    page.tab.reload()
    page.tab.wait_for_selector(ARRIVED, state="attached")
    layers.open()
    layers.wait_for("a green apple", "a red apple", "a beach · background")
    assert wait_until(layers.shown) and same(layers.composite(), last)


def test_a_thing_on_nothing_has_alpha_and_goes_to_img2img_with_it(layers, page):
    layers.after_change(lambda: layers.paint("a red apple", "paint_layer", SEED))
    assert layers.picture().mode == "RGBA" and (page.base != "demo" or layers.picture().getextrema()[3][0] == 0)
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


def test_stop_ends_the_job_and_the_next_one_is_fine(layers, page):
    layers.number("setting_steps", 150)
    layers.paint("a beach", "paint_background", SEED)
    layers.tab.wait_for_selector(f"{PLACE}stop:not([disabled])")
    layers.tab.wait_for_selector(f"{PLACE}progress [role=progressbar]")
    layers.click("stop")
    assert wait_until(lambda: "stopped" in layers.message(), layers.patience) and layers.names() == []
    layers.number("setting_steps", RECOMMENDED[page.base]["steps"])
    layers.paint("a beach", "paint_background", SEED)
    layers.wait_for("a beach · background")


def test_own_pictures_undo_and_files(layers, page, tmp_path):
    give(layers, cut_out(page.size))
    layers.click("set_background")
    layers.wait_for("Background · background")
    give(layers, cut_out(page.size))
    layers.click("add_picture")
    layers.wait_for("Picture", "Background · background")
    layers.number("right", 30)
    layers.click("apply")
    assert wait_until(lambda: layers.composite().getpixel((42, 12)) == (255, 0, 0, 255))
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
