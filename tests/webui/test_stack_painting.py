"""Layers of a stack painted by a WebUI's own jobs, on stand-ins of AUTOMATIC1111 and Forge."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from fakes.jobs import Txt2Img
from fakes.running import Snapshot, raising
from PIL import Image

from lib_layerdiffuse.core.errors import LayerDiffuseError
from lib_layerdiffuse.form.arguments import ARGUMENTS
from lib_layerdiffuse.form.stack.work import Watch
from lib_layerdiffuse.sets.stack import Stack, Stopped
from lib_layerdiffuse.webui.stack import painting

SETTINGS = {"steps": 2, "guidance": 5.0, "sampler": "Euler", "negative_prompt": ""}
PASSED_OVER = ("sd_model", "outpath_samples", "outpath_grids")


@pytest.fixture
def with_page(monkeypatch):
    """Gives a WebUI what its page has: components of all scripts, and the class of its jobs."""

    def give(webui):
        runner = webui.runners[False]
        values = [argument.default for argument in ARGUMENTS]
        runner.inputs = [None, *(SimpleNamespace(value=value) for value in [*values, ""])]
        monkeypatch.setattr(runner.ours, "args_from", 1, raising=False)
        monkeypatch.setattr(runner.ours, "args_to", len(runner.inputs), raising=False)

        def make(**fields):
            return Txt2Img(webui, **{name: value for name, value in fields.items() if name not in PASSED_OVER})

        monkeypatch.setattr(sys.modules["modules.processing"], "StableDiffusionProcessingTxt2Img", make, raising=False)
        monkeypatch.setattr(sys.modules["modules.scripts"], "scripts_txt2img", runner, raising=False)
        return webui

    return give


def painter(watch=None, **choices):
    return lambda request: painting.paint(request, SETTINGS | choices, watch or Watch())


def stacked() -> Stack:
    stack = Stack.of_size(64, 64)
    stack.paint(painter(), stack.request_background("a beach", 1))
    stack.paint(painter(), stack.request_layer("an apple", 2))
    stack.paint(painter(), stack.request_layer("a banana", 3))
    return stack


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_layers_are_painted_one_upon_the_other_and_the_model_stays(base, flavour, make_webui, with_page):
    webui = with_page(make_webui(flavour, base))
    before = Snapshot.of(webui)
    stack = stacked()
    background, apple, banana = stack.state.layers
    assert background.picture.getextrema()[3] == (255, 255)
    assert all(np.ptp(np.asarray(layer.picture)[..., 3]) > 0 for layer in (apple, banana))
    assert webui.state.job == "" and webui.errors == []
    before.check(webui)
    stack.update(apple.key, visible=False)
    alone = stack.paint(painter(), stack.request_again(banana.key, "a banana", 3))
    assert alone.picture.tobytes() != banana.picture.tobytes(), "the background was another one"


def test_settings_and_seeds_are_those_of_the_tab(sd15, with_page):
    webui = with_page(sd15)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        original = sys.modules["modules.processing"].process_images
        patch.setattr(sys.modules["modules.processing"], "process_images", lambda p: seen.append(p) or original(p))
        stacked()
    background, apple, _ = seen
    told = [(p.steps, p.cfg_scale, p.sampler_name, p.seed, p.width, p.height) for p in (background, apple)]
    assert told == [(2, 5.0, "Euler", 1, 64, 64), (2, 5.0, "Euler", 2, 64, 64)]
    assert background.is_api and background.do_not_save_samples and background.do_not_save_grid
    assert not list(webui.folder.rglob("outputs/**/*.png")), "the stack keeps its pictures, the WebUI saves none"


def test_a_thing_on_nothing(sd15, with_page):
    with_page(sd15)
    stack = Stack.of_size(64, 64)
    layer = stack.paint(painter(), stack.request_layer("an apple", 2))
    assert np.ptp(np.asarray(layer.picture)[..., 3]) > 0


def test_formats_without_alpha_change_nothing(sd15, with_page):
    webui = with_page(sd15)
    stack = stacked()
    webui.opts.set("samples_format", "jpg")
    again = stacked()
    assert [layer.picture.tobytes() for layer in again.state.layers] == [
        layer.picture.tobytes() for layer in stack.state.layers
    ]


def test_an_error_of_the_webui_is_told_and_the_next_layer_is_fine(sd15, with_page):
    webui = with_page(sd15)
    stack = Stack.of_size(64, 64)
    with raising(webui, RuntimeError("out of coffee")), pytest.raises(LayerDiffuseError, match="out of coffee"):
        stack.paint(painter(), stack.request_background("a beach", 1))
    assert stack.state.layers == () and webui.state.job == ""
    stack.paint(painter(), stack.request_background("a beach", 1))


def test_an_error_of_ours_is_told(sd15, with_page, monkeypatch):
    with_page(sd15)
    stack = stacked()
    monkeypatch.setattr(
        painting, "arguments_of", lambda request: {"method": "xl_bg2fg", "bg_image": request.background}
    )
    with pytest.raises(LayerDiffuseError, match="SDXL"):
        stack.paint(painter(), stack.request_layer("a pear", 4))
    assert len(stack.state.layers) == 3


def test_stop_before_and_during_the_job(sd15, with_page):
    webui = with_page(sd15)
    stack, watch = Stack.of_size(64, 64), Watch()
    watch.stop.set()
    with pytest.raises(Stopped):
        stack.paint(painter(watch), stack.request_background("a beach", 1))
    assert webui.state.job == ""
    other = Watch()
    thread = threading.Thread(target=press_stop, args=(other,))
    thread.start()
    with pytest.raises(Stopped):
        stack.paint(painter(other, steps=50), stack.request_background("a beach", 1))
    thread.join()
    stack.paint(painter(), stack.request_background("a beach", 1))


def press_stop(watch: Watch) -> None:
    """As soon as there is something to stop."""
    deadline = time.monotonic() + 20
    while watch.on_stop is None and time.monotonic() < deadline:
        time.sleep(0.001)
    watch.stop.set()
    watch.on_stop()


def test_progress_is_that_of_the_webui(sd15, with_page):
    webui = with_page(sd15)
    watch, state = Watch(), webui.state
    state.begin(job="x")
    state.job_count, state.job_no, state.sampling_step, state.sampling_steps = 2, 1, 5, 10
    painting.look(state, watch)
    assert watch.fraction == 0.75
    state.end()
    state.job_count, state.sampling_steps = 0, 0
    painting.look(state, watch)
    assert 0 <= watch.fraction <= 1


def test_the_weight_of_the_tab_is_that_of_the_method(a1111):
    stack = Stack.of_size(64, 64)
    assert painting.arguments_of(stack.request_layer("an apple", 2, 0.5)) == {"enabled": True, "weight": 0.5}
    stack.paint(lambda request: Image.new("RGB", (64, 64)), stack.request_background("a beach", 1))
    assert painting.arguments_of(stack.request_layer("an apple", 2, 0.5))["weight"] == 0.5


def test_of_a_jobs_pictures_a_layer_is_the_transparent_one_and_a_background_the_first():
    opaque, layer = Image.new("RGB", (8, 8)), Image.new("RGBA", (8, 8))
    processed = SimpleNamespace(images=[opaque, layer], comments="", extra_generation_params={})
    stack = Stack.of_size(8, 8)
    assert painting.chosen(processed, stack.request_layer("an apple"))[0] is layer
    assert painting.chosen(processed, stack.request_background("a beach"))[0] is opaque
