"""Telling pictures with a checkerboard painted into them: previews and screenshots, taken for the file itself."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from PIL import Image

from .alpha import rgba_array

COLOURED = 16  # levels between the channels of a pixel that is no grey any more
CONTRAST = 8  # levels at least between the two greys
SHARE = 0.08  # of the picture that the board covers at least
EDGE = 0.6  # share of neighbours that differ where squares meet
LINES = 3  # edges at least in either direction
MOST_LOOKED_AT = 2**22  # pixels
FIT = 0.9  # share of the board's edges that lie at even distances
MATCH = 0.85  # share of pixels in the board's greys that fit; a thing may have greys of its own


def has_painted_board(image: Image.Image) -> bool:
    """Whether an opaque checkerboard of two greys shows in a picture, whatever its greys, size and place."""
    every = math.ceil(math.sqrt(image.width * image.height / MOST_LOOKED_AT))
    rgba = rgba_array(image)[::every, ::every]
    colours = rgba[..., :3].astype(np.int16)
    grey = (np.ptp(colours, axis=-1) <= COLOURED) & (rgba[..., 3] > 250)
    if grey.mean() < SHARE:
        return False
    levels = colours.mean(axis=-1)
    pair = two_greys(levels[grey])
    if pair is None:
        return False
    near = [grey & (np.abs(levels - level) <= max(CONTRAST, pair[1] - pair[0]) / 2) for level in pair]
    known, light = near[0] | near[1], near[1]
    down, across = edges(known, light, 0), edges(known, light, 1)
    if known.mean() < SHARE or down is None or across is None:
        return False
    odd = (np.cumsum(down)[:, None] + np.cumsum(across)) % 2 == 1
    fits = (odd == light)[known].mean()
    return bool(max(fits, 1 - fits) > MATCH)


def two_greys(levels: np.ndarray) -> tuple[float, float] | None:
    """The two levels that most pixels [N] have, darker first; None where there are not two of like weight."""
    counts = np.bincount(levels.round().astype(int), minlength=256).astype(float)
    counts = np.convolve(counts, np.ones(5), "same")
    first = int(counts.argmax())
    far = np.abs(np.arange(256) - first) >= CONTRAST
    second = int((counts * far).argmax())
    if counts[second] < 0.3 * counts[first] or counts[first] + counts[second] < 0.3 * len(levels):
        return None
    return float(min(first, second)), float(max(first, second))


def edges(known: np.ndarray, light: np.ndarray, axis: int) -> np.ndarray | None:
    """Where squares meet along an axis: bool [H] or [W]; None unless often enough and at even distances."""
    if axis == 1:
        known, light = known.T, light.T
    if len(known) <= LINES:  # a picture of a few pixels
        return None
    both = known[1:] & known[:-1]
    changes = ((light[1:] != light[:-1]) & both).sum(1) / np.maximum(both.sum(1), 1)
    seen = both.sum(1) >= 0.05 * known.shape[1]
    changes = np.where(seen, changes, 0)
    smooth = np.convolve(changes, np.ones(3), "same")  # an edge that was resampled lies between pixels
    peaks = (smooth > EDGE) & (changes == maximum_around(changes))
    found = np.flatnonzero(peaks)
    if len(found) < LINES:
        return None
    gaps = np.diff(found)
    square = float(np.median(gaps))
    even = np.abs(gaps / square - np.maximum(np.round(gaps / square), 1)) * square <= 1.5
    if square < 3 or even.mean() < FIT:
        return None
    return np.concatenate([[False], filled(peaks, found, square)])


def maximum_around(values: np.ndarray) -> np.ndarray:
    """The largest of each value [N] and its two neighbours on either side; of equal ones the first."""
    padded = np.pad(values - np.arange(len(values)) * 1e-9, 2, constant_values=-1)
    largest = np.stack([padded[place : place + len(values)] for place in range(5)]).max(0)
    return np.where(padded[2:-2] >= largest, values, np.inf)


def filled(peaks: np.ndarray, found: np.ndarray, square: float) -> np.ndarray:
    """The edges [N] with those between them where something lies over the board."""
    whole = peaks.copy()
    for start, end in pairwise(found):
        steps = round((end - start) / square)
        for step in range(1, steps):
            whole[round(start + step * (end - start) / steps)] = True
    return whole
