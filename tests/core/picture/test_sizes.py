"""Sizes of a user's pictures: too many pixels are refused by the header, large ones reduced before any copy."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.picture import sizes
from lib_layerdiffuse.core.picture.painted_board import has_painted_board
from lib_layerdiffuse.core.picture.sizes import LARGE, MEDIUM, MOST_SIDE, factor_for, ready, reduced, reduced_array
from lib_layerdiffuse.form.arguments import parse_mapping
from lib_layerdiffuse.unet.images import on_grey, read_image

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16")
side = st.integers(1, MOST_SIDE)


def file_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def header_only(width: int, height: int) -> bytes:
    """A PNG that promises this size, and has no pixels."""
    small = file_of(Image.new("L", (1, 1)))
    start = small.index(b"IHDR")
    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + small[start + 12 : start + 17]
    return small[:start] + body + zlib.crc32(body).to_bytes(4, "big") + small[start + 21 :]


@given(side, side, st.none() | st.tuples(st.integers(8, 4096), st.integers(8, 4096)))
@example(8000, 8000, None)
@example(8192, 8192, (4096, 4096))
def test_no_picture_stays_large_and_none_gets_smaller_than_it_must(width, height, size):
    image = Image.Image()
    image._size = (width, height)
    factor = factor_for(image, size)
    assert width * height / factor**2 <= LARGE
    if width * height <= MEDIUM:
        assert factor == 1
    if factor > 1 and width * height / (factor - 1) ** 2 <= LARGE:  # not needed: then it is for the size alone
        assert size is not None and height // factor >= 2 * size[0] and width // factor >= 2 * size[1]


@pytest.mark.parametrize("read", [lambda raw: base64.b64encode(raw).decode(), lambda raw: raw])
def test_an_api_picture_of_too_many_pixels_is_refused_with_the_limit(read):
    refusal = rf"fg_image \(.*\) of 9000x9000 pixels; expected at most as many as {MOST_SIDE}x"
    with pytest.raises(InputError, match=refusal):
        parse_mapping({"fg_image": read(header_only(9000, 9000))})
    with pytest.raises(InputError, match=f"{MOST_SIDE}x{MOST_SIDE}"):  # so many that PIL will not even open it
        parse_mapping({"fg_image": read(header_only(60_000, 60_000))})


def test_a_picture_of_the_command_line_too(tmp_path):
    (tmp_path / "large.png").write_bytes(header_only(9000, 9000))
    with pytest.raises(InputError, match=f"init of 9000x9000 pixels; expected at most as many as {MOST_SIDE}x"):
        read_image(tmp_path / "large.png", "init", (64, 64))


def test_pictures_that_are_no_files_are_refused_too(monkeypatch):
    monkeypatch.setattr(sizes, "MOST_PIXELS", 100)
    with pytest.raises(InputError, match="of 11x10 pixels"):
        parse_mapping({"fg_image": np.zeros((10, 11, 3), np.uint8)})


MEASURED = """
import base64, io, sys
from PIL import Image
from lib_layerdiffuse.form.arguments import BY_NAME
buffer = io.BytesIO()
Image.new(sys.argv[1], (5000, 5000)).save(buffer, "PNG")
text = base64.b64encode(buffer.getvalue()).decode()
del buffer
def most(): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
open("/proc/self/clear_refs", "w").write("5")
before = most()
BY_NAME["fg_image"].parse(text)
print(most() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the most memory since a moment")
def test_a_small_text_with_a_large_picture_costs_little():
    """What is unpacked is 95 MB, in one copy, and what it is scaled down to; a second copy would be 95 MB more."""
    shown = subprocess.run([sys.executable, "-c", MEASURED, "RGBA"], capture_output=True, text=True, check=True)
    assert int(shown.stdout) < 175 * 1024


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_picture_can_be_reduced(mode, monkeypatch):
    monkeypatch.setattr(sizes, "LARGE", 2000)
    values = np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((40, 40), np.uint8))
    grey = Image.fromarray(values)
    image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    small = read_image(image, "picture").rgba
    assert small.shape == (40, 40, 4)
    assert np.abs(small[..., 0].astype(int) - values[::2, ::2]).max() <= 1 and (small[..., 3] == 255).all()


def test_colours_under_transparent_pixels_do_not_bleed_into_a_reduced_picture(monkeypatch):
    monkeypatch.setattr(sizes, "LARGE", 100)
    monkeypatch.setattr(sizes, "ROWS", 3)  # several strips
    rgba = np.zeros((60, 60, 4), np.uint8)
    rgba[:, :31], rgba[:, 31:] = (200, 100, 50, 255), (0, 255, 0, 0)
    small = np.asarray(reduced(Image.fromarray(rgba)))
    assert small.shape == (10, 10, 4)
    visible = small[..., 3] > 0
    assert np.abs(small[visible][:, :3].astype(int) - (200, 100, 50)).max() <= 3
    assert np.array_equal(small, np.tile(small[:1], (10, 1, 1)))


def test_what_the_network_sees_of_a_reduced_picture_is_the_same(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 4)).astype(np.uint8)
    whole = on_grey(noise, 32, 32, "just-resize")
    monkeypatch.setattr(sizes, "MEDIUM", 100)
    assert reduced_array(noise, (32, 32)).shape == (64, 64, 4)
    assert (on_grey(noise, 32, 32, "just-resize") - whole).abs().max() < 0.01


@pytest.mark.parametrize("turn", [1, 6])
def test_a_photograph_is_unpacked_at_a_fraction_of_its_size_and_stands_upright(turn, monkeypatch, tmp_path):
    pixels = np.zeros((160, 320, 3), np.uint8)
    pixels[:, :160] = 255
    exif = Image.Exif()
    exif[0x0112] = turn
    (tmp_path / "photo.jpg").write_bytes(file_of(Image.fromarray(pixels), "JPEG", exif=exif))
    monkeypatch.setattr(sizes, "MOST_PIXELS", 160 * 320 - 1)  # more than it may have when it is unpacked
    monkeypatch.setattr(sizes, "LARGE", 160 * 320 // 4)
    with Image.open(tmp_path / "photo.jpg") as image:
        upright = ready(image, "photo")
        light = np.asarray(upright.convert("L"))
    assert upright.size == ((160, 80) if turn == 1 else (80, 160))
    begin, end = (light[:, 0], light[:, -1]) if turn == 1 else (light[0], light[-1])
    assert begin.min() > 240 and end.max() < 15


def test_a_board_is_found_in_a_large_picture(monkeypatch):
    monkeypatch.setattr("lib_layerdiffuse.core.picture.painted_board.MOST_LOOKED_AT", 128 * 128)
    board = np.kron(np.indices((16, 16)).sum(0) % 2, np.ones((16, 16))) * 60 + 120
    assert has_painted_board(Image.fromarray(board.astype(np.uint8)))
