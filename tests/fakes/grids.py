"""What a WebUI's `images` does with tiles: cut with an overlap, joined as RGB."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image


@dataclass
class Grid:
    """Tiles by row, [y, height, [[x, width, picture], ...]], of a picture of this size."""

    tiles: list[list[Any]]
    size: tuple[int, int]
    overlap: int
    cells: list[list[Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.cells = [cell for _, _, row in self.tiles for cell in row]


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side."""
    count = max(1, math.ceil((length - overlap) / (tile - overlap)))
    return [0] if count == 1 else [round(place * (length - tile) / (count - 1)) for place in range(count)]


def split_grid(image: Image.Image, tile_w: int, tile_h: int, overlap: int) -> Grid:
    """Overlapping tiles of any mode."""
    rows = []
    for y in starts(image.height, tile_h, overlap):
        crops = [[x, tile_w, image.crop((x, y, x + tile_w, y + tile_h))] for x in starts(image.width, tile_w, overlap)]
        rows.append([y, tile_h, crops])
    return Grid(rows, image.size, overlap)


def combine_grid(grid: Grid) -> Image.Image:
    """RGB of the tiles; each fades in over what is there, first within its row, then the rows."""
    whole = Image.new("RGB", grid.size)
    for y, height, row in grid.tiles:
        strip = Image.new("RGB", (grid.size[0], height))
        for x, width, tile in row:
            strip.paste(tile.convert("RGB"), (x, 0), ramp((width, height), grid.overlap if x else 0, 0))
        whole.paste(strip, (0, y), ramp(strip.size, grid.overlap if y else 0, 1))
    return whole


def ramp(size: tuple[int, int], length: int, axis: int) -> Image.Image:
    """White that fades in from the left (0) or from above (1)."""
    line = np.minimum(np.arange(size[axis]) * 255 // max(length, 1) + (255 if not length else 0), 255)
    shape = line[None].repeat(size[1], 0) if axis == 0 else line[:, None].repeat(size[0], 1)
    return Image.fromarray(shape.astype(np.uint8))
