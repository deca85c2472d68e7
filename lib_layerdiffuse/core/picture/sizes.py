"""A user's picture while it is still bytes: too many pixels are refused, and a large one is reduced, before any copy.

A text of 10 kB may hold a picture of 8000x8000, which takes gigabytes in float; so sizes are read from the header
first. Sizes wanted are (height, width).
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError

MOST_SIDE = 8192
MOST_PIXELS = MOST_SIDE**2  # of any picture that is unpacked: 256 MiB as RGBA
LARGE = 2**24  # no picture stays larger: in float it would take a gigabyte
MEDIUM = 2**22  # nor than this, where the wanted size is known and far smaller
ROWS = 256  # of the reduced picture that are made at a time
DRAFTED = ("JPEG", "MPO")  # formats that can be unpacked at a fraction of their size
ORIENTATION, UPRIGHT, SIDEWAYS = 0x0112, 1, (5, 6, 7, 8)  # Exif
REDUCED_AS_THEY_ARE = ("L", "RGB", "I", "F")  # modes without alpha that PIL reduces

Size = tuple[int, int]


def check_pixels(image: Image.Image, name: str) -> None:
    """InputError for a picture of more than MOST_PIXELS, named `name`; nothing is unpacked."""
    if image.width * image.height > MOST_PIXELS:
        raise InputError(
            f"{name} of {image.width}x{image.height} pixels",
            f"at most as many as {MOST_SIDE}x{MOST_SIDE}",
            f"scale {name} down first",
        )


def ready(image: Image.Image, name: str, size: Size | None = None) -> Image.Image:
    """The picture upright, of at most LARGE pixels, at least twice as large as `size` where it was; unpacked once."""
    if image.format not in DRAFTED:
        check_pixels(image, name)  # before Exif, for which a PNG is unpacked
    wanted, turn = size, image.getexif().get(ORIENTATION, UPRIGHT)
    size = (size[1], size[0]) if size and turn in SIDEWAYS else size  # as the file has it
    factor = factor_for(image, size)
    if factor > 1:
        image.draft(None, (image.width // factor, image.height // factor))
        check_pixels(image, name)
    image = image if turn == UPRIGHT else ImageOps.exif_transpose(image)
    return reduced(image, wanted)


def factor_for(image: Image.Image, size: Size | None) -> int:
    """By how much a picture is reduced: 1 for one that stays as it is."""
    pixels = image.width * image.height
    least = math.ceil(math.sqrt(pixels / LARGE))
    if size is None or pixels <= MEDIUM:
        return max(1, least)
    return max(1, least, min(image.height // (2 * size[0]), image.width // (2 * size[1])))


def reduced(image: Image.Image, size: Size | None = None) -> Image.Image:
    """The picture by `factor_for` smaller, colour weighted by alpha; itself where that is 1."""
    factor = factor_for(image, size)
    if factor == 1:
        return image
    if image.mode in REDUCED_AS_THEY_ARE and "transparency" not in image.info:
        return image.reduce(factor)
    # in strips, for PIL would make several whole copies
    result = Image.new("RGBA", (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, ROWS * factor):
        strip = image.crop((0, top, image.width, min(image.height, top + ROWS * factor)))
        weighted = strip.convert("RGBA").convert("RGBa").reduce(factor)
        result.paste(weighted.convert("RGBA"), (0, top // factor))
    result.info = dict(image.info)
    return result


def reduced_array(rgba: np.ndarray, size: Size) -> np.ndarray:
    """`reduced` of uint8 [H,W,4]; arrays of another kind, and small ones, as they are."""
    if rgba.dtype != np.uint8 or rgba.shape[0] * rgba.shape[1] <= MEDIUM:
        return rgba
    return np.asarray(reduced(Image.fromarray(rgba), size))
