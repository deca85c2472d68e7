"""Helpers of samplers in other extensions: sampling in overlapping tiles, feature maps that are shrunk for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Predict = Callable[[torch.Tensor, int], torch.Tensor]


def in_tiles(x: torch.Tensor, size: int, overlap: int, predict: Predict, together: int = 2) -> torch.Tensor:
    """`predict(tiles, count)` for all tiles [count*B,C,size,size] of [B,C,H,W], some at a time, averaged."""
    total, weight = torch.zeros_like(x), torch.zeros_like(x)
    corners = [(y, left) for y in starts(x.shape[2], size, overlap) for left in starts(x.shape[3], size, overlap)]
    for number in range(0, len(corners), together):
        batch = corners[number : number + together]
        tiles = torch.cat([x[..., y : y + size, left : left + size] for y, left in batch])
        for (y, left), part in zip(batch, predict(tiles, len(batch)).split(len(x)), strict=True):
            total[..., y : y + size, left : left + size] += part
            weight[..., y : y + size, left : left + size] += 1
    return total / weight


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Where tiles of a side begin, the last one at its end."""
    return sorted({*range(0, max(length - size, 0), size - overlap), max(length - size, 0)})


class Tiles:
    """For Forge: the function around all calls of the model; `dilated` takes every other latent instead."""

    def __init__(self, size: int, overlap: int = 2, dilated: bool = False):
        self.size, self.overlap, self.dilated, self.shapes = size, overlap, dilated, []

    def __call__(self, apply: Callable[..., torch.Tensor], told: dict[str, Any]) -> torch.Tensor:
        x, times, conds = told["input"], told["timestep"], told["c"]

        def predict(tiles: torch.Tensor, count: int) -> torch.Tensor:
            self.shapes.append(tuple(tiles.shape))
            return apply(tiles, times.repeat(count), **repeated(conds, count))

        if self.dilated:
            return F.interpolate(predict(x[..., ::2, ::2], 1), scale_factor=2)
        return in_tiles(x, self.size, self.overlap, predict)


def repeated(conds: dict[str, Any], count: int) -> dict[str, Any]:
    """Conditionings for so many tiles."""
    return {
        name: value.repeat(count, *[1] * (value.ndim - 1)) if isinstance(value, torch.Tensor) else value
        for name, value in conds.items()
    }


@contextlib.contextmanager
def shrunk(unet: nn.Module, factor: float) -> Iterator[list[tuple[int, ...]]]:
    """Inside, what comes after the fourth input block is smaller, until its skip connection is met; yields sizes."""
    sizes: list[tuple[int, ...]] = []

    def before(_block: nn.Module, inputs: tuple) -> tuple:
        whole = inputs[0]
        sizes.append(tuple(whole.shape[-2:]))
        small = [round(side / factor) for side in whole.shape[-2:]]
        return (F.interpolate(whole, size=small, mode="bilinear"), *inputs[1:])

    def behind(_block: nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        return F.interpolate(output, size=sizes[-1], mode="bilinear")

    handles = [
        unet.input_blocks[4].register_forward_pre_hook(before),
        unet.output_blocks[7].register_forward_hook(behind),
    ]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()
