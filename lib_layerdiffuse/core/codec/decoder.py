"""The latent transparency decoder's network, `UNet1024`: decoded pixels and their latent to RGBA (arXiv 2402.17113).

A residual UNet of seven levels without time embedding; self-attention in the three deepest levels and the middle; the
latent joins, through a zero-initialised 1x1 convolution, where the picture has been halved to its size.
`decoding.py` runs it on any size and in eight orientations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InputError
from ..files.state_check import foreign, load_checked, require

WHAT = "transparency decoder"
PUBLISHED_CHANNELS = (32, 32, 64, 128, 256, 512, 512)
GROUPS = 4
HEAD_SIZE = 8
EPSILON = 1e-5


def silu(hidden: torch.Tensor) -> torch.Tensor:
    """SiLU of any shape, in place unless a gradient is wanted: fresh memory costs more than the arithmetic."""
    return F.silu(hidden, inplace=not torch.is_grad_enabled())


class ResidualBlock(nn.Module):
    """[B,inputs,h,w] -> [B,outputs,h,w]: two 3x3 convolutions, each after group norm and SiLU, added to the input.

    Through a 1x1 convolution where widths differ.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inputs, EPSILON)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, outputs, EPSILON)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.conv_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        change = self.conv1(silu(self.norm1(hidden)))
        change = self.conv2(silu(self.norm2(change)))
        shortcut = self.conv_shortcut(hidden) if hasattr(self, "conv_shortcut") else hidden
        return shortcut + change if torch.is_grad_enabled() else change.add_(shortcut)


class SelfAttention(nn.Module):
    """Self-attention over all positions of [B,C,h,w], heads of 8 channels, added to the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.group_norm = nn.GroupNorm(GROUPS, channels, EPSILON)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])  # a list, as in the published keys

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        B, C, H, W = hidden.shape
        tokens = self.group_norm(hidden).flatten(2).transpose(1, 2)  # [B,H*W,C]
        query, key, value = (
            project(tokens).view(B, H * W, C // HEAD_SIZE, HEAD_SIZE).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(B, H * W, C)
        return hidden + self.to_out[0](attended).transpose(1, 2).reshape(B, C, H, W)


class Resample(nn.Module):
    """3x3 convolution of [B,C,h,w] that halves its sides (stride 2) or, after doubling to the nearest, keeps them."""

    def __init__(self, channels: int, up: bool):
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest") if self.up else hidden)


class Level(nn.Module):
    """One level, down or up, of [B,C,h,w]: residual blocks `inputs` -> `outputs`, attention after each where wanted.

    `downsamplers` or `upsamplers`, of one `Resample` each, lead to the next level; the last of a way has none.
    """

    downsamplers: nn.ModuleList
    upsamplers: nn.ModuleList

    def __init__(self, inputs: Sequence[int], outputs: int, attention: bool):
        super().__init__()
        self.resnets = nn.ModuleList([ResidualBlock(width, outputs) for width in inputs])
        if attention:
            self.attentions = nn.ModuleList([SelfAttention(outputs) for _ in inputs])

    @staticmethod
    def each(way: nn.ModuleList) -> Iterator[Level]:
        """The levels of a way down or up."""
        for level in way:
            assert isinstance(level, Level)
            yield level

    def block(self, number: int, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.resnets[number](hidden)
        return self.attentions[number](hidden) if hasattr(self, "attentions") else hidden


class Middle(nn.Module):
    """Residual block, attention, residual block at the coarsest level, [B,C,h,w]."""

    def __init__(self, channels: int, attention: bool):
        super().__init__()
        self.resnets = nn.ModuleList([ResidualBlock(channels, channels) for _ in range(2)])
        if attention:
            self.attentions = nn.ModuleList([SelfAttention(channels)])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.resnets[0](hidden)
        hidden = self.attentions[0](hidden) if hasattr(self, "attentions") else hidden
        return self.resnets[1](hidden)


class TransparencyUNet(nn.Module):
    """Pixels [B,3,H,W] in [0,1] and VAE-space latent [B,C,H/f,W/f] -> colour and alpha [B,4,H,W] unclipped.

    Their order, A,R,G,B or R,G,B,A, is that of the training (`CodecRule.channel_order`); RGB is straight.
    f = 2**latent_level; H and W must be multiples of `multiple` = 2 ** (levels - 1).
    """

    def __init__(
        self,
        channels: tuple[int, ...] = PUBLISHED_CHANNELS,
        latent_channels: int = 4,
        latent_level: int = 3,
        attention_levels: int = 3,
        layers: int = 2,
    ):
        super().__init__()
        _check_shape(channels, latent_level, attention_levels)
        self.channels, self.latent_channels, self.latent_level = tuple(channels), latent_channels, latent_level
        self.attention_levels, self.layers = attention_levels, layers
        self.multiple, self.factor = 2 ** (len(channels) - 1), 2**latent_level
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.latent_conv_in = nn.Conv2d(latent_channels, channels[latent_level - 1], 1)
        # an untrained decoder must see the picture alone, or the latent's noise drowns it
        for parameter in self.latent_conv_in.parameters():
            nn.init.zeros_(parameter)
        self.down_blocks, self.up_blocks = self._way_down(), self._way_up()
        self.mid_block = Middle(channels[-1], attention_levels > 0)
        self.conv_norm_out = nn.GroupNorm(GROUPS, channels[0], EPSILON)
        self.conv_out = nn.Conv2d(channels[0], 4, 3, padding=1)

    def _way_down(self) -> nn.ModuleList:
        levels, before = nn.ModuleList(), self.channels[0]
        for number, width in enumerate(self.channels):
            attention = number >= len(self.channels) - self.attention_levels
            level = Level([before] + [width] * (self.layers - 1), width, attention)
            if number < len(self.channels) - 1:
                level.downsamplers = nn.ModuleList([Resample(width, up=False)])
            levels.append(level)
            before = width
        return levels

    def _way_up(self) -> nn.ModuleList:
        levels, before = nn.ModuleList(), self.channels[-1]
        for number, width in enumerate(reversed(self.channels)):
            # what each block of the way down left behind joins its counterpart; the last joins the level's entry
            entry = self.channels[max(0, len(self.channels) - 2 - number)]
            skips = [width] * self.layers + [entry]
            mains = [before] + [width] * self.layers
            inputs = [main + skip for main, skip in zip(mains, skips, strict=True)]
            level = Level(inputs, width, number < self.attention_levels)
            if number < len(self.channels) - 1:
                level.upsamplers = nn.ModuleList([Resample(width, up=True)])
            levels.append(level)
            before = width
        return levels

    def forward(self, pixel: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        self._check_inputs(pixel, latent)
        hidden = self.conv_in(pixel)
        skips = [hidden]
        for number, level in enumerate(Level.each(self.down_blocks)):
            if number == self.latent_level:
                hidden = hidden + self.latent_conv_in(latent)
            for block in range(self.layers):
                hidden = level.block(block, hidden)
                skips.append(hidden)
            if hasattr(level, "downsamplers"):
                hidden = level.downsamplers[0](hidden)
                skips.append(hidden)
        hidden = self.mid_block(hidden)
        for level in Level.each(self.up_blocks):
            for block in range(self.layers + 1):
                hidden = level.block(block, torch.cat([hidden, skips.pop()], dim=1))
            if hasattr(level, "upsamplers"):
                hidden = level.upsamplers[0](hidden)
        return self.conv_out(silu(self.conv_norm_out(hidden)))

    def _check_inputs(self, pixel: torch.Tensor, latent: torch.Tensor) -> None:
        H, W = pixel.shape[-2:]
        if pixel.ndim != 4 or pixel.shape[1] != 3 or H % self.multiple or W % self.multiple:
            raise InputError(
                f"pixels {list(pixel.shape)}",
                f"[B,3,H,W] with H and W multiples of {self.multiple}",
                "decode through TransparencyDecoder, which takes every size",
            )
        expected = [len(pixel), self.latent_channels, H // self.factor, W // self.factor]
        if list(latent.shape) != expected:
            raise InputError(
                f"a latent {list(latent.shape)}",
                f"{expected} beside pixels {list(pixel.shape)}",
                "pass the latent of these pixels",
            )

    @classmethod
    def from_state_dict(cls, state: Mapping[str, torch.Tensor], latent_level: int | None = None) -> TransparencyUNet:
        """The network whose weights `state` holds, float32 on the CPU; its shape is read from theirs.

        `latent_level` decides where equal widths leave it open; then 3 (a VAE of factor 8) is taken if it fits.
        """
        shape = decoder_shape(state, latent_level)
        with torch.device("meta"):
            network = cls(**shape)
        return load_checked(network, state, WHAT)


def decoder_shape(state: Mapping[str, torch.Tensor], latent_level: int | None = None) -> dict:
    """Arguments of the TransparencyUNet that `state` was saved from; WeightsError when it is none."""
    require(state, ("conv_in.weight", "latent_conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"), WHAT)
    levels = _count(state, "down_blocks.{}.resnets.0.conv1.weight")
    channels = tuple(state[f"down_blocks.{number}.resnets.0.conv1.weight"].shape[0] for number in range(levels))
    latent = state["latent_conv_in.weight"]
    fitting = [number for number in range(1, levels) if channels[number - 1] == latent.shape[0]]
    wanted = [latent_level] if latent_level is not None else [3, *fitting]
    chosen = next((number for number in wanted if number in fitting), None)
    if chosen is None or latent.ndim != 4:
        raise foreign(WHAT, f"latent_conv_in.weight {list(latent.shape)} fits no level of widths {list(channels)}")
    with_attention = [n for n in range(levels) if f"down_blocks.{n}.attentions.0.to_q.weight" in state]
    return {
        "channels": channels,
        "latent_channels": latent.shape[1],
        "latent_level": chosen,
        "attention_levels": len(with_attention),
        "layers": _count(state, "down_blocks.0.resnets.{}.conv1.weight"),
    }


def _count(state: Mapping[str, torch.Tensor], pattern: str) -> int:
    number = 0
    while pattern.format(number) in state:
        number += 1
    return number


def _check_shape(channels: tuple[int, ...], latent_level: int, attention_levels: int) -> None:
    """InputError for widths that group norm or attention cannot divide, or a latent level that does not exist."""
    plain = channels[: len(channels) - attention_levels]
    bad = [width for width in plain if width % GROUPS] + [
        width for width in channels[len(plain) :] if width % HEAD_SIZE
    ]
    if bad or not 1 <= latent_level < len(channels) or not 0 <= attention_levels <= len(channels):
        raise InputError(
            f"widths {list(channels)}, latent level {latent_level}, {attention_levels} levels with attention",
            f"multiples of {GROUPS} (of {HEAD_SIZE} with attention), a latent level from 1 to {len(channels) - 1}",
            "change the shape of the decoder",
        )
