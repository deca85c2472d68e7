"""Pictures that a script cuts into tiles and joins again: tiles go out as RGBA, and are joined as RGBA.

The script itself gets the start picture's colours without alpha; its own cutting and joining, which know RGB only,
are used for all channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ...core.errors import InputError
from ...core.picture.alpha import pad_rgb, rgba_array
from ..jobs.pictures import ClearLayer
from ..saving.keeping import with_alpha

ROWS = 256
ROUNDING = 3  # of 255, in premultiplied colours: what joining in 8 bits may change


def start_layer(picture: Any) -> ClearLayer:
    """The start picture as RGBA, and what a script gets instead of it: padded colours without alpha."""
    pixels = rgba_array(picture)
    colours = (pad_rgb(pixels) * 255).round().astype(np.uint8)
    for corner in ((0, 0), (-1, -1)):  # never black, so that its place on a black canvas shows
        colours[corner] = colours[corner].clip(1)
    return ClearLayer("", Image.fromarray(colours), Image.fromarray(pixels))


def enlarged(image: Image.Image, start: ClearLayer) -> Image.Image:
    """What an upscaler made of the start picture's colours, with its alpha."""
    return with_alpha(image, start)


def on_canvas(image: Image.Image, start: ClearLayer) -> Image.Image:
    """A canvas, black but for the start picture somewhere in it -> the same as RGBA, transparent but for it.

    InputError for any other picture.
    """
    box = image.getbbox()
    if box is None or not np.array_equal(np.asarray(image.crop(box)), np.asarray(start.opaque)):
        raise InputError(
            f"a canvas of {image.width}x{image.height} without the start picture in it",
            "the start picture on black",
            "switch off what changes the start picture before this script",
        )
    canvas = Image.new("RGBA", image.size)
    canvas.paste(start.rgba, box[:2])
    return canvas


def joined(combine: Callable[[Any], Image.Image], grid: Any) -> Image.Image:
    """The tiles of a WebUI's grid joined by its own function, which knows RGB only -> RGBA.

    Where tiles overlap, their colours weigh by their alpha; elsewhere every level stays.
    """
    cells = [cell for _, _, row in grid.tiles for cell in row]
    tiles = [as_tile(cell[2]) for cell in cells]

    def join(part: Callable[[Image.Image], Image.Image]) -> np.ndarray:
        for cell, tile in zip(cells, tiles, strict=True):
            cell[2] = part(tile)
        return np.asarray(combine(grid))

    colour, weighted = join(lambda tile: tile.convert("RGB")), join(premultiplied)
    alpha = join(lambda tile: tile.getchannel("A").convert("RGB"))[..., :1]
    for cell, tile in zip(cells, tiles, strict=True):
        cell[2] = tile
    result = np.concatenate([colour, alpha], axis=2)
    for row in range(0, len(result), ROWS):  # a large picture as floats would take gigabytes
        band = slice(row, row + ROWS)
        result[band, :, :3] = weighed(*(values[band].astype(np.float32) for values in (colour, weighted, alpha)))
    return Image.fromarray(result)


def weighed(colour: np.ndarray, weighted: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Joined colours, or those of the joined premultiplied ones where that makes a difference; all in [0,255]."""
    mixed = np.abs(weighted - colour * alpha / 255) > ROUNDING
    return np.where(mixed.any(axis=2, keepdims=True), (weighted * 255 / alpha.clip(1)).round().clip(0, 255), colour)


def as_tile(tile: Image.Image) -> Image.Image:
    """A tile as RGBA: transparent where it was never made, which scripts tell by black; opaque without alpha."""
    if tile.mode != "RGBA" and tile.getbbox() is None:
        return Image.new("RGBA", tile.size)
    return tile.convert("RGBA")


def premultiplied(tile: Image.Image) -> Image.Image:
    """RGB of an RGBA picture, weighted by its alpha."""
    return Image.merge("RGB", tile.convert("RGBa").split()[:3])
