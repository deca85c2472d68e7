"""Painted checkerboards are told whatever their greys, size, place and file format; other pictures are left alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lib_layerdiffuse.core.picture.alpha import checkerboard_preview
from lib_layerdiffuse.core.picture.painted_board import has_painted_board

HELD_OUT = sorted((Path(__file__).parents[2] / "data/held_out").glob("*.webp"))[::12]
GREYS = [(255, 204), (196, 240), (60, 90), (115, 140), (153, 102)]


def cut_out(width: int = 320, height: int = 240, extent: float = 0.6) -> Image.Image:
    """A disc that shades from red to blue, on nothing."""
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    across = np.linspace(0, 1, width)[None].repeat(height, 0)
    colour = np.dstack([220 - 160 * across, 40 + 0 * across, 60 + 160 * across]).astype(np.uint8)
    mask = Image.new("L", (width, height))
    x, y = width * (1 - extent) / 2, height * (1 - extent) / 2
    ImageDraw.Draw(mask).ellipse((x, y, width - x, height - y), fill=255)
    image.paste(Image.fromarray(colour), (0, 0), mask)
    return image


def on_board(image: Image.Image, greys: tuple[int, int], square: int, shift: int = 0) -> Image.Image:
    """RGB of a picture on a board."""
    width, height = image.size
    odd = ((np.arange(height) + shift)[:, None] // square + (np.arange(width) + shift) // square) % 2
    board = Image.fromarray(np.where(odd == 1, greys[0], greys[1]).astype(np.uint8)).convert("RGBA")
    return Image.alpha_composite(board, image).convert("RGB")


def as_jpeg(image: Image.Image, quality: int = 85) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


@pytest.mark.parametrize("greys", GREYS)
@pytest.mark.parametrize(("square", "shift"), [(8, 3), (12, 0), (32, 7)])
def test_issue_28_a_painted_board_is_told(greys, square, shift):
    painted = on_board(cut_out(), greys, square, shift)
    assert has_painted_board(painted)
    assert has_painted_board(painted.convert("RGBA"))
    assert has_painted_board(as_jpeg(painted))


@pytest.mark.parametrize("scale", [0.7, 1.37])
def test_a_screenshot_at_another_size_is_told(scale):
    painted = on_board(cut_out(), (255, 204), 16)
    assert has_painted_board(painted.resize((round(320 * scale), round(240 * scale)), Image.Resampling.BICUBIC))


def test_our_own_preview_and_a_thing_that_fills_the_picture_are_told():
    assert has_painted_board(checkerboard_preview(cut_out(extent=0.9)))
    assert has_painted_board(on_board(cut_out(extent=0.97), (255, 204), 10))


@pytest.mark.parametrize("path", HELD_OUT, ids=lambda path: path.stem)
def test_real_cut_outs_are_told_on_a_board_only(path):
    image = Image.open(path).convert("RGBA")
    assert not has_painted_board(image)
    for ground in ((255, 255, 255, 255), (128, 128, 128, 255), (0, 0, 0, 255)):
        flat = Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")
        assert not has_painted_board(flat)
    assert has_painted_board(on_board(image, (255, 204), 8))


def test_other_pictures_are_left_alone():
    random = np.random.default_rng(1)
    noise = Image.fromarray(random.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    grey_noise = Image.fromarray(random.integers(0, 2, (128, 128), dtype=np.uint8) * 60 + 120)
    stripes = Image.fromarray(np.where(np.arange(128)[None].repeat(128, 0) // 8 % 2, 200, 240).astype(np.uint8))
    bricks = (np.arange(128)[:, None] // 8 * 4 + np.arange(128)) // 8 % 2
    gradient = Image.linear_gradient("L")
    empty, small = Image.new("RGBA", (64, 64)), Image.new("RGB", (1, 1), (128, 128, 128))
    for image in (noise, grey_noise, stripes, gradient, empty, small, Image.new("RGB", (64, 64), (255, 255, 255))):
        assert not has_painted_board(image)
    assert not has_painted_board(Image.fromarray(np.where(bricks, 200, 240).astype(np.uint8)))


@pytest.mark.parametrize("shape", [(1, 64), (64, 1), (1, 2), (2, 3)])
def test_pictures_of_a_few_pixels_have_no_board(shape):
    assert not has_painted_board(Image.fromarray(np.uint8(np.indices(shape).sum(0) % 2 * 60 + 150)))


def test_a_board_under_transparency_is_none():
    board = on_board(Image.new("RGBA", (128, 128)), (255, 204), 8).convert("RGBA")
    board.putalpha(0)
    assert not has_painted_board(board)
