"""Trimming, padding, shapes and premultiplied colour: the layers move with their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from examples import disc, noise, same
from PIL import Image

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.sets.layer_set import Layer, LayerSet
from lib_layerdiffuse.sets.preparing import cropped, premultiplied, prepared
from lib_layerdiffuse.sets.save_options import SaveOptions


def of(picture: Image.Image, **where: int) -> LayerSet:
    return LayerSet(64, 64, [Layer("a", picture, **where)])


def test_without_options_the_very_pictures_are_saved():
    made = of(noise())
    assert prepared(made, SaveOptions()).layers[0] is made.layers[0]


@pytest.mark.parametrize("where", [{}, {"left": 7, "top": -9}])
def test_trimmed_layers_stay_where_they_were(where):
    made = of(disc(), **where)
    trimmed = prepared(made, SaveOptions(trim=True))
    assert trimmed.layers[0].box != made.layers[0].box
    loss = np.abs(trimmed.composited()[..., 3] - made.composited()[..., 3])
    assert loss.max() < 16 / 255  # of the threshold
    assert np.array_equal(prepared(made, SaveOptions(trim=True, threshold=1)).composited(), made.composited())


def test_haze_does_not_keep_a_layer_large():
    picture = np.array(disc())
    picture[..., 3] = picture[..., 3].clip(3)
    assert prepared(of(Image.fromarray(picture)), SaveOptions(trim=True)).layers[0].width < 20


def test_padding_is_transparent_in_the_colours_beside_it():
    red = Image.new("RGBA", (4, 4), (200, 10, 20, 255))
    layer = prepared(of(red, left=3), SaveOptions(padding=2)).layers[0]
    assert layer.box == (1, -2, 9, 6)
    pixels = np.asarray(layer.picture)
    assert np.abs(pixels[..., :3].astype(int) - (200, 10, 20)).max() <= 1
    assert pixels[2:-2, 2:-2, 3].min() == 255 and pixels[..., 3].sum() == 16 * 255


def test_padding_takes_what_is_there_before_it_adds_to_it():
    layer = prepared(of(disc()), SaveOptions(trim=True, padding=2)).layers[0]
    alpha = layer.picture.getchannel("A")
    assert alpha.tobytes() == disc().getchannel("A").crop(layer.box).tobytes()
    assert alpha.crop((0, 0, layer.width, 2)).getextrema()[1] < 16


def test_trimming_alone_changes_no_pixel():
    layer = prepared(of(disc()), SaveOptions(trim=True)).layers[0]
    assert same(layer.picture, disc().crop(layer.box))


@pytest.mark.parametrize(("shape", "size"), [("square", (10, 10)), ("power-of-two", (16, 8)), ("as-it-is", (10, 5))])
def test_shapes_add_on_the_right_and_below(shape, size):
    layer = prepared(of(Image.new("RGB", (10, 5), "blue"), left=2, top=3), SaveOptions(shape=shape)).layers[0]
    assert layer.picture.size == size and layer.box[:2] == (2, 3)
    assert prepared(of(Image.new("RGB", (16, 16))), SaveOptions(shape=shape)).layers[0].width == 16


def test_a_shape_that_no_picture_has_is_refused():
    with pytest.raises(InputError, match="at most 8192"):
        prepared(of(Image.new("RGBA", (8193, 1))), SaveOptions(shape="power-of-two"))


def test_cropping_beyond_the_picture_adds_transparency():
    layer = cropped(Layer("a", noise(4, 4), left=5), (-1, 1, 3, 6))
    assert layer.box == (4, 1, 8, 6) and layer.picture.getpixel((0, 0)) == (0, 0, 0, 0)
    assert layer.picture.getpixel((1, 0)) == noise(4, 4).getpixel((0, 1))


def test_premultiplied_levels_are_the_nearest():
    picture = noise()
    straight, made = (np.asarray(image).astype(int) for image in (picture, premultiplied(picture)))
    wanted = straight[..., :3] * straight[..., 3:] / 255
    assert np.abs(made[..., :3] - wanted).max() <= 0.5 and np.array_equal(made[..., 3], straight[..., 3])
