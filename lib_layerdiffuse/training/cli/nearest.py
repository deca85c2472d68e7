"""How near painted pictures come to those that a model was trained on: whether it paints or remembers.

Pictures are compared by what is visible of them, brought to one size, as they are and mirrored: training shows them
shifted, zoomed and flipped. The nearest picture is the one with the least squared difference of premultiplied
RGBA. Beside it stands the same figure for the training pictures themselves, each against those of other captions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from tqdm.auto import tqdm

from ...core.errors import InputError
from ..grids import checkered, image_grid
from ..pictures.data import PreparedSet, prepare
from ..pictures.recipe import as_sources
from ..pictures.vocabulary import Vocabulary
from .commands import _show, _written

SIDE, COARSE = 64, 16  # of the cut-outs that are compared
VISIBLE = 16  # of 255
BATCH = 32
Progress = Callable[[Iterable], Iterable]
CEILING = 60.0  # dB


@dataclass
class Nearest:
    """Of each picture: place of its nearest [M] in the training set, PSNR in dB of premultiplied RGBA, the same of both
    at 16 x 16 (where a blurred copy is a copy), IoU of alpha.
    """

    index: torch.Tensor
    psnr: torch.Tensor
    coarse_psnr: torch.Tensor
    iou: torch.Tensor

    def figures(self) -> dict[str, float | list[float]]:
        """Median and quartiles; the higher, the nearer."""
        low, middle, high = torch.quantile(self.psnr, torch.tensor([0.25, 0.5, 0.75])).tolist()
        return {
            "pictures": len(self.psnr),
            "nearest_psnr_median": middle,
            "nearest_psnr_quartiles": [low, high],
            "nearest_coarse_psnr_median": self.coarse_psnr.median().item(),
            "nearest_alpha_iou_median": self.iou.median().item(),
        }


def cut_out(rgba: torch.Tensor) -> torch.Tensor:
    """uint8 [N,4,S,S] to premultiplied float [N,4,64,64]: what is visible, its longer side filling the square."""
    pixels = rgba.float() / 255
    pixels[:, :3] *= pixels[:, 3:]
    seen = rgba[:, 3] >= VISIBLE
    theta = torch.zeros(len(rgba), 2, 3)
    for axis, dimension in enumerate((1, 2)):  # across, then down
        low, high = _span(seen.any(dim=dimension))
        theta[:, axis, 2] = low + high - 1
        theta[:, axis, axis] = high - low
    theta[:, 0, 0] = theta[:, 1, 1] = torch.maximum(theta[:, 0, 0], theta[:, 1, 1])
    grid = F.affine_grid(theta, [len(rgba), 4, SIDE, SIDE], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _span(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last+1 true places [N] of bool [N,S], in shares of S; the whole line where none is true."""
    seen = torch.where(seen.any(dim=1, keepdim=True), seen, torch.ones_like(seen))
    size = seen.shape[1]
    return seen.float().argmax(1) / size, (size - seen.flip(1).float().argmax(1)) / size


def find_nearest(
    pictures: torch.Tensor, training: torch.Tensor, excluded: torch.Tensor | None = None, progress: Progress = iter
) -> Nearest:
    """The nearest of `training` uint8 [N,4,S,S] to each of `pictures` uint8 [M,4,T,T].

    `excluded` bool [M,N]: pairs that are not looked at. InputError where there are none.
    """
    if not len(pictures) or not len(training):
        raise InputError(f"{len(pictures)} pictures and {len(training)} training pictures", "one of each", "add some")
    known = torch.cat([cut_out(part) for part in training.split(256)])
    rows = known.flatten(1)
    lengths = rows.square().sum(1)
    found = [
        _nearest_of(cut_out(part), rows, lengths, excluded[start : start + len(part)] if excluded is not None else None)
        for start, part in progress([(i, pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)])
    ]
    return Nearest(*(torch.cat(values) for values in zip(*found, strict=True)))


def _nearest_of(
    pictures: torch.Tensor, rows: torch.Tensor, lengths: torch.Tensor, excluded: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    own = pictures.square().flatten(1).sum(1, keepdim=True)
    ways = []
    for view in (pictures, pictures.flip(-1)):
        distance = own + lengths - 2 * view.flatten(1) @ rows.T
        ways.append(distance if excluded is None else distance.masked_fill(excluded, float("inf")))
    mirrored = ways[1].amin(1) < ways[0].amin(1)
    index = torch.where(mirrored, ways[1].argmin(1), ways[0].argmin(1))
    seen = torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures)
    twin = rows[index].view_as(seen)
    coarse = _decibels(F.avg_pool2d(seen - twin, SIDE // COARSE))
    alphas = torch.stack([seen[:, 3], twin[:, 3]])
    iou = alphas.amin(0).sum((1, 2)) / alphas.amax(0).sum((1, 2)).clamp(min=1e-6)
    return index, _decibels(seen - twin), coarse, iou


def _decibels(difference: torch.Tensor) -> torch.Tensor:
    """PSNR [B] of differences [B,4,H,W]."""
    return -10 * difference.square().mean((1, 2, 3)).clamp(min=10 ** (-CEILING / 10)).log10()


def nearest(arguments: argparse.Namespace) -> None:
    """`train nearest`."""
    data = PreparedSet.load(arguments.set)
    data = Vocabulary.load(arguments.vocabulary).chosen(data) if arguments.vocabulary else data.part(held_out=False)
    pictures = prepare(as_sources(arguments.pictures), data.rgba.shape[-1])
    bar = partial(tqdm, desc="batches", unit="", delay=1)
    found = find_nearest(pictures.rgba, data.rgba, progress=bar)
    figures = {**found.figures(), "training_pictures": len(data), **_among(data, bar)}
    if arguments.grid:
        _written(arguments.grid, lambda path: pairs_grid(pictures, data, found).save(path, "PNG"))
    if arguments.out:
        _written(arguments.out, lambda path: Path(path).write_text(json.dumps(figures, indent=2) + "\n"))
    _show(figures)


def _among(data: PreparedSet, progress: Progress, count: int = 256) -> dict[str, float]:
    """The figure for training pictures, evenly spread, against those with other captions: no memory of them at all."""
    index = torch.arange(len(data))[:: max(1, len(data) // count)]
    same = torch.tensor([[data.captions[i] == caption for caption in data.captions] for i in index.tolist()])
    if same.all(1).any():  # one caption only
        return {}
    found = find_nearest(data.rgba[index], data.rgba, same, progress)
    return {
        "other_captions_psnr_median": found.psnr.median().item(),
        "other_captions_coarse_psnr_median": found.coarse_psnr.median().item(),
    }


def pairs_grid(pictures: PreparedSet, data: PreparedSet, found: Nearest) -> Image.Image:
    """Each picture beside its nearest, on a checkerboard, eight pairs a row; at most 64 pairs, the nearest first."""
    order = found.psnr.argsort(descending=True)[:64]
    both = torch.stack([pictures.rgba[order], data.rgba[found.index[order]]], dim=1).flatten(0, 1)
    return image_grid(list(checkered(both[:, [3, 0, 1, 2]].float() / 255)), columns=16)
