"""The transparency decoder's network put together from diffusers' own blocks, to compare ours with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, get_down_block, get_up_block
from torch import nn

from lib_layerdiffuse.core.codec.decoder import EPSILON, GROUPS, HEAD_SIZE, PUBLISHED_CHANNELS

LAYERS, ATTENTION_LEVELS, LATENT_LEVEL = 2, 3, 3
BLOCK = {"temb_channels": None, "resnet_eps": EPSILON, "resnet_act_fn": "silu", "attention_head_dim": HEAD_SIZE}


class PlainDecoder(nn.Module):
    """Takes the same weights as `TransparencyUNet` of the published shape, and gives the same output."""

    def __init__(self) -> None:
        super().__init__()
        widths, count = PUBLISHED_CHANNELS, len(PUBLISHED_CHANNELS)
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.latent_conv_in = nn.Conv2d(4, widths[LATENT_LEVEL - 1], 1)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        for number, width in enumerate(widths):
            attention = "Attn" if number >= count - ATTENTION_LEVELS else ""
            block = get_down_block(
                f"{attention}DownBlock2D",
                num_layers=LAYERS,
                in_channels=widths[max(0, number - 1)],
                out_channels=width,
                add_downsample=number < count - 1,
                downsample_padding=1,
                resnet_groups=GROUPS,
                **BLOCK,
            )
            self.down_blocks.append(block)
        self.mid_block = UNetMidBlock2D(widths[-1], resnet_groups=GROUPS, attn_groups=GROUPS, **BLOCK)
        backwards = widths[::-1]
        for number, width in enumerate(backwards):
            block = get_up_block(
                f"{'Attn' if number < ATTENTION_LEVELS else ''}UpBlock2D",
                num_layers=LAYERS + 1,
                in_channels=backwards[min(number + 1, count - 1)],
                out_channels=width,
                prev_output_channel=backwards[max(0, number - 1)],
                add_upsample=number < count - 1,
                resnet_groups=GROUPS,
                **BLOCK,
            )
            self.up_blocks.append(block)
        self.conv_norm_out = nn.GroupNorm(GROUPS, widths[0], EPSILON)
        self.conv_out = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, pixel: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """Pixels [B,3,H,W] and latent [B,4,H/8,W/8] -> A,R,G,B [B,4,H,W]."""
        hidden = self.conv_in(pixel)
        skips = (hidden,)
        for number, block in enumerate(self.down_blocks):
            if number == LATENT_LEVEL:
                hidden = hidden + self.latent_conv_in(latent)
            hidden, left = block(hidden_states=hidden, temb=None)
            skips += left
        hidden = self.mid_block(hidden)
        for block in self.up_blocks:
            hidden = block(hidden, skips[-LAYERS - 1 :], None)
            skips = skips[: -LAYERS - 1]
        return self.conv_out(F.silu(self.conv_norm_out(hidden)))
