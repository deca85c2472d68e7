"""Tiles of a picture with alpha joined to one again, and a start picture found on its canvas."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.grids import Grid, combine_grid, split_grid
from fakes.running import picture
from PIL import Image

from lib_layerdiffuse.webui.tile_scripts.joining import joined, on_canvas, start_layer


def test_tiles_that_nobody_changed_join_to_the_very_picture() -> None:
    image = picture(160, seed=4)
    grid = split_grid(image, 64, 64, 16)
    assert np.array_equal(np.asarray(joined(combine_grid, grid)), np.asarray(image))
    assert [cell[2].mode for cell in grid.cells] == ["RGBA"] * len(grid.cells)


def test_where_tiles_overlap_the_invisible_one_has_no_say_in_the_colour() -> None:
    red, blue = Image.new("RGBA", (64, 64), (255, 0, 0, 255)), Image.new("RGBA", (64, 64), (0, 0, 255, 0))
    grid = Grid([[0, 64, [[0, 64, red], [32, 64, blue]]]], (96, 64), 32)
    pixels = np.asarray(joined(combine_grid, grid)).astype(int)
    assert (pixels[:, :32] == (255, 0, 0, 255)).all() and (pixels[:, 64:, 3] == 0).all()
    seam = pixels[0, 32:64]
    assert (np.diff(seam[:, 3]) < 0).all()
    visible = seam[seam[:, 3] > 16]
    assert visible[:, 0].min() >= 240 and visible[:, 2].max() <= 16


def test_a_tile_that_was_never_made_is_transparent_and_one_without_alpha_opaque() -> None:
    row = [[0, 32, Image.new("RGB", (32, 32))], [32, 32, Image.new("RGB", (32, 32), "white")]]
    pixels = np.asarray(joined(combine_grid, Grid([[0, 32, row]], (64, 32), 0)))
    assert (pixels[:, :32, 3] == 0).all() and (pixels[:, 32:] == 255).all()


@pytest.mark.parametrize("image", [picture(64, seed=6), Image.new("RGBA", (64, 64)), picture(64, alpha=False)])
def test_the_start_picture_is_found_on_its_canvas(image) -> None:
    start = start_layer(image)
    canvas = Image.new("RGB", (160, 128))
    canvas.paste(start.opaque, (96, 13))
    found = np.asarray(on_canvas(canvas, start))
    assert np.array_equal(found[13:77, 96:160], np.asarray(image.convert("RGBA")))
    assert found.sum() == np.asarray(image.convert("RGBA")).sum()
