"""Resampling with OpenCV's numbers (area, linear, Lanczos-4), and the three ways a WebUI fits an image into a size.

A resampling along one axis is a short list of taps: for every output row the input rows it draws on, with weights.
Images are float32 [H,W,C]; Lanczos-4 may overshoot the input's range a little, as it does in the original.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .resize_modes import ResizeMode


class Taps(NamedTuple):
    """Input rows [out,taps] that every output row draws on, and their weights [out,taps] float32, summing to 1."""

    rows: np.ndarray
    weights: np.ndarray


@lru_cache(maxsize=512)
def area_taps(size: int, target: int) -> Taps:
    """Every output row is the mean of the stretch of input that it covers; for target <= size."""
    edges = np.arange(target + 1) * (size / target)
    first = np.floor(edges[:-1] + 1e-9).astype(np.int64)
    count = int(np.ceil(size / target)) + 1
    rows = first[:, None] + np.arange(count)
    covered = np.minimum(rows + 1, edges[1:, None]) - np.maximum(rows, edges[:-1, None])
    return _taps(rows, np.clip(covered, 0, None), size)


@lru_cache(maxsize=512)
def linear_taps(size: int, target: int) -> Taps:
    """The two nearest input rows."""
    position = _positions(size, target)
    first = np.floor(position).astype(np.int64)
    share = position - first
    return _taps(first[:, None] + np.arange(2), np.stack([1 - share, share], axis=1), size)


@lru_cache(maxsize=64)
def lanczos_taps(size: int, target: int) -> Taps:
    """Eight input rows under a sinc windowed by a sinc four times as wide."""
    position = _positions(size, target)
    rows = np.floor(position).astype(np.int64)[:, None] + np.arange(-3, 5)
    distance = rows - position[:, None]
    return _taps(rows, np.sinc(distance) * np.sinc(distance / 4), size)


def _positions(size: int, target: int) -> np.ndarray:
    """Centres of the output rows among the input's; rounded to float32 because OpenCV's are."""
    return ((np.arange(target) + 0.5) * (size / target) - 0.5).astype(np.float32).astype(np.float64)


def _taps(rows: np.ndarray, weights: np.ndarray, size: int) -> Taps:
    weights = weights / weights.sum(axis=1, keepdims=True)
    return Taps(np.clip(rows, 0, size - 1), weights.astype(np.float32))


def resample(image: np.ndarray, vertical: Taps, horizontal: Taps) -> np.ndarray:
    """`image` float32 [H,W,C] -> float32 [len(vertical.rows),len(horizontal.rows),C]."""
    shorter = _along(image, horizontal, axis=1)
    return _along(shorter, vertical, axis=0)


def _along(image: np.ndarray, taps: Taps, axis: int) -> np.ndarray:
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    first, *others = zip(taps.rows.T, taps.weights.T, strict=True)

    def term(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        taken = np.take(image, rows, axis=axis)
        taken *= weights.reshape(shape)
        return taken

    result = term(*first)
    for rows, weights in others:
        result += term(rows, weights)
    return result


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Float32 [H,W,C] stretched to [height,width,C]: by area where the picture gets smaller, else by Lanczos-4."""
    H, W = image.shape[:2]
    smaller = height * width <= H * W
    axis = _shrink_axis if smaller else lanczos_taps
    return resample(np.ascontiguousarray(image, dtype=np.float32), axis(H, height), axis(W, width))


def _shrink_axis(size: int, target: int) -> Taps:
    """Area, or linear for the one side that grows while the picture as a whole shrinks."""
    return area_taps(size, target) if target <= size else linear_taps(size, target)


def resize_image(image: np.ndarray, height: int, width: int, mode: ResizeMode | str = ResizeMode.STRETCH) -> np.ndarray:
    """Float [H,W,C] fitted into float32 [height,width,C] the way of `mode` (or its label or key).

    InputError for another shape or mode, or no size.
    """
    if image.ndim != 3 or min(image.shape) < 1 or height < 1 or width < 1:
        raise InputError(
            f"{list(image.shape)} to {height}x{width}", "[H,W,C] and a size from 1x1", "check the image and size"
        )
    return _MODES[ResizeMode.named(mode)](image, height, width)


def _scaled(image: np.ndarray, factor: float) -> np.ndarray:
    H, W = image.shape[:2]
    return resize(image, max(1, round(H * factor)), max(1, round(W * factor)))


def _crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scaled to cover the size, the middle cut out."""
    H, W = image.shape[:2]
    covering = _scaled(image, max(height / H, width / W))
    return covering[_middle(height, covering.shape[0]), _middle(width, covering.shape[1])]


def _fill(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scaled to fit into the size, in the middle of a canvas of one colour."""
    H, W = image.shape[:2]
    fitting = _scaled(image, min(height / H, width / W))
    canvas = np.broadcast_to(_border_colour(image), (height, width, image.shape[2])).copy()
    canvas[_middle(fitting.shape[0], height), _middle(fitting.shape[1], width)] = fitting
    return canvas


def _middle(inner: int, outer: int) -> slice:
    """The middle `inner` of `outer` rows; the odd one is left at the end."""
    return slice((outer - inner) // 2, (outer - inner) // 2 + inner)


def _border_colour(image: np.ndarray) -> np.ndarray:
    """Median [C] float32 of the four sides of an image; corners count twice, for they belong to two sides."""
    sides = (side for turned in (image, image.swapaxes(0, 1)) for side in (turned[0], turned[-1]))
    return np.median(np.concatenate(list(sides)), axis=0).astype(np.float32)


_MODES: dict[ResizeMode, Callable[[np.ndarray, int, int], np.ndarray]] = {
    ResizeMode.STRETCH: resize,
    ResizeMode.CROP: _crop,
    ResizeMode.FILL: _fill,
}
