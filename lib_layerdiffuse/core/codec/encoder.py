"""The latent transparency encoder: padded RGB and alpha to an offset of the frozen VAE's latent (arXiv 2402.17113).

Published shape: widths 32, 64, 128, 256 for a VAE of factor 8 with 4 latent channels, keys `blocks.{0,2,...,16}.*`.
Every further width halves the picture once more, so the factor is 2 ** (len(widths) - 1).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..errors import InputError
from ..files.state_check import foreign, load_checked, require

WHAT = "transparency encoder"
PUBLISHED_WIDTHS = (32, 64, 128, 256)


class OffsetEncoder(nn.Module):
    """Padded colour and alpha [B,4,H,W] in [0,1] -> offset [B,latent_channels,ceil(H/factor),ceil(W/factor)].

    Their order, A,R,G,B or R,G,B,A, is that of the training: `CodecRule.channel_order`. InputError for another shape.
    """

    def __init__(self, widths: tuple[int, ...] = PUBLISHED_WIDTHS, latent_channels: int = 4):
        super().__init__()
        self.widths, self.latent_channels = tuple(widths), latent_channels
        self.factor = 2 ** (len(widths) - 1)
        layers: list[nn.Module] = []
        before = 4
        for level, width in enumerate(widths):
            layers += [nn.Conv2d(before, width, 3, stride=2 if level else 1, padding=1), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.SiLU()]
            before = width
        last = nn.Conv2d(before, latent_channels, 3, padding=1)
        # an untrained encoder must leave the frozen VAE's latent as it is
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.blocks = nn.Sequential(*layers, last)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        if picture.ndim != 4 or picture.shape[1] != 4:
            raise InputError(f"a tensor {list(picture.shape)}", "[B,4,H,W], colour and alpha", "add the alpha channel")
        return self.blocks(picture)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, torch.Tensor]) -> OffsetEncoder:
        """The network whose weights `state` holds, in float32; widths and latent channels are read from its shapes."""
        widths, latent_channels = encoder_shape(state)
        with torch.device("meta"):
            network = cls(widths, latent_channels)
        return load_checked(network, state, WHAT)


def encoder_shape(state: Mapping[str, torch.Tensor]) -> tuple[tuple[int, ...], int]:
    """(widths, latent channels) of an encoder's state dict; WeightsError when it is none."""
    require(state, ("blocks.0.weight",), WHAT)
    convs = []
    while f"blocks.{2 * len(convs)}.weight" in state:
        convs.append(state[f"blocks.{2 * len(convs)}.weight"])
    if len(convs) < 3 or len(convs) % 2 == 0 or any(conv.ndim != 4 for conv in convs):
        raise foreign(
            WHAT, f"{len(convs)} convolutions, or some that are not 2-D; two per level and one more make sense"
        )
    return tuple(conv.shape[0] for conv in convs[:-1:2]), convs[-1].shape[0]


def widths_for_factor(factor: int, first: int = 32, largest: int = 256) -> tuple[int, ...]:
    """Widths doubling from `first`, at most `largest`, for a VAE that shrinks by `factor` (a power of two).

    InputError for another factor.
    """
    if factor < 2 or factor & (factor - 1):
        raise InputError(
            f"a VAE factor of {factor}", "a power of two from 2 upwards", "use a VAE that halves its picture"
        )
    return tuple(min(largest, first * 2**level) for level in range(factor.bit_length()))
