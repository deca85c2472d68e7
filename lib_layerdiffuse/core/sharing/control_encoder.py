"""The control encoder of the conditioned SD1.5 methods: a picture in, one signal for each depth of the UNet out."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, islice

import torch
from torch import Tensor, nn

from ..files.layouts import CONTROL_WIDTHS

HALVINGS = ((2, 4, 6), (0,), (0,), (0,))  # places of the stride-2 convolutions in each block: 1/8, 1/16, 1/32, 1/64


class ControlEncoder(nn.Module):
    """3x3 convolutions with SiLU after each, in four blocks (keys `blocks_0.*` .. `blocks_3.*`)."""

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        for number, (widths, halvings) in enumerate(zip(CONTROL_WIDTHS, HALVINGS, strict=True)):
            layers: list[nn.Module] = []
            for place, width in enumerate(widths):
                layers += [nn.Conv2d(channels, width, 3, 2 if place in halvings else 1, 1), nn.SiLU()]
                channels = width
            self.add_module(f"blocks_{number}", nn.Sequential(*layers))

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> ControlEncoder:
        """The encoder with these weights, as they are stored."""
        with torch.device("meta"):
            encoder = cls()
        encoder.load_state_dict(dict(state), assign=True)
        return encoder.requires_grad_(False)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Picture [B,3,H,W] in [-1,1], composited on grey -> {tokens h*w: signal [B,256,h,w]} at 1/8 to 1/64."""
        depths = accumulate(self.children(), lambda signal, block: block(signal), initial=image)
        return {signal.shape[-2:].numel(): signal for signal in islice(depths, 1, None)}
