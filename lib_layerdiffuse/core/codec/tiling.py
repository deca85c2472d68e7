"""Pictures too large for the memory, in overlapping tiles that are blended: the last resort of decoding.

A tile does not see the rest of the picture, which the network's normalisation and attention would; so tiles are as
large as they can be, and nothing is tiled that fits whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch

from ..errors import InputError

OVERLAP = 64  # pixels that neighbours share
SMALLEST = 256  # pixels; a tile below that knows too little of the picture

Work = Callable[[tuple[slice, slice], tuple[slice, slice]], torch.Tensor]


def tiled(size: tuple[int, int], tile: int, factor: int, work: Work) -> torch.Tensor:
    """`work(pixels, latent)` -> [B,C,h,w] for each tile, blended to [B,C,H,W]; slices are (rows, columns).

    `tile` is a multiple of `factor`, the pixels beneath one latent. InputError for an empty picture.
    """
    H, W = size
    sums: tuple[torch.Tensor, torch.Tensor] | None = None  # of the blended parts [B,C,H,W], of their shares [1,1,H,W]
    for rows, columns in itertools.product(spans(H, tile, factor), spans(W, tile, factor)):
        part = work((rows, columns), (_latent(rows, factor), _latent(columns, factor)))
        total, weight = sums = sums or (part.new_zeros(*part.shape[:2], H, W), part.new_zeros(1, 1, H, W))
        share = ramp(rows, H).to(part)[:, None] * ramp(columns, W).to(part)
        total[..., rows, columns] += part * share
        weight[..., rows, columns] += share
    if sums is None:
        raise InputError(f"a picture of {W}x{H}", "at least one pixel", "give a picture that is not empty")
    return sums[0] / sums[1]


def spans(length: int, tile: int, factor: int) -> Iterator[slice]:
    """Overlapping slices of a side, starting at multiples of `factor`, evenly spread; one where the tile covers it."""
    if length <= tile:
        yield slice(0, length)
        return
    count = -(-(length - OVERLAP) // (tile - OVERLAP))
    for number in range(count):
        start = (length - tile) * number // (count - 1) // factor * factor
        yield slice(start, length if number == count - 1 else start + tile)


def ramp(span: slice, length: int) -> torch.Tensor:
    """Weights [size] in (0,1] of a tile along a side, rising and falling over overlaps, 1 at the picture's edges."""
    size = span.stop - span.start
    rising = (torch.arange(size) + 1).clamp(max=OVERLAP) / OVERLAP
    weights = torch.ones(size)
    if span.start > 0:
        weights = torch.minimum(weights, rising)
    if span.stop < length:
        weights = torch.minimum(weights, rising.flip(0))
    return weights


def _latent(span: slice, factor: int) -> slice:
    return slice(span.start // factor, -(-span.stop // factor))
