"""The script "Outpainting mk2", which paints one side after the other and joins its pictures by itself.

It knows RGB only, and keeps its canvas to itself. So the same canvas is kept here as RGBA: each side's tile gets its
alpha from it on the way in, its result is put into it on the way out, and in the end it takes the script's place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ...core.errors import InputError
from ..jobs.pictures import ClearLayer

SIDES = (("left", "right"), ("up", "down"))  # by axis, in the script's order
MULTIPLE = 64  # of the script's canvas
SAME_LEVELS = 4  # of 255: what the script's own rounding may change on up to four sides


@dataclass(frozen=True)
class Side:
    """A side to paint: along x (0) or y (1), before the picture or behind it, by so many pixels."""

    axis: int
    before: bool
    pixels: int

    def grown(self, size: tuple[int, int]) -> tuple[int, int]:
        """The picture's size with this side painted."""
        return along(self.axis, size, size[self.axis] + self.pixels)

    def place(self, size: tuple[int, int]) -> tuple[int, int]:
        """Where a picture of this size lies on its canvas."""
        return along(self.axis, (0, 0), self.pixels if self.before else 0)

    def tile_place(self, size: tuple[int, int], tile: tuple[int, int]) -> tuple[int, int]:
        """Where the tile that is painted lies on the canvas of a picture of this size."""
        end = rounded_up(size[self.axis] + self.pixels)
        return along(self.axis, (0, 0), 0 if self.before else end - tile[self.axis])


def along(axis: int, pair: tuple[int, int], value: int) -> tuple[int, int]:
    """The pair with this value on the axis."""
    return (value, pair[1]) if axis == 0 else (pair[0], value)


def rounded_up(length: int) -> int:
    """The script's canvas for so many pixels."""
    return math.ceil(length / MULTIPLE) * MULTIPLE


def sides_of(size: tuple[int, int], pixels: int, directions: list[str]) -> list[Side]:
    """The sides in the order in which the script paints them; both of an axis share what is rounded up."""
    found = []
    for axis, names in enumerate(SIDES):
        wanted = [name for name in names if name in directions]
        if not wanted or pixels <= 0:
            continue
        total = rounded_up(size[axis] + pixels * len(wanted)) - size[axis]
        first = total // len(wanted)
        for name, amount in zip(wanted, (first, total - first), strict=False):
            found.append(Side(axis, name == names[0], amount))
    return found


class Outpainting:
    """The script's canvases as RGBA, from the start picture to the finished ones.

    InputError for arguments of another version of the script.
    """

    def __init__(self, start: ClearLayer, arguments: Mapping[str, Any]):
        try:
            pixels, directions = int(arguments["pixels"]), list(arguments["direction"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"arguments of another version of this script ({', '.join(arguments)})",
                "pixels and direction",
                'use "Poor man\'s outpainting" instead',
            ) from error
        self.start, self.sides = start, sides_of(start.rgba.size, pixels, directions)
        self.number = 0  # of sides painted
        self.canvases: list[ClearLayer] = []  # of the batch at hand
        self.done: list[ClearLayer] = [] if self.sides else [start]

    @property
    def side(self) -> Side:
        """The side at hand."""
        return self.sides[self.number % len(self.sides)]

    def tiles(self, given: list[Image.Image], mask: Image.Image) -> list[Image.Image]:
        """The script's RGB tiles with alpha, with the canvas's own colours where the mask keeps them.

        InputError for tiles from elsewhere.
        """
        if not self.sides:
            raise misplaced(given[0])
        if self.number % len(self.sides) == 0:
            self.canvases = [self.start] * len(given)
        kept = ImageOps.invert(mask.convert("L"))
        return [self._tile(canvas, tile, kept) for canvas, tile in zip(self.canvases, given, strict=True)]

    def _tile(self, canvas: ClearLayer, tile: Image.Image, kept: Image.Image) -> Image.Image:
        """The alpha of the canvas, which goes on as it is at its edge where there is nothing yet."""
        size = canvas.rgba.size
        place, corner = self.side.place(size), self.side.tile_place(size, tile.size)
        columns, rows = (np.arange(tile.size[axis]) + corner[axis] - place[axis] for axis in (0, 1))
        inside = ((rows >= 0) & (rows < size[1]))[:, None] & ((columns >= 0) & (columns < size[0]))[None]
        seen = np.ix_(rows.clip(0, size[1] - 1), columns.clip(0, size[0] - 1))
        keeps = inside & (np.asarray(kept) == 255)
        pixels, colours = np.asarray(canvas.rgba)[seen], np.asarray(tile.convert("RGB"))
        shift = np.abs(np.asarray(canvas.opaque, np.int16)[seen] - colours)
        if shift[keeps].max(initial=0) > SAME_LEVELS:
            raise misplaced(tile)
        colours = np.where(keeps[..., None], pixels[..., :3], colours)
        return Image.fromarray(np.concatenate([colours, pixels[..., 3:]], axis=2).astype(np.uint8))

    def take(self, results: list[Image.Image]) -> None:
        """The painted tiles, which the script puts into its canvases now."""
        if not self.canvases:  # its job failed before
            return
        self.canvases = [self._grown(*pair) for pair in zip(self.canvases, results, strict=False)]
        self.number += 1
        if self.number % len(self.sides) == 0:
            self.done += self.canvases

    def _grown(self, canvas: ClearLayer, result: Image.Image) -> ClearLayer:
        size = canvas.rgba.size
        place, corner = self.side.place(size), self.side.tile_place(size, result.size)

        def grown(below: Image.Image) -> Image.Image:
            whole = Image.new(below.mode, self.side.grown(size))
            whole.paste(below, place)
            whole.paste(result.convert(below.mode), corner)
            return whole

        return ClearLayer("", grown(canvas.opaque), grown(canvas.rgba))

    def finished(self, image: Image.Image) -> Image.Image | None:
        """The RGBA picture in place of one that the script has joined; None for any other picture."""
        return next((layer.rgba for layer in self.done if alike(layer.opaque, image)), None)


def alike(one: Image.Image, other: Any) -> bool:
    """Whether two pictures are the same RGB, but for the script's rounding."""
    if getattr(other, "mode", "") != "RGB" or one.size != other.size:
        return False
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other)).max()) <= SAME_LEVELS


def misplaced(tile: Image.Image) -> InputError:
    """A tile that is not where this module expects it."""
    return InputError(
        f"a tile of {tile.width}x{tile.height} that is not where the side to paint was expected",
        "tiles as AUTOMATIC1111 v1.10.1 cuts them",
        'use "Poor man\'s outpainting" instead',
    )
