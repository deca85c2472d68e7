"""The control encoder of the conditioned SD1.5 methods: a picture in, one signal for each depth of the UNet out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate, islice

import torch
from torch import Tensor, nn

from ..files.layouts import CONTROL_WIDTHS, Shape

WEIGHT = re.compile(r"blocks_(\d+)\.(\d+)\.weight")
Widths = Sequence[Sequence[int]]


class ControlEncoder(nn.Module):
    """3x3 convolutions with SiLU after each, a block for each depth (keys `blocks_0.*`, `blocks_1.*`, ...).

    The first block has two convolutions, then two for each halving down to the latent's size; the others halve once.
    """

    def __init__(self, widths: Widths = CONTROL_WIDTHS) -> None:
        super().__init__()
        channels = 3
        for number, block in enumerate(widths):
            halvings = (0,) if number else range(2, len(block), 2)
            layers: list[nn.Module] = []
            for place, width in enumerate(block):
                layers += [nn.Conv2d(channels, width, 3, 2 if place in halvings else 1, 1), nn.SiLU()]
                channels = width
            self.add_module(f"blocks_{number}", nn.Sequential(*layers))

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> ControlEncoder:
        """The encoder with these weights, as they are stored."""
        with torch.device("meta"):
            encoder = cls(encoder_widths({key: tuple(tensor.shape) for key, tensor in state.items()}))
        encoder.load_state_dict(dict(state), assign=True)
        return encoder.requires_grad_(False)

    @property
    def depths(self) -> int:
        """How many signals there are: one for each depth of the UNet."""
        return len(list(self.children()))

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Picture [B,3,H,W] in [-1,1], composited on grey -> {tokens h*w: signal [B,C,h,w]} by depth: 1/8, 1/16, ..."""
        depths = accumulate(self.children(), lambda signal, block: block(signal), initial=image)
        return {signal.shape[-2:].numel(): signal for signal in islice(depths, 1, None)}


def encoder_widths(shapes: Mapping[str, Shape]) -> tuple[tuple[int, ...], ...]:
    """Widths of the convolutions by block, from the shapes in a file (keys `blocks_0.0.weight` ..)."""
    found = {tuple(map(int, match.groups())): shapes[match.string] for match in map(WEIGHT.fullmatch, shapes) if match}
    blocks = sorted({block for block, _ in found})
    return tuple(tuple(found[key][0] for key in sorted(found) if key[0] == block) for block in blocks)
