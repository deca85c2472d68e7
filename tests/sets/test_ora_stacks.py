"""Stacks within the stack of an OpenRaster file: what is hidden with them, and opacities of their own."""

from __future__ import annotations

import io
import zipfile

import pytest
from PIL import Image

from lib_layerdiffuse.sets.layer_set import LayerSet
from lib_layerdiffuse.sets.reading import read_set

RED, GREEN = (200, 0, 0, 255), (0, 200, 0, 255)


def read(inner: str) -> LayerSet:
    """The layers of a file of 4x4 pixels with this in its stack; a.png is red, b.png is green."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mimetype", "image/openraster")
        archive.writestr("stack.xml", f'<image w="4" h="4"><stack>{inner}</stack></image>')
        for name, colour in {"a.png": RED, "b.png": GREEN}.items():
            png = io.BytesIO()
            Image.new("RGBA", (4, 4), colour).save(png, "PNG")
            archive.writestr(name, png.getvalue())
    return read_set(buffer.getvalue(), "a.ora")


def stack(opacity: float = 1, visibility: str = "visible", layer_opacity: float = 1) -> str:
    """A stack with green above red, the green one hidden by itself."""
    layers = f'<layer name="b" src="b.png" visibility="hidden"/><layer name="a" src="a.png" opacity="{layer_opacity}"/>'
    return f'<stack name="s" opacity="{opacity}" visibility="{visibility}">{layers}</stack>'


def test_layers_of_a_hidden_stack_are_hidden():
    assert [(layer.name, layer.visible) for layer in read(stack())] == [("a", True), ("b", False)]
    assert [layer.visible for layer in read(stack(visibility="hidden"))] == [False, False]


@pytest.mark.parametrize(("outer", "own"), [(0.5, 1), (1, 0.5), (0.5, 0.5)])
def test_the_opacity_of_a_stack_and_that_of_its_one_shown_layer_both_count(outer, own):
    found = read(stack(outer, layer_opacity=own))
    assert [layer.name for layer in found] == ["a", "b"] and found.layers[0].opacity == outer * own
    assert found.composite().getpixel((0, 0))[3] == pytest.approx(255 * outer * own, abs=1)


def test_a_stack_of_half_opacity_with_several_layers_is_one():
    both = stack(0.5).replace('visibility="hidden"', 'opacity="0.5"')
    (layer,) = read(both)
    assert layer.name == "s" and layer.opacity == 0.5
    assert layer.picture.getpixel((0, 0)) == (100, 100, 0, 255), "green of half opacity above red"
