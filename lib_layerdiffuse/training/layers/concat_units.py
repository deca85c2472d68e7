"""Offsets with a wider input convolution: what the SDXL methods learn that are given pictures as latents.

The UNet sees latents of the given pictures beside its own input. All that is learnt for them is an input convolution
for both, which starts at zero, and offsets of the attention's projections (low rank) or of everything.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.offsets.offsets import PREFIX, make_diff, make_lora
from ...unet.ldm_keys import unet_table, unet_to_ldm
from ..diffusion.denoising import AttentionLowRank
from ..settings import LayerOptions
from .layer_batches import Given


class WideInput(nn.Module):
    """What is added to an input convolution's output, from its input and the given latents beside it."""

    def __init__(self, convolution: nn.Conv2d, extra: int):
        super().__init__()
        out, channels, *kernel = convolution.weight.shape
        self.weight = nn.Parameter(torch.zeros(out, channels + extra, *kernel))
        self.bias = nn.Parameter(torch.zeros(out))
        self.concat: Tensor | None = None

    def add(self, module: nn.Conv2d, inputs: tuple, output: Tensor) -> Tensor:
        """Forward hook of the convolution, output [B,C,h,w]; its rows are the given ones, over and over.

        InputError for rows of another number.
        """
        (rows,) = inputs
        if self.concat is None or len(rows) % len(self.concat):
            given = 0 if self.concat is None else len(self.concat)
            raise InputError(f"{given} given latents for {len(rows)} rows", "one for each", "set them before the call")
        concat = self.concat.to(rows).repeat(len(rows) // len(self.concat), 1, 1, 1)
        added = F.conv2d(torch.cat([rows, concat], 1), self.weight, self.bias, module.stride, module.padding)
        return output + added.to(output.dtype)


def _tune_low_rank(unet: UNet2DConditionModel, rank: int) -> nn.Module:
    return AttentionLowRank(unet, rank)


def _tune_all(unet: UNet2DConditionModel, _rank: int) -> nn.Module:
    unet.requires_grad_(True)
    unet.conv_in.requires_grad_(False)  # the wide one learns for it
    return unet


TUNINGS: dict[str, Callable[[UNet2DConditionModel, int], nn.Module]] = {"lora": _tune_low_rank, "full": _tune_all}


class WideOffsets(nn.Module):
    """A UNet's offsets while they are trained, until `remove`: then the UNet is what it was."""

    def __init__(self, unet: UNet2DConditionModel, extra: int, options: LayerOptions):
        super().__init__()
        self.outside = (unet,)  # a tuple, so that it is neither registered nor saved here
        full = options.mode == "full"
        self.base = {name: tensor.cpu().clone() for name, tensor in unet.state_dict().items()} if full else {}
        self.wide = WideInput(unet.conv_in, extra)
        self.tuned = TUNINGS[options.mode](unet, options.rank)
        self.handle = unet.conv_in.register_forward_hook(self.wide.add)

    def see(self, given: Given) -> None:
        """What is given for the coming UNet calls: latents to concatenate."""
        self.wide.concat = given["concat"]

    def published(self) -> dict[str, Tensor]:
        """All offsets in the published layout, float16."""
        unet = self.outside[0]
        name = f"{PREFIX}{unet_table(unet.config).ldm_name('conv_in')}"
        wide = {f"{name}.{part}::diff::0": getattr(self.wide, part) for part in ("weight", "bias")}
        return {**self._narrow(), **{key: tensor.detach().half().cpu() for key, tensor in wide.items()}}

    def _narrow(self) -> dict[str, Tensor]:
        unet = self.outside[0]
        if isinstance(self.tuned, AttentionLowRank):
            table = unet_table(unet.config)
            return make_lora({f"{table.ldm_name(name)}.weight": pair for name, pair in self.tuned.pairs().items()})
        return make_diff(unet_to_ldm(self.base, unet.config), unet_to_ldm(unet.state_dict(), unet.config))

    def remove(self) -> None:
        """Hooks off, and the UNet's own weights back."""
        self.handle.remove()
        if isinstance(self.tuned, AttentionLowRank):
            self.tuned.remove()
        else:
            self.outside[0].load_state_dict(self.base)
            self.outside[0].requires_grad_(False)
