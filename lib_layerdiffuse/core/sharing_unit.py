"""One attention sharing unit: what it adds to an attention layer of SD1.5, for F frames (arXiv 2402.17113).

Frames come first inside: [F,G,T,C] for F frames, G groups, T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layouts import PROJECTIONS

NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class FrameDelta:
    """What is added to one projection, by frame: x @ first (@ second), [F,in,out] or [F,in,r] and [F,r,out]."""

    first: Tensor
    second: Tensor | None

    @classmethod
    def of(cls, downs: list[Tensor], ups: list[Tensor], strength: float) -> FrameDelta:
        """The smaller, so quicker form: low rank, or up @ down multiplied out once (computed in float32)."""
        down = torch.stack([weight.float().T for weight in downs])
        up = torch.stack([weight.float().T for weight in ups]) * strength
        width_in, rank, width_out = down.shape[1], down.shape[2], up.shape[2]
        if rank * (width_in + width_out) < width_in * width_out:
            return cls(down, up)
        return cls(torch.bmm(down, up), None)

    def to(self, like: Tensor) -> FrameDelta:
        """In the dtype and on the device of `like`."""
        return FrameDelta(self.first.to(like), None if self.second is None else self.second.to(like))

    def add_to(self, projected: Tensor, source: Tensor) -> Tensor:
        """projected [F,G,T,out] + the delta of source [F,G,T,in]."""
        rows = source.flatten(1, 2)
        if self.second is not None:
            rows = torch.bmm(rows, self.first)
        factor = self.first if self.second is None else self.second
        return torch.baddbmm(projected.flatten(1, 2), rows, factor).view(projected.shape)


@dataclass(frozen=True)
class Temporal:
    """Attention across the frames at each token, with temporal_i folded into what follows it.

    One frame attends to itself only, so that its value passes unchanged and all five layers are one (`single`).
    """

    norm: tuple[Tensor, Tensor]
    single: tuple[Tensor, Tensor] | None = None
    queries_keys_values: tuple[Tensor, Tensor] | None = None
    out: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], frames: int, strength: float) -> Temporal:
        """Folded in float32 from the tensors of a unit."""
        layers = {
            name: (tensors[f"temporal_{name}.weight"].float(), tensors[f"temporal_{name}.bias"].float())
            for name in "inqkvo"
        }
        out = tuple(part * strength for part in layers["o"])
        if frames == 1:
            return cls(layers["n"], single=_fold(_fold(layers["i"], layers["v"]), out))
        folded = [_fold(layers["i"], layers[name]) for name in "qkv"]
        joined = tuple(torch.cat(parts) for parts in zip(*folded, strict=True))
        return cls(layers["n"], queries_keys_values=joined, out=out)

    def to(self, like: Tensor) -> Temporal:
        """In the dtype and on the device of `like`."""
        parts = (self.norm, self.single, self.queries_keys_values, self.out)
        return Temporal(*(None if part is None else tuple(tensor.to(like) for tensor in part) for part in parts))

    def __call__(self, frames: Tensor, heads: int) -> Tensor:
        """[F,G,T,C] -> what is added to it."""
        normed = F.layer_norm(frames, frames.shape[-1:], *self.norm, NORM_EPSILON)
        if self.single is not None:
            return F.linear(normed, *self.single)
        count, groups, tokens, width = frames.shape
        projected = F.linear(normed, *self.queries_keys_values).view(count, groups * tokens, 3, heads, width // heads)
        query, key, value = projected.unbind(2)  # each [F,N,heads,size]
        return F.linear(_attend_across(query, key, value).view(frames.shape), *self.out)


def _fold(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two linear layers, one after the other, as one (weight, bias)."""
    return second[0] @ first[0], second[0] @ first[1] + second[1]


def _attend_across(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention over the first dimension of [F,N,heads,size], F at most a handful.

    Written out: fused kernels are made for long sequences, and CUDA's refuse the N of large pictures as a batch.
    """
    scale = query.shape[-1] ** -0.5
    scores = torch.stack([(query * other).sum(-1) for other in key]) * scale  # [F of keys, F of queries,N,heads]
    weights = scores.float().softmax(0).to(value.dtype).unsqueeze(-1)
    return sum(weight * other for weight, other in zip(weights, value, strict=True))


@dataclass(frozen=True)
class SharingUnit:
    """The tensors of one unit as the file has them, and its three numbers; `Prepared.of` makes it ready to run."""

    tensors: dict[str, Tensor]
    frames: int
    control: bool

    @property
    def width(self) -> int:
        """Hidden size of the attention layer that it belongs to."""
        return len(self.tensors["temporal_n.weight"])

    @property
    def context_width(self) -> int:
        """Width of what keys and values are made from."""
        return self.tensors["to_k_lora.0.down.weight"].shape[1]


@dataclass(frozen=True)
class Prepared:
    """A unit folded and scaled by the strength, in one dtype on one device."""

    deltas: dict[str, FrameDelta]
    temporal: Temporal
    control: tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...]

    @classmethod
    @torch.no_grad()
    def of(cls, unit: SharingUnit, strength: float, like: Tensor) -> Prepared:
        """Folded on the device of `like` in float32, kept in its dtype."""
        tensors = {key: tensor.to(like.device) for key, tensor in unit.tensors.items()}
        frames = range(unit.frames)
        deltas = {}
        for name in PROJECTIONS:
            downs = [tensors[f"{name}_lora.{frame}.down.weight"] for frame in frames]
            ups = [tensors[f"{name}_lora.{frame}.up.weight"] for frame in frames]
            deltas[name] = FrameDelta.of(downs, ups, strength).to(like)
        temporal = Temporal.of(tensors, unit.frames, strength).to(like)
        control = tuple(_control_layers(tensors, frame, strength, like) for frame in frames if unit.control)
        return cls(deltas, temporal, control)

    def control_tokens(self, signal: Tensor) -> Tensor:
        """Signal [N,256,h,w] -> what is added to each frame, [F,N,h*w,C]; the same at every step of a run."""
        added = []
        for weight, bias, out_weight, out_bias in self.control:
            hidden = F.silu(F.conv2d(signal.to(weight), weight, bias, padding=1))
            added.append(F.conv2d(hidden, out_weight, out_bias).flatten(2).transpose(1, 2))
        return torch.stack(added)

    def attend(self, attention: nn.Module, frames: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of `attention` with this unit's deltas: [F,G,T,C] and context [F,G,S,D] -> [F,G,T,C].

        The layer's own projections are called as modules, so that whatever a host does in them goes on working.
        """
        query = self._project(attention.to_q, "to_q", frames)
        key = self._project(attention.to_k, "to_k", context)
        value = self._project(attention.to_v, "to_v", context)
        split = [
            part.flatten(0, 1).unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in (query, key, value)
        ]
        mixed = F.scaled_dot_product_attention(*split, attn_mask=mask)
        mixed = mixed.transpose(1, 2).flatten(2).view(frames.shape)
        out, *rest = attention.to_out
        mixed = self._project(out, "to_out", mixed)
        for layer in rest:
            mixed = layer(mixed)
        return mixed

    def _project(self, layer: nn.Module, name: str, source: Tensor) -> Tensor:
        projected = layer(source.flatten(0, 1)).view(*source.shape[:3], -1)
        return self.deltas[name].add_to(projected, source)


def _control_layers(
    tensors: Mapping[str, Tensor], frame: int, strength: float, like: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first, last = f"control_convs.{frame}.0", f"control_convs.{frame}.2"
    scaled = [(tensors[f"{last}.{part}"].float() * strength).to(like) for part in ("weight", "bias")]
    return (tensors[f"{first}.weight"].to(like), tensors[f"{first}.bias"].to(like), *scaled)
