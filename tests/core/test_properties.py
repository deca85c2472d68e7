"""What holds for any size, mask, box and row: pictures, tiles, parts of latents, rows of a UNet call."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from lib_layerdiffuse.core.codec.tiling import OVERLAP, SMALLEST, spans, tiled
from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.picture.alpha import pad_rgb, trim_box, trimmed
from lib_layerdiffuse.core.picture.boxes import Box, find_box
from lib_layerdiffuse.core.picture.resize import area_taps, lanczos_taps, linear_taps, resize_image
from lib_layerdiffuse.core.picture.resize_modes import ResizeMode
from lib_layerdiffuse.core.rows import spread_rows

few = settings(max_examples=40, deadline=None)
side = st.integers(1, 40)
FACTOR = 8


def pictures(smallest: int = 1, largest: int = 24) -> st.SearchStrategy[np.ndarray]:
    """uint8 [H,W,4]; alpha is mostly 0 or 255, as in masks."""
    size = st.integers(smallest, largest)
    alpha = st.sampled_from([0, 0, 255, 255, 1, 15, 16, 128, 254])
    colours = st.tuples(size, size).flatmap(lambda shape: arrays(np.uint8, (*shape, 3)))
    return colours.flatmap(
        lambda rgb: arrays(np.uint8, (*rgb.shape[:2], 1), elements=alpha).map(
            lambda channel: np.concatenate([rgb, channel], axis=2)
        )
    )


@few
@given(side, side, st.sampled_from([area_taps, linear_taps, lanczos_taps]))
def test_taps_weigh_one_in_all_and_stay_in_the_picture(size, target, taps):
    assume(taps is not area_taps or target <= size)
    rows, weights = taps(size, target)
    assert len(rows) == len(weights) == target
    assert rows.min() >= 0 and rows.max() < size
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)


@few
@given(side, side, side, side, st.sampled_from(list(ResizeMode)), st.floats(0, 1, width=32))
def test_a_picture_of_one_colour_stays_so_in_any_size_and_mode(height, width, to_height, to_width, mode, level):
    resized = resize_image(np.full((height, width, 3), level, np.float32), to_height, to_width, mode)
    assert resized.shape == (to_height, to_width, 3) and np.allclose(resized, level, atol=1e-4)


@few
@given(pictures(), st.integers(1, 255))
def test_the_trim_box_holds_all_that_is_visible_and_no_more(rgba, threshold):
    visible = rgba[..., 3] >= threshold
    box = trim_box(rgba, threshold)
    assert (box is None) == (not visible.any())
    if box is None:
        return
    left, top, right, bottom = box
    assert visible[top:bottom, left:right].sum() == visible.sum()
    inside = visible[top:bottom, left:right]
    assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    assert np.array_equal(np.asarray(trimmed(Image.fromarray(rgba), threshold)), rgba[top:bottom, left:right])


@few
@given(pictures())
def test_padding_keeps_opaque_colours_and_stays_among_the_visible_ones(rgba):
    padded = pad_rgb(rgba)
    opaque, seen = rgba[..., 3] == 255, rgba[..., 3] > 0
    assert padded.shape == (*rgba.shape[:2], 3) and padded.min() >= 0 and padded.max() <= 1
    assert np.allclose(padded[opaque], rgba[opaque][:, :3] / 255, atol=1e-6)
    if seen.any():
        colours = rgba[seen][:, :3] / 255
        assert (padded >= colours.min(axis=0) - 1e-3).all() and (padded <= colours.max(axis=0) + 1e-3).all()


@few
@given(pictures(), st.integers(0, 2**32 - 1))
def test_padding_does_not_look_at_colours_that_nobody_sees(rgba, seed):
    other = rgba.copy()
    hidden = other[..., 3] == 0
    other[hidden, :3] = np.random.default_rng(seed).integers(0, 256, (hidden.sum(), 3))
    assert np.array_equal(pad_rgb(rgba), pad_rgb(other))


lengths = st.integers(1, 400).map(lambda number: number * FACTOR)
tiles = st.integers(SMALLEST // FACTOR, 100).map(lambda number: number * FACTOR)


@given(lengths, tiles)
def test_tiles_cover_a_side_overlap_enough_and_begin_at_latents(length, tile):
    found = list(spans(length, tile, FACTOR))
    assert found[0].start == 0 and found[-1].stop == length
    for span in found:
        assert span.start % FACTOR == 0 and span.stop - span.start >= min(length, tile)
        assert span.stop - span.start < tile + FACTOR or length <= tile
    for before, after in pairwise(found):
        assert before.start < after.start and before.stop - after.start >= OVERLAP - FACTOR


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(SMALLEST // FACTOR, 40))
def test_tiles_of_a_picture_put_together_are_the_picture(height, width, tile):
    whole = torch.arange(height * FACTOR * width * FACTOR).view(1, 1, height * FACTOR, width * FACTOR).float()
    whole /= whole.numel()

    def work(pixels, latent):
        assert all(part.start == FACTOR * small.start for part, small in zip(pixels, latent, strict=True))
        return whole[..., pixels[0], pixels[1]]

    assert torch.allclose(tiled(whole.shape[-2:], tile * FACTOR, FACTOR, work), whole, atol=1e-5)


@few
@given(st.data())
def test_a_part_of_noise_is_found_where_it_was_cut_out_at_any_scale(data):
    whole = torch.randn(2, 4, *(data.draw(st.integers(4, 16)) for _ in range(2)), generator=torch.Generator())
    height, width = (data.draw(st.integers(3, side)) for side in whole.shape[-2:])
    box = Box(
        data.draw(st.integers(0, whole.shape[-2] - height)),
        data.draw(st.integers(0, whole.shape[-1] - width)),
        height,
        width,
    )
    part = box.of(whole[data.draw(st.integers(0, 1))]) * data.draw(st.sampled_from([0.1, 1.0, 14.6]))
    assert find_box(part, whole) == box
    assert find_box(part, whole, [Box(0, 0, height, width), box]) == box
    assert find_box(torch.randn(part.shape, generator=torch.Generator().manual_seed(1)), whole) is None


@given(st.integers(1, 6), st.integers(1, 24), st.none() | st.lists(st.integers(-1, 6), max_size=24))
def test_rows_of_a_call_are_one_for_all_or_named_or_repeated_or_refused(stored, count, rows):
    values = torch.arange(stored)[:, None]
    if stored == 1:
        wanted = [0] * count
    elif rows is not None:
        wanted = rows if len(rows) == count and all(0 <= row < stored for row in rows) else None
    else:
        wanted = [place % stored for place in range(count)] if count % stored == 0 else None
    if wanted is None:
        with pytest.raises(InputError):
            spread_rows(values, count, rows)
    else:
        assert spread_rows(values, count, rows).flatten().tolist() == wanted
