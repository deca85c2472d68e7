"""Where in a latent a part of it was cut out: tiled samplers do not tell, but its noise does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SAME = 1e-3  # squared difference that half precision and scaling may make, of the variance


@dataclass(frozen=True)
class Box:
    """A part of a latent: its corner, its size."""

    y: int
    x: int
    height: int
    width: int

    def of(self, whole: Tensor, factor: int = 1) -> Tensor:
        """This part of [...,H,W], which has `factor` pixels beneath each latent."""
        y, x, height, width = (factor * value for value in (self.y, self.x, self.height, self.width))
        return whole[..., y : y + height, x : x + width]


def find_box(part: Tensor, wholes: Tensor, known: Iterable[Box] = ()) -> Box | None:
    """Where `part` [C,h,w] lies in one of `wholes` [N,C,H,W], whatever the scale of its values; None for nowhere.

    Boxes of earlier parts are tried first.
    """
    part, wholes = part.float(), wholes.float()
    height, width = part.shape[-2:]
    if height > wholes.shape[-2] or width > wholes.shape[-1]:
        return None
    fitting = [box for box in known if (box.height, box.width) == (height, width)]
    best = min((difference(part, box.of(wholes)), place) for place, box in enumerate(fitting)) if fitting else (1.0, 0)
    if best[0] < SAME:
        return fitting[best[1]]
    found = likeliest(part, wholes)
    return found if difference(part, found.of(wholes)) < SAME else None


def difference(part: Tensor, others: Tensor) -> float:
    """Squared difference of [C,h,w] from the most similar of [N,C,h,w], each scaled to fit best, of its variance."""
    flat, rows = part.flatten(), others.flatten(1)
    scale = (rows @ flat) / rows.square().sum(1).clamp(min=1e-12)
    variance = (part - part.mean(dim=(1, 2), keepdim=True)).square().sum()
    return float(((flat - scale[:, None] * rows).square().sum(1) / variance.clamp(min=1e-12)).min())


def likeliest(part: Tensor, wholes: Tensor) -> Box:
    """The box of the largest correlation of [C,h,w] with [N,C,H,W]."""
    size, (height, width) = wholes.shape[-2:], part.shape[-2:]
    spectrum = torch.fft.rfft2(wholes) * torch.fft.rfft2(part, s=size).conj()
    matching = torch.fft.irfft2(spectrum, s=size).sum(1)[:, : size[0] - height + 1, : size[1] - width + 1]
    energy = F.avg_pool2d(wholes.square().sum(1, keepdim=True), (height, width), stride=1)[:, 0]
    likeness = (matching / energy.clamp(min=1e-12).sqrt()).amax(0)
    place = int(likeness.argmax())
    return Box(place // likeness.shape[1], place % likeness.shape[1], height, width)
