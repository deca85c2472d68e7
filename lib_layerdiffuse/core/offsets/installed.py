"""Offsets on a live model: what can be put on, switched off for a while, and taken off for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..picture.boxes import Box
from ..rows import spread_rows


@dataclass
class ConcatLatents:
    """What the wide input convolution of one run sees beside the sample: latents [N,4 or 8,h,w], sampler scale.

    N is 1, or the pictures of the batch (CFG repeats them in the same order; set `pictures`, one for each row, before
    each call where it does not). Where a host samples parts of a picture, set `boxes` (one for each row) and the size
    (h, w) of the `whole` before each call.
    """

    latents: Tensor
    boxes: Sequence[Box] | None = None
    whole: tuple[int, int] | None = None
    pictures: Sequence[int] | None = None
    _shaped: dict = field(default_factory=dict, repr=False)

    def see(self, latents: Tensor) -> None:
        """Take other latents for the calls to come, of the same channels."""
        self.latents, self._shaped = latents, {}

    def beside(self, sample: Tensor) -> Tensor:
        """The latents for the rows and size of `sample` [B,C,H,W], in its dtype and on its device."""
        size = tuple(sample.shape[2:]) if self.boxes is None else self.whole
        key = (sample.dtype, sample.device, size)
        if key not in self._shaped:
            moved = self.latents.to(sample.device)
            if moved.shape[2:] != size:  # a second pass at another size
                moved = F.interpolate(moved.float(), size=size, mode="bilinear", antialias=True)
            self._shaped = {key: moved.to(sample.dtype)}
        spread = spread_rows(self._shaped[key], len(sample), self.pictures)
        if self.boxes is None:
            return spread
        return torch.stack([box.of(row) for box, row in zip(self.boxes, spread, strict=True)])


class Installed:
    """Offsets on a model: `set_active(False)` gives the plain model back for a while, `remove()` for good."""

    def __init__(self) -> None:
        self.active = False

    def set_active(self, active: bool) -> None:
        """Put the offsets on, or give the plain model back; nothing is computed anew."""
        if active != self.active:
            self._switch(active)
            self.active = active

    def remove(self) -> None:
        """Give the plain model back and forget the offsets."""
        self.set_active(False)
        self._forget()

    def _switch(self, active: bool) -> None:
        raise NotImplementedError

    def _forget(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Installed:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.remove()


def parameter_at(module: nn.Module, attribute: str) -> nn.Parameter:
    """The parameter object that a module holds under this name; KeyError where it has none, or an empty place."""
    parameter = module._parameters[attribute]
    if parameter is None:
        raise KeyError(attribute)
    return parameter


def parameter_of(modules: Mapping[str, nn.Module], name: str) -> tuple[nn.Module, str]:
    """The module of a parameter, and what it is called there."""
    path, _, attribute = name.rpartition(".")
    return modules[path], attribute
