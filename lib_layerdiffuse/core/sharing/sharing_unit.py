"""One attention sharing unit: what it adds to an attention layer of SD1.5, for F frames (arXiv 2402.17113).

Frames come first inside: [F,G,T,C] for F frames, G groups, T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..offsets.fingerprint import fingerprint

NORM_EPSILON = 1e-6
PROBE = 8  # tokens on which a layer is tried

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
WeightAndBias = tuple[Tensor, Tensor]


class AttentionLayer(nn.Module):
    """What LDM's and diffusers' attention layers have alike; hosts make them, this class tells types only."""

    to_q: nn.Module
    to_k: nn.Module
    to_v: nn.Module
    to_out: nn.Sequential
    heads: int


@dataclass(frozen=True)
class Seen:
    """What the frames of a layer attend to, [F,G,S,D]: sources of keys and values, and a mask where lengths differ.

    `mix` stands in for the attention itself: queries, keys and values [F,G,T,C] -> [F,G,T,C].
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None = None
    mix: Mix | None = None


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

    `inner` makes queries, keys and values. One frame attends to itself only, so that its value passes unchanged and all
    five layers are one: then `inner` is all of them, and there is no `out`.
    """

    norm: WeightAndBias
    inner: WeightAndBias
    out: WeightAndBias | None

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], frames: int, strength: float) -> Temporal:
        """Folded in float32 from the tensors of a unit."""
        layers = {
            name: (tensors[f"temporal_{name}.weight"].float(), tensors[f"temporal_{name}.bias"].float())
            for name in "inqkvo"
        }
        out = layers["o"][0] * strength, layers["o"][1] * strength
        if frames == 1:
            return cls(layers["n"], _fold(_fold(layers["i"], layers["v"]), out), None)
        folded = [_fold(layers["i"], layers[name]) for name in "qkv"]
        joined = torch.cat([weight for weight, _ in folded]), torch.cat([bias for _, bias in folded])
        return cls(layers["n"], joined, out)

    def to(self, like: Tensor) -> Temporal:
        """In the dtype and on the device of `like`."""
        out = None if self.out is None else _moved(self.out, like)
        return Temporal(_moved(self.norm, like), _moved(self.inner, like), out)

    def __call__(self, frames: Tensor, heads: int) -> Tensor:
        """[F,G,T,C] -> what is added to it."""
        weight, bias = (part.to(frames.dtype) for part in self.norm)  # which mixed precision leaves apart
        projected = F.linear(F.layer_norm(frames, frames.shape[-1:], weight, bias, NORM_EPSILON), *self.inner)
        if self.out is None:
            return projected
        count, groups, tokens, width = frames.shape
        query, key, value = projected.view(count, groups * tokens, 3, heads, width // heads).unbind(
            2
        )  # [F,N,heads,size]
        return F.linear(attend_across(query, key, value).reshape(frames.shape), *self.out)


def _moved(layer: WeightAndBias, like: Tensor) -> WeightAndBias:
    return layer[0].to(like), layer[1].to(like)


def _fold(first: WeightAndBias, second: WeightAndBias) -> WeightAndBias:
    """Two linear layers, one after the other, as one."""
    return second[0] @ first[0], second[0] @ first[1] + second[1]


def attend_across(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention over the first dimension of [F,N,heads,size], F at most a handful.

    Written out on graphics cards: their fused kernels are made for long sequences, and refuse the N of large pictures
    as a batch.
    """
    if query.device.type == "cpu":
        queries, keys, values = (part.permute(1, 2, 0, 3) for part in (query, key, value))  # [N,heads,F,size]
        return F.scaled_dot_product_attention(queries, keys, values).permute(2, 0, 1, 3)
    scale = query.shape[-1] ** -0.5
    scores = torch.stack([(query * other).sum(-1) for other in key]) * scale  # [F of keys, F of queries,N,heads]
    weights = scores.float().softmax(0).to(value.dtype).unsqueeze(-1)
    mixed = weights[0] * value[0]
    for weight, other in zip(weights[1:], value[1:], strict=True):
        mixed = torch.addcmul(mixed, weight, other)
    return mixed


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
class MergedProjection:
    """A projection of the layer with a unit's deltas merged into its weight, by frame: x @ weight + bias.

    `source` is the layer's own weight as it was then, and `edits` how often it had been edited.
    """

    source: Tensor
    edits: int
    weight: Tensor  # [F,in,out]
    bias: Tensor | None

    def serves(self, layer: nn.Module, like: Tensor) -> bool:
        """Whether the layer still is what was merged."""
        same = getattr(layer, "weight", None) is self.source and _edits(self.source) == self.edits and is_plain(layer)
        return same and _alike(self.source, like) and _alike(self.weight, like)

    def __call__(self, source: Tensor) -> Tensor:
        """[F,G,T,in] -> [F,G,T,out]."""
        rows = source.flatten(1, 2)
        mixed = torch.bmm(rows, self.weight) if self.bias is None else torch.baddbmm(self.bias, rows, self.weight)
        return mixed.view(*source.shape[:3], -1)


def is_plain(layer: nn.Module) -> bool:
    """Whether nobody hooks into the layer or has replaced its forward."""
    return not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__)


def _edits(weight: Tensor) -> int:
    return -1 if weight.is_inference() else weight._version


def _alike(weight: Tensor, like: Tensor) -> bool:
    return weight.dtype == working_dtype(like) and weight.device == like.device


def working_dtype(tensor: Tensor) -> torch.dtype:
    """The type in which a linear layer computes with this tensor, mixed precision (autocast) considered."""
    kind = tensor.device.type
    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype
    if kind == "cuda" and torch.is_autocast_enabled():
        return torch.get_autocast_gpu_dtype()
    if kind == "cpu" and torch.is_autocast_cpu_enabled():
        return torch.get_autocast_cpu_dtype()
    return tensor.dtype


class Prepared:
    """A unit folded and scaled by the strength, ready for tensors of the dtype and device of `like`."""

    @torch.no_grad()
    def __init__(self, unit: SharingUnit, strength: float, like: Tensor):
        self.unit, self.strength = unit, strength
        tensors = {key: tensor.to(like.device) for key, tensor in unit.tensors.items() if "_lora." not in key}
        self.temporal = Temporal.of(tensors, unit.frames, strength).to(like)
        self.control = tuple(
            _control_layers(tensors, frame, strength, like) for frame in range(unit.frames) if unit.control
        )
        self._deltas: dict[str, FrameDelta] = {}
        self._merged: dict[str, tuple[bytes, Tensor]] = {}

    def _pairs(self, name: str, like: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Down [256,in] and up [out,256] of each frame."""
        downs, ups = (
            [
                self.unit.tensors[f"{name}_lora.{frame}.{part}.weight"].to(like.device)
                for frame in range(self.unit.frames)
            ]
            for part in ("down", "up")
        )
        return downs, ups

    def control_tokens(self, signal: Tensor) -> Tensor:
        """Signal [N,256,h,w] -> what is added to each frame, [F,N,h*w,C]; the same at every step of a run."""
        added = []
        for weight, bias, out_weight, out_bias in self.control:
            hidden = F.silu(F.conv2d(signal.to(weight), weight, bias, padding=1))
            added.append(F.conv2d(hidden, out_weight, out_bias).flatten(2).transpose(1, 2))
        return torch.stack(added)

    def attend(self, attention: AttentionLayer, frames: Tensor, seen: Seen, projections: Projections) -> Tensor:
        """Attention of `attention` with this unit's deltas: [F,G,T,C] -> [F,G,T,C].

        `projections` are those of this run that were found plain and merged; it is filled here.
        """
        query = self._project(attention.to_q, "to_q", frames, projections)
        key = self._project(attention.to_k, "to_k", seen.keys, projections)
        value = self._project(attention.to_v, "to_v", seen.values, projections)
        mixed = (
            _mixed(attention.heads, seen.mask, query, key, value) if seen.mix is None else seen.mix(query, key, value)
        )
        out, *rest = attention.to_out
        mixed = self._project(out, "to_out", mixed, projections)
        for layer in rest:
            mixed = layer(mixed)
        return mixed

    def _project(self, layer: nn.Module, name: str, source: Tensor, projections: Projections) -> Tensor:
        merged = projections.get(name)
        if merged is not None and merged.serves(layer, source):
            return merged(source)
        rows = source.flatten(0, 1)
        if name not in projections:
            projections[name] = merged = self._merge(layer, name, rows) if _is_its_weight(layer, rows) else None
            if merged is not None:
                return merged(source)
        projected = layer(rows)  # called as a module, so that whatever a host does in it goes on working
        return self._delta(name, source).add_to(projected.view(*source.shape[:3], -1), source)

    def _delta(self, name: str, like: Tensor) -> FrameDelta:
        if name not in self._deltas:
            self._deltas[name] = FrameDelta.of(*self._pairs(name, like), self.strength).to(like)
        return self._deltas[name]

    @torch.no_grad()
    def _merge(self, layer: nn.Linear, name: str, like: Tensor) -> MergedProjection:
        """The layer's weight with the deltas; computed only if it is another than in the run before."""
        weight = layer.weight
        now = fingerprint(weight)
        known = self._merged.pop(name, None)
        if known is None or known[0] != now or not _alike(known[1], like):
            known = now, self._merged_weight(weight, name)
        self._merged[name] = known
        self._deltas.pop(name, None)  # of no more use
        bias = None if layer.bias is None else layer.bias.detach()
        return MergedProjection(weight, _edits(weight), known[1], bias)

    def _merged_weight(self, weight: Tensor, name: str) -> Tensor:
        """[out,in] -> [F,in,out], in float32, then in the weight's dtype."""
        own = weight.detach().float().T
        downs, ups = self._pairs(name, weight)
        frames = [own + down.float().T @ up.float().T * self.strength for down, up in zip(downs, ups, strict=True)]
        return torch.stack(frames).to(weight.dtype)


Projections = dict[str, "MergedProjection | None"]


def _mixed(heads: int, mask: Tensor | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of queries [F,G,T,C] to keys and values [F,G,S,C] -> [F,G,T,C]."""
    queries, keys, values = (
        part.flatten(0, 1).unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value)
    )
    mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2).view(query.shape)


def _is_its_weight(layer: nn.Module, rows: Tensor) -> TypeGuard[nn.Linear]:
    """Whether the layer, tried on a few tokens, is its weight and bias and nothing else (no LoRA beside them)."""
    weight = getattr(layer, "weight", None)
    if weight is None or not hasattr(layer, "bias") or not is_plain(layer) or not _alike(weight, rows):
        return False
    probe = rows[:, :PROBE].contiguous()
    return torch.equal(F.linear(probe, weight, getattr(layer, "bias", None)), layer(probe))


def _control_layers(
    tensors: Mapping[str, Tensor], frame: int, strength: float, like: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first, last = f"control_convs.{frame}.0", f"control_convs.{frame}.2"
    weight, bias = ((tensors[f"{last}.{part}"].float() * strength).to(like) for part in ("weight", "bias"))
    return tensors[f"{first}.weight"].to(like), tensors[f"{first}.bias"].to(like), weight, bias
