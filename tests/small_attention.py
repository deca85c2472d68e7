"""A set of small attention layers with units for them: what tests of attention sharing work on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from rule import value
from torch import nn

from lib_layerdiffuse.core.files.layouts import SharingShape, sharing_layout

HEADS = 8
WIDTHS, CONTEXT, RANK = (16, 32), 24, 4


class CrossAttention(nn.Module):
    """An attention layer as LDM has it."""

    def __init__(self, width: int, context: int, heads: int = HEADS):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None, mask: torch.Tensor | None = None):
        context = x if context is None else context
        parts = (self.to_q(x), self.to_k(context), self.to_v(context))
        split = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts]
        return self.to_out(F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))


def small_state(frames: int, control: bool = False) -> dict[str, torch.Tensor]:
    """A small weights file: four units."""
    layout = sharing_layout(SharingShape(frames, WIDTHS, CONTEXT, RANK, control))
    return {key: value(f"small/{key}", shape) for key, shape in layout.items()}


def small_layers(kind: str = "ldm") -> list[nn.Module]:
    """Self- and cross-attention of two widths."""
    torch.manual_seed(0)
    sizes = [(width, context) for width in WIDTHS for context in (width, CONTEXT)]
    layers: list[nn.Module] = [CrossAttention(width, context, 4).requires_grad_(False) for width, context in sizes]
    if kind == "ldm":
        return layers
    others = [Attention(w, None if context == w else context, heads=4, dim_head=w // 4) for w, context in sizes]
    for other, layer in zip(others, layers, strict=True):
        other.load_state_dict(layer.state_dict())
    return [other.requires_grad_(False) for other in others]


def run_layers(layers: list[nn.Module], rows: int, seed: int = 1) -> list[torch.Tensor]:
    """Outputs of all layers, called as a transformer block calls them."""
    generator = torch.Generator().manual_seed(seed)
    outputs = []
    for index, layer in enumerate(layers):
        hidden = torch.randn(rows, 12, WIDTHS[index // 2], generator=generator)
        context = torch.randn(rows, 7, CONTEXT, generator=generator) if index % 2 else None
        named = {"encoder_hidden_states" if isinstance(layer, Attention) else "context": context}
        outputs.append(layer(hidden, **named))
    return outputs


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Whether all are bit-identical."""
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))
