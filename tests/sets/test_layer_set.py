"""The model of a layer set: what it holds, what it refuses, and its composite."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.sets import layer_set
from lib_layerdiffuse.sets.layer_set import Layer, LayerSet, set_of_frames


def noise(width: int = 6, height: int = 5, seed: int = 0) -> Image.Image:
    """RGBA of random levels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8))


def exact(layers: list[Layer], x: int, y: int) -> list[Fraction]:
    """Source-over of one pixel in fractions: straight R, G, B and alpha in [0,1]."""
    colour, alpha = [Fraction(0)] * 3, Fraction(0)
    for layer in layers:
        place = x - layer.left, y - layer.top
        if not layer.visible or not (0 <= place[0] < layer.width and 0 <= place[1] < layer.height):
            continue
        *rgb, a = (Fraction(value, 255) for value in layer.picture.getpixel(place))
        a *= Fraction(layer.opacity)
        colour = [new * a + old * (1 - a) for new, old in zip(rgb, colour, strict=True)]
        alpha = a + alpha * (1 - a)
    return [value / alpha if alpha else Fraction(0) for value in colour] + [alpha]


layers = st.builds(
    lambda seed, left, top, opacity, visible: Layer(
        "x", noise(4, 3, seed), left=left, top=top, opacity=opacity, visible=visible
    ),
    st.integers(0, 99),
    st.integers(-5, 7),
    st.integers(-5, 7),
    st.sampled_from([0, 0.25, 0.5, 1]),
    st.booleans(),
)


@given(st.lists(layers, max_size=4))
def test_the_composite_is_exact(stack):
    made = LayerSet(6, 5, stack)
    values, picture = made.composited(), np.asarray(made.composite())
    for y in range(5):
        for x in range(6):
            wanted = exact(stack, x, y)
            assert values[y, x] == pytest.approx([float(value) for value in wanted], abs=1e-6)
            assert all(abs(255 * value - level) <= Fraction(1, 2) + Fraction(1, 10**9)
                       for value, level in zip(wanted, picture[y, x].tolist(), strict=True))  # fmt: skip


def test_large_canvases_are_blended_in_strips(monkeypatch):
    made = LayerSet(6, 5, [Layer("a", noise()), Layer("b", noise(3, 3, 1), left=2, top=1)])
    whole = made.composited()
    monkeypatch.setattr(layer_set, "STRIP", 12)
    assert np.array_equal(made.composited(), whole)
    assert np.abs(np.asarray(made.composite()) / 255 - whole).max() < 0.5 / 255 + 1e-6


def test_nothing_is_a_transparent_canvas():
    assert LayerSet(2, 1).composite().tobytes() == bytes(8) and not LayerSet(2, 1).is_opaque


def test_pictures_of_any_kind_are_rgba_and_rgba_ones_are_shared():
    picture = noise()
    assert Layer("x", picture).picture is picture
    assert Layer("x", Image.new("L", (2, 2), 7)).picture.getpixel((0, 0)) == (7, 7, 7, 255)
    assert LayerSet(2, 2, blended=Image.new("RGB", (2, 2))).blended.mode == "RGBA"


def test_frames_become_a_set():
    pictures = {"blended": noise(seed=1), "foreground": noise(), "background": Image.new("RGB", (6, 5), (1, 2, 3))}
    made = set_of_frames(pictures, {"foreground": "a cat"}, {"foreground": 7, "background": 8})
    assert [(layer.name, layer.role, layer.prompt, layer.seed) for layer in made] == [
        ("Background", "background", "", 8),
        ("Foreground", "foreground", "a cat", 7),
    ]
    assert made.blended is pictures["blended"] and made.size == (6, 5) and made.is_opaque
    assert made.of_role("foreground").picture is pictures["foreground"] and made.of_role("layer") is None
    alone = set_of_frames({"foreground": noise()})
    assert len(alone) == 1 and alone.blended is None and not alone.is_opaque


def test_what_covers_the_canvas_makes_it_opaque():
    wall = Layer("wall", Image.new("RGB", (8, 8)), left=-1, top=-1)
    assert LayerSet(6, 5, [wall]).is_opaque
    for change in ({"left": 1}, {"opacity": 0.5}, {"visible": False}, {"picture": noise(8, 8)}):
        assert not LayerSet(6, 5, [replace(wall, **change)]).is_opaque


def test_one_clear_place_is_enough_not_to_be_opaque():
    wall = Image.new("RGBA", (6, 5), "red")
    wall.putpixel((5, 4), (255, 0, 0, 0))
    assert not LayerSet(6, 5, [Layer("wall", wall)]).is_opaque


def test_what_does_not_show_is_not_among_the_visible():
    hidden, gone, seen = (
        Layer("x", noise(), visible=show, opacity=o) for show, o in ((False, 1), (True, 0), (True, 0.1))
    )
    assert LayerSet(6, 5, [hidden, gone, seen]).visible == (seen,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": 3}, "a text"),
        ({"name": "a\0"}, "a text"),
        ({"name": "\ud83d"}, "a text"),
        ({"name": "x" * 1001}, "1001 characters"),
        ({"prompt": None}, "a text"),
        ({"picture": "a.png"}, "a PIL image"),
        ({"picture": Image.new("RGBA", (0, 4))}, "0x4"),
        ({"left": 0.5}, "whole number"),
        ({"top": 10**9}, "whole number"),
        ({"seed": "1"}, "whole number"),
        ({"opacity": 1.01}, "from 0 to 1"),
        ({"opacity": 10**400}, "from 0 to 1"),
        ({"left": -(10**400)}, "a whole number"),
        ({"opacity": float("nan")}, "from 0 to 1"),
        ({"opacity": True}, "from 0 to 1"),
        ({"role": "top"}, "background, foreground, blended, layer"),
    ],
)
def test_a_layer_says_what_is_wrong(change, reason):
    with pytest.raises(InputError, match=reason):
        Layer(**{"name": "x", "picture": noise(), **change})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((0, 4), "1 to 8192"),
        ((10**6, 4), "width"),
        ((4, 4, ["x"]), "a str among the layers"),
        ((4, 4, [Layer("x", noise())] * 257), "257 layers"),
        ((4, 4, (), noise()), "6x5"),
    ],
)
def test_a_set_says_what_is_wrong(arguments, reason):
    with pytest.raises(InputError, match=reason):
        LayerSet(*arguments)


def test_more_pixels_than_memory_is_worth_are_refused(monkeypatch):
    monkeypatch.setattr(layer_set, "MOST_PIXELS", 59)
    with pytest.raises(InputError, match="60 pixels in all"):
        LayerSet(6, 5, [Layer("x", noise())] * 2)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ({}, "no picture"),
        ({"top": noise()}, "frames top"),
        ({"foreground": noise(), "background": noise(4, 4)}, "foreground 6x5, background 4x4"),
    ],
)
def test_frames_that_make_no_set(frames, reason):
    with pytest.raises(InputError, match=reason):
        set_of_frames(frames)
