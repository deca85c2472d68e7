"""Attention sharing that can be trained: units on a diffusers UNet's attention layers, written in the published layout.

What core/sharing computes for pictures, with gradients: each frame's low-rank layers merged into the projections,
attention across the frames at each token, and what a control image adds. A fresh unit adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import BaseMismatchError, InputError
from ...core.files.layouts import CONTROL_PREFIX, PROJECTIONS, SHARING_PREFIX, SharingShape
from ...core.offsets.offsets import OffsetSet
from ...core.sharing.control_encoder import ControlEncoder
from ...core.sharing.places import unit_places
from ...core.sharing.sharing_unit import NORM_EPSILON, AttentionLayer, attend_across, working_dtype
from ...unet.ldm_keys import unet_modules
from ..diffusion.denoising import begin_with, nearest_pair
from ..typed_modules import ModulesOf, NamedModules, spread_output
from .layer_batches import Given

LAYERS_OF_TEMPORAL = "inqkvo"


@dataclass(frozen=True)
class AttentionPlace:
    """An attention layer of a UNet and the depth at which it is."""

    layer: AttentionLayer
    depth: int
    path: str = ""  # in LDM's names


def attention_places(unet: nn.Module) -> list[AttentionPlace]:
    """The attention layers of a diffusers UNet in the order of the units; BaseMismatchError where it has none."""
    modules = unet_modules(unet)
    places = [
        AttentionPlace(cast("AttentionLayer", modules[place.path]), place.depth, place.path)
        for place in unit_places(modules)
    ]
    if not places:
        raise BaseMismatchError(
            "a UNet without attention layers", "one of Stable Diffusion's layout", "name another --model"
        )
    return places


def shape_of(unet: nn.Module, frames: int, rank: int, encoder: tuple[tuple[int, ...], ...] = ()) -> SharingShape:
    """The units that fit a UNet; with control where `encoder` has widths, a block for each depth."""
    projections = [dict(_projections(place.layer)) for place in attention_places(unet)]
    widths = tuple(layers["to_q"].in_features for layers in projections[::2])
    return SharingShape(frames, widths, projections[1]["to_k"].in_features, rank, bool(encoder), encoder)


def encoder_shape(unet: nn.Module, channels: int, factor: int) -> tuple[tuple[int, ...], ...]:
    """Widths of a control encoder with signals of `channels` for a VAE of `factor`, a block for each of the depths."""
    depths = max(place.depth for place in attention_places(unet)) + 1
    halvings = int(math.log2(factor))
    first = [max(8, channels >> (halvings - level)) for level in range(halvings) for _ in range(2)]
    return ((*first, channels, channels), *((channels, channels),) * (depths - 1))


class FrameLowRank(nn.Module):
    """Low-rank layers of one projection for all frames: down [F,in,r] and up [F,r,out], which starts at zero."""

    def __init__(self, frames: int, width_in: int, width_out: int, rank: int):
        super().__init__()
        self.down = nn.Parameter(torch.randn(frames, width_in, rank) / math.sqrt(width_in))
        self.up = nn.Parameter(torch.zeros(frames, rank, width_out))

    @torch.no_grad()
    def begin(self, frame: int, offset: Tensor) -> None:
        """Let a frame begin with the nearest of this rank to a weight's offset [out,in]."""
        up, down = nearest_pair(offset, self.down.shape[2])
        self.down[frame, :, : len(down)], self.up[frame, : len(down)] = down.T, up.T

    def merged(self, weight: Tensor) -> Tensor:
        """A layer's weight [out,in] with the low-rank layers added, [F,in,out]."""
        return torch.baddbmm(weight.T.expand(len(self.down), -1, -1), self.down, self.up)


class FrameControl(nn.Module):
    """What a signal adds to each frame's tokens: a 3x3 convolution, SiLU, a 1x1 convolution that starts at zero."""

    def __init__(self, frames: int, channels: int, width: int):
        super().__init__()
        self.frames = frames
        self.first = nn.Conv2d(channels, frames * channels, 3, padding=1)
        self.last = nn.Conv2d(frames * channels, frames * width, 1, groups=frames)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, signal: Tensor) -> Tensor:
        """Signal [G,S,h,w] -> [F,G,h*w,C]."""
        added = self.last(F.silu(self.first(signal)))
        return added.unflatten(1, (self.frames, -1)).flatten(3).permute(1, 0, 3, 2)


class TrainedUnit(nn.Module):
    """One unit: `places` of the published layout in tensors that hold all frames."""

    def __init__(self, shape: SharingShape, width: int, source: int):
        super().__init__()
        widths_in = {"to_k": source, "to_v": source}
        self.lora = NamedModules(
            {name: FrameLowRank(shape.frames, widths_in.get(name, width), width, shape.rank) for name in PROJECTIONS}
        )
        self.norm = nn.LayerNorm(width, NORM_EPSILON)
        self.temporal = NamedModules({name: nn.Linear(width, width) for name in LAYERS_OF_TEMPORAL if name != "n"})
        for parameter in self.temporal["o"].parameters():
            nn.init.zeros_(parameter)
        self.control = FrameControl(shape.frames, shape.encoder[-1][-1], width) if shape.control else None
        self.frames = shape.frames

    def forward(
        self, attention: AttentionLayer, hidden: Tensor, context: Tensor | None, signal: Tensor | None
    ) -> Tensor:
        """Rows (groups, frames) of [B,T,C] -> what the transformer block adds to them."""
        dtype = working_dtype(hidden)
        frames = hidden.to(dtype).unflatten(0, (-1, self.frames)).transpose(0, 1).contiguous()
        added = None if signal is None or self.control is None else self.control(signal).to(dtype)
        frames = frames if added is None else frames + added
        seen = frames if context is None else context.to(dtype).unflatten(0, (-1, self.frames)).transpose(0, 1)
        with torch.autocast(hidden.device.type, enabled=False):  # the weights are small: folded in float32
            weights = {name: self.lora[name].merged(layer.weight).to(dtype) for name, layer in _projections(attention)}
        attended = _attend(attention, frames, seen, weights)
        result = attended if added is None else attended + added
        result = result + self._across(frames + attended, attention.heads)
        return result.transpose(0, 1).flatten(0, 1)

    def _across(self, frames: Tensor, heads: int) -> Tensor:
        """Attention across the frames at each token, [F,G,T,C] -> what is added."""
        hidden = self.temporal["i"](self.norm(frames.float()).to(frames.dtype))
        query, key, value = (self.temporal[name](hidden).flatten(1, 2).unflatten(-1, (heads, -1)) for name in "qkv")
        return self.temporal["o"](attend_across(query, key, value).flatten(2).view(frames.shape))

    def _temporal_tensors(self) -> dict[str, Tensor]:
        layers: dict[str, nn.Module] = {"n": self.norm, **dict(self.temporal.items())}
        return {f"temporal_{n}.{part}": getattr(layers[n], part) for n in layers for part in ("weight", "bias")}

    def published(self) -> dict[str, Tensor]:
        """The tensors by their keys in a file, without the unit's prefix."""
        tensors = self._temporal_tensors()
        for name, pair in self.lora.items():
            for frame, (down, up) in enumerate(zip(pair.down, pair.up, strict=True)):
                tensors[f"{name}_lora.{frame}.down.weight"] = down.T
                tensors[f"{name}_lora.{frame}.up.weight"] = up.T
        for place, layer in ((0, self.control.first), (2, self.control.last)) if self.control is not None else ():
            for part in ("weight", "bias"):
                for frame, tensor in enumerate(getattr(layer, part).chunk(self.frames)):
                    tensors[f"control_convs.{frame}.{place}.{part}"] = tensor
        return tensors


def _projections(attention: AttentionLayer) -> list[tuple[str, nn.Linear]]:
    layers = (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0])
    return [(name, cast("nn.Linear", layer)) for name, layer in zip(PROJECTIONS, layers, strict=True)]


def _attend(attention: AttentionLayer, frames: Tensor, seen: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Attention of frames [F,G,T,C] to `seen` [F,G,S,D] with each frame's own weights."""
    biases = {name: layer.bias for name, layer in _projections(attention)}
    sources = {"to_q": frames, "to_k": seen, "to_v": seen}
    queries, keys, values = (
        _projected(source, weights[name], biases[name])
        .flatten(0, 1)
        .unflatten(-1, (attention.heads, -1))
        .transpose(1, 2)
        for name, source in sources.items()
    )
    mixed = _mixed(queries, keys, values).transpose(1, 2).flatten(2).view(*frames.shape[:3], -1)
    mixed = _projected(mixed, weights["to_out"], biases["to_out"])
    for layer in list(attention.to_out)[1:]:
        mixed = layer(mixed)
    return mixed


def _mixed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """On CPUs by plain matrix products: the fused attention's backward pass is slower there."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value)
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.softmax(-1) @ value


def _projected(source: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[F,G,T,in] by [F,in,out]."""
    result = torch.bmm(source.flatten(1, 2), weight).view(*source.shape[:3], -1)
    return result if bias is None else result + bias.to(result.dtype)


class TrainedUnits(nn.Module):
    """The units of a UNet and their control encoder; `install` puts them on its layers, `remove` takes them off."""

    def __init__(self, shape: SharingShape):
        super().__init__()
        self.shape = shape
        sizes = [(width, source) for width in shape.widths for source in (width, shape.context)]
        self.units = ModulesOf([TrainedUnit(shape, *size) for size in sizes])
        self.encoder = ControlEncoder(shape.encoder) if shape.control else None
        self._signals: list[Tensor] = []
        self._on: list[tuple[AttentionLayer, Callable[..., Tensor]]] = []

    def install(self, places: Sequence[AttentionPlace]) -> None:
        """Replace the forward of each attention layer, on the instance.

        BaseMismatchError for another number of them.
        """
        if len(places) != len(self.units):
            raise BaseMismatchError(
                f"a UNet with {len(places)} attention layers", f"{len(self.units)}, as many as units", "use one UNet"
            )
        if not self._on:
            pairs = zip(self.units, places, strict=True)
            self._on = [(place.layer, self._forward_of(unit, place)) for unit, place in pairs]
        for layer, forward in self._on:
            layer.forward = forward

    def begin(self, frame: int, offsets: OffsetSet, places: Sequence[AttentionPlace]) -> None:
        """Let a frame begin as a model's offsets are; InputError where these have none for its attention."""
        layers = (
            (
                f"{place.path}.{name}{'.0' if name == 'to_out' else ''}.weight",
                layer.weight.shape,
                partial(unit.lora[name].begin, frame),
            )
            for unit, place in zip(self.units, places, strict=True)
            for name, layer in _projections(place.layer)
        )
        begin_with(offsets, layers, "--foreground")

    def remove(self) -> None:
        """The layers as they were."""
        for layer, forward in self._on:
            if layer.__dict__.get("forward") is forward:
                del layer.forward

    def _forward_of(self, unit: TrainedUnit, place: AttentionPlace) -> Callable[..., Tensor]:
        layer, depth = place.layer, place.depth

        def forward(
            hidden: Tensor, encoder_hidden_states: Tensor | None = None, *_others: Any, **_named: Any
        ) -> Tensor:
            signal = self._signals[depth] if self._signals else None
            return unit(layer, hidden, encoder_hidden_states, signal)

        return forward

    def see(self, given: Given) -> None:
        """What is given for the coming UNet call: a control image for each group, where there is an encoder.

        InputError for one too many, or none.
        """
        control, encoder = given["control"], self.encoder
        if (control is None) != (encoder is None):
            raise InputError(
                "no control image" if control is None else "a control image",
                "one for each set" if control is None else "none, as these units have no encoder",
                "choose the method that fits",
            )
        self._signals = [] if control is None or encoder is None else list(encoder(control).values())

    @torch.no_grad()
    def take(self, state: Mapping[str, Tensor], source: str) -> None:
        """Go on from a file's tensors in the published layout; InputError where its shape is another."""
        own = self._places()
        if {key: tensor.shape for key, tensor in own.items()} != {key: tensor.shape for key, tensor in state.items()}:
            raise InputError(
                f"{source}: {len(state)} tensors of other names or shapes",
                f"{len(own)} that fit the method, --rank {self.shape.rank} and the model",
                "name the file of this method for this model, or leave --begin out",
            )
        for key, tensor in own.items():
            tensor.copy_(state[key])

    def published(self) -> dict[str, Tensor]:
        """All tensors in the published layout, float16."""
        return {key: tensor.detach().half().contiguous().cpu() for key, tensor in self._places().items()}

    def _places(self) -> dict[str, Tensor]:
        """All tensors by their keys in a file, as views of what is trained."""
        state = {}
        for index, unit in enumerate(self.units):
            state.update({f"{SHARING_PREFIX}{index}.{key}": tensor for key, tensor in unit.published().items()})
        if self.encoder is not None:
            state.update({f"{CONTROL_PREFIX}{key}": tensor for key, tensor in self.encoder.state_dict().items()})
        return state


@torch.no_grad()
def spread_signals(encoder: ControlEncoder, images: Tensor) -> None:
    """Give each convolution's output on `images` [B,3,H,W] mean 0 and deviation 1: else units learn very late."""
    hidden = images
    for layer in (layer for block in encoder.children() for layer in block.children()):
        if isinstance(layer, nn.Conv2d):
            spread_output(layer, hidden)
        hidden = layer(hidden)
