"""Forge's layers: weights cast for each call, a linear layer that is no `nn.Linear`, options passed to attention."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from ldm.modules.attention import BasicTransformerBlock, CrossAttention
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.modules.diffusionmodules.util import GroupNorm32
from torch import nn


class ForgeLinear(nn.Module):
    """A linear layer of its own kind."""

    def __init__(self, source: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = source.in_features, source.out_features
        self.weight, self.bias = source.weight, source.bias
        self.parameters_manual_cast = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, *cast(self, x))


class ForgeConv2d(nn.Conv2d):
    """A convolution that casts its weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, *cast(self, x))


class ForgeGroupNorm(nn.GroupNorm):
    """A group norm that casts its weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, self.num_groups, *cast(self, x), self.eps)


class ForgeLayerNorm(nn.LayerNorm):
    """A layer norm that casts its weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.normalized_shape, *cast(self, x), self.eps)


def cast(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias in the precision of `x`."""
    return layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype)


class ForgeAttention(CrossAttention):
    """Attention with Forge's parameters."""

    def forward(self, x, context=None, value=None, mask=None, transformer_options=None):
        q, k, v = self.to_q(x), self.to_k(x if context is None else context), None
        v = self.to_v(value if value is not None else x if context is None else context)
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=self.heads) for part in (q, k, v))
        return self.to_out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))


class ForgeBlock(BasicTransformerBlock):
    """A transformer block that hands options to its attention, and lets patches change what that sees."""

    place: tuple[str, int] = ("middle", 0)

    def forward(self, x: torch.Tensor, context: Any = None) -> torch.Tensor:
        options = self.unet[0].transformer_options
        options["block"], options["block_index"] = self.place, 0
        x = x + self.patched("attn1", self.norm1(x), None, options)
        x = x + self.patched("attn2", self.norm2(x), context, options)
        return x + self.ff(self.norm3(x))

    def patched(self, name: str, seen: torch.Tensor, keys: Any, options: dict[str, Any]) -> torch.Tensor:
        """One of the two attentions, with what others put before, behind or in place of it."""
        layer, patches, values = getattr(self, name), options.get("patches", {}), None
        for patch in patches.get(f"{name}_patch", []):
            keys = seen if keys is None else keys
            seen, keys, values = patch(seen, keys, keys if values is None else values, options)
        replaced = options.get("patches_replace", {}).get(name, {})
        patch = replaced.get((*self.place, 0), replaced.get(self.place))
        if patch is None:
            attended = layer(seen, context=keys, value=values, transformer_options=options)
        else:
            keys = seen if keys is None else keys
            parts = layer.to_q(seen), layer.to_k(keys), layer.to_v(keys if values is None else values)
            attended = layer.to_out(patch(*parts, options | {"n_heads": layer.heads}))
        for patch in patches.get(f"{name}_output_patch", []):
            attended = patch(attended, options)
        return attended


class ForgeUNet(UNetModel):
    """The UNet with Forge's call."""

    transformer_options: ClassVar[dict[str, Any]] = {}

    def forward(self, x, timesteps=None, context=None, y=None, control=None, transformer_options=None):
        self.transformer_options = transformer_options or {}
        try:
            return super().forward(x, timesteps, context, y)
        finally:
            del self.transformer_options


SWAPS = {
    nn.Conv2d: ForgeConv2d,
    nn.LayerNorm: ForgeLayerNorm,
    GroupNorm32: ForgeGroupNorm,
    nn.GroupNorm: ForgeGroupNorm,
    CrossAttention: ForgeAttention,
    BasicTransformerBlock: ForgeBlock,
    UNetModel: ForgeUNet,
}


def forge_unet(unet: UNetModel, storage: torch.dtype) -> UNetModel:
    """An LDM UNet with Forge's layers and its weights in `storage`; norms stay in half precision at least."""
    for module in list(unet.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, ForgeLinear(child))
    for name, module in unet.named_modules():
        module.__class__ = SWAPS.get(type(module), type(module))
        if isinstance(module, ForgeBlock):
            module.unet = [unet]  # a list, so that it is no child
            side, number = name.split("_")[0], name.split(".")[1]
            module.place = (side, 0 if side == "middle" else int(number))
    for module in unet.modules():
        store(module, storage)
    return unet.requires_grad_(False)


def store(module: nn.Module, storage: torch.dtype) -> None:
    """A module's own parameters in `storage`."""
    small = storage.itemsize < 2
    for name, parameter in list(module._parameters.items()):
        if parameter is not None:
            wanted = torch.float16 if small and parameter.ndim < 2 else storage
            module._parameters[name] = nn.Parameter(parameter.detach().to(wanted), requires_grad=False)
