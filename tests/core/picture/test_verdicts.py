"""Which alpha is called broken, and which may well be meant."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lib_layerdiffuse.core.picture.verdicts import EMPTY, HAZE, OPAQUE, AlphaFigures

SIDE = 128


def picture(alpha: np.ndarray) -> Image.Image:
    """A grey picture with an alpha [H,W] of 0 to 255."""
    made = Image.new("RGBA", alpha.shape[::-1], (90, 90, 90, 255))
    made.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return made


def disc(inside: int, outside: int = 0, radius: int = 40) -> np.ndarray:
    board = Image.new("L", (SIDE, SIDE), outside)
    middle = SIDE // 2
    ImageDraw.Draw(board).ellipse((middle - radius, middle - radius, middle + radius, middle + radius), fill=inside)
    return np.array(board)


MEANT = {
    "a thing": disc(255),
    "glass": disc(140),
    "a large glass": disc(140, radius=58),
    "a small star": disc(255, radius=3),
    "a thing that fills nearly all": disc(255, radius=84),
    "a hole": disc(0, 255, radius=8),
}
BROKEN = {
    "full": (np.full((SIDE, SIDE), 255), OPAQUE),
    "full but for specks": (np.where(np.arange(SIDE**2).reshape(SIDE, SIDE) % 400, 255, 0), OPAQUE),
    "nothing": (np.zeros((SIDE, SIDE)), EMPTY),
    "hardly anything": (disc(20), EMPTY),
    "a veil": (np.full((SIDE, SIDE), 90), HAZE),
    "a veil with a shape in it": (disc(160, 80), HAZE),
    "a veil with a small gap": (disc(0, 110, radius=20), HAZE),
}


@pytest.mark.parametrize("name", MEANT)
def test_what_may_be_meant_is_left_alone(name) -> None:
    assert AlphaFigures.of(picture(MEANT[name])).verdict is None


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_told(name) -> None:
    alpha, verdict = BROKEN[name]
    figures = AlphaFigures.of(picture(alpha))
    assert figures.verdict is verdict and AlphaFigures.of(np.array(picture(alpha))) == figures


def test_figures_are_shares() -> None:
    figures = AlphaFigures.of(picture(np.repeat([[0, 10, 100, 255]], 4, 0)))
    assert figures == AlphaFigures(empty=0.25, between=0.25, opaque=0.25, visible=0.5)
    assert str(figures) == "empty 25%, half transparent 25%, opaque 25%"
    assert AlphaFigures.of(Image.new("RGB", (8, 8))).verdict is OPAQUE


@pytest.mark.parametrize(("level", "empty", "opaque"), [(2, 1, 0), (3, 0, 0), (252, 0, 0), (253, 0, 1)])
def test_two_levels_from_an_end_count_as_it_and_three_do_not(level, empty, opaque) -> None:
    figures = AlphaFigures.of(np.full((4, 4, 4), level, np.uint8))
    assert (figures.empty, figures.opaque) == (empty, opaque)
