"""Layers of a stack painted by small random models: one upon the other, by one method or a chain of them."""

from __future__ import annotations

import numpy as np
import pytest

tiny = pytest.importorskip("tiny", reason="needs the standalone extra")

from lib_layerdiffuse.files.downloads import LayerFiles  # noqa: E402
from lib_layerdiffuse.sets.stack import Stack, Stopped  # noqa: E402
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost  # noqa: E402
from lib_layerdiffuse.standalone.pictures import Watchers  # noqa: E402
from lib_layerdiffuse.standalone.stack_painter import paint  # noqa: E402

STEPS = {"steps": 2, "guidance": 1.0}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    from lib_layerdiffuse import api

    return api.load(demo=tiny.write_demo_folder(tmp_path_factory.mktemp("demo")), device="cpu")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    pipeline = tiny.write_sdxl_folder(folder)
    return DiffusersHost(pipeline, "sdxl", LayerFiles([folder], offline=True))


def painter_of(host, notes=None, watchers=None):
    def answer(request):
        picture, told = paint(host.run, request, STEPS, watchers or Watchers())
        (notes if notes is not None else []).extend(told)
        return picture

    return answer


def stacked(host) -> Stack:
    stack, painter = Stack.of_size(64, 64), painter_of(host)
    stack.paint(painter, stack.request_background("beach", 1))
    stack.paint(painter, stack.request_layer("red apple", 2))
    stack.paint(painter, stack.request_layer("banana", 3))
    return stack


@pytest.mark.parametrize("base", ["demo", "sdxl"])
def test_layers_see_what_is_below_them(base, request):
    host = request.getfixturevalue(base)
    stack = stacked(host)
    background, apple, banana = stack.state.layers
    assert background.picture.getextrema()[3] == (255, 255)
    assert np.ptp(np.asarray(apple.picture)[..., 3]) > 0
    again = stacked(host)
    assert [layer.picture.tobytes() for layer in again.state.layers] == [
        layer.picture.tobytes() for layer in stack.state.layers
    ]
    stack.update(apple.key, visible=False)
    alone = stack.paint(painter_of(host), stack.request_again(banana.key, "banana", 3))
    assert alone.picture.tobytes() != banana.picture.tobytes(), "the background was another one"


def test_a_thing_on_nothing_and_odd_sizes(demo):
    stack = Stack.of_size(61, 66)
    layer = stack.paint(painter_of(demo), stack.request_layer("red apple", 2))
    assert layer.picture.size == (61, 66) and np.ptp(np.asarray(layer.picture)[..., 3]) > 0
    stack.paint(painter_of(demo), stack.request_layer("banana", 2))


def test_a_run_that_is_stopped_gives_no_layer(demo):
    stack = Stack.of_size(64, 64)
    with pytest.raises(Stopped):
        stack.paint(painter_of(demo, watchers=Watchers(should_stop=lambda: True)), stack.request_layer("banana"))
    assert stack.state.layers == ()


def test_weight_counts(demo):
    stack = stacked(demo)
    banana = stack.state.layers[-1]
    other = stack.paint(painter_of(demo), stack.request_again(banana.key, "banana", 3, 0.0))
    assert other.picture.tobytes() != banana.picture.tobytes() and other.weight == 0
