"""Flux's transformer in small, under the names of BFL's releases: double blocks, single blocks, fused layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from rule import randn_for, value
from torch import Tensor, nn

SIDES = ("img", "txt")
TIME = 256  # features of a time, or of a guidance


@dataclass(frozen=True)
class FluxShape:
    """The numbers of a network; `axes` are the places of a head that turn with text, row and column."""

    width: int = 32
    heads: int = 2
    axes: tuple[int, ...] = (4, 6, 6)
    context: int = 24
    pooled: int = 12
    doubles: int = 1
    singles: int = 1
    guided: bool = True
    channels: int = 16

    @property
    def diffusers(self) -> dict[str, Any]:
        """The configuration of the same network in diffusers."""
        return {
            "patch_size": 1,
            "in_channels": 4 * self.channels,
            "num_layers": self.doubles,
            "num_single_layers": self.singles,
            "attention_head_dim": self.width // self.heads,
            "num_attention_heads": self.heads,
            "joint_attention_dim": self.context,
            "pooled_projection_dim": self.pooled,
            "guidance_embeds": self.guided,
            "axes_dims_rope": self.axes,
        }


class Scale(nn.Module):
    """Root mean square norm over a head."""

    weight = None  # as in Forge, beside the scale

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.scale


def named(**children: nn.Module) -> nn.Module:
    """A module of children."""
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


def norms(width: int) -> nn.Module:
    """Norms of queries and keys."""
    return named(query_norm=Scale(width), key_norm=Scale(width))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """A layer norm without weights of its own, moved by the conditioning [B,1,C]."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def parts_of(layer: nn.Module, vector: Tensor, count: int) -> tuple[Tensor, ...]:
    """Shifts, scales and gates [B,1,C]."""
    return layer(F.silu(vector))[:, None].chunk(count, -1)


def in_heads(qkv: Tensor, heads: int, norm: nn.Module) -> list[Tensor]:
    """[B,T,3C] -> query, key and value [B,heads,T,C/heads], the first two normed."""
    query, key, given = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
    return [norm.query_norm(query), norm.key_norm(key), given]


def attend(qkv: list[Tensor], turns: Tensor) -> Tensor:
    """Attention of all tokens, turned by their places -> [B,T,C]."""
    query, key, given = qkv
    mixed = F.scaled_dot_product_attention(turned(query, turns), turned(key, turns), given)
    return mixed.transpose(1, 2).flatten(2)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Pairs of neighbouring places [B,heads,T,D] as complex numbers, turned by [T,D/2]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def turns_of(ids: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Complex turns [T,D/2] of places [T,3]."""
    angles = [
        ids[:, place, None].double() / 10_000 ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
        for place, size in enumerate(axes)
    ]
    angle = torch.cat(angles, -1)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def waves(times: Tensor) -> Tensor:
    """Features [B,256] of times in [0,1], or of guidances."""
    half = TIME // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32) / half)
    angles = 1000.0 * times.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


class Double(nn.Module):
    """Picture and text side by side: layers of their own, attention together."""

    def __init__(self, shape: FluxShape):
        super().__init__()
        self.heads, width = shape.heads, shape.width
        for side in SIDES:
            self.add_module(f"{side}_mod", named(lin=nn.Linear(width, 6 * width)))
            attention = {"qkv": nn.Linear(width, 3 * width), "norm": norms(width // shape.heads)}
            self.add_module(f"{side}_attn", named(**attention, proj=nn.Linear(width, width)))
            layers = nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
            self.add_module(f"{side}_mlp", nn.Sequential(*layers))

    def forward(self, streams: dict[str, Tensor], vector: Tensor, turns: Tensor) -> dict[str, Tensor]:
        layer = self.get_submodule
        moves = {side: parts_of(layer(f"{side}_mod").lin, vector, 6) for side in SIDES}
        seen = {}
        for side in SIDES:
            attention = layer(f"{side}_attn")
            qkv = attention.qkv(modulated(streams[side], *moves[side][:2]))
            seen[side] = in_heads(qkv, self.heads, attention.norm)
        together = [torch.cat(pair, 2) for pair in zip(seen["txt"], seen["img"], strict=True)]
        texts = streams["txt"].shape[1]
        mixed = dict(zip(("txt", "img"), attend(together, turns).tensor_split([texts], 1), strict=True))
        result = {}
        for side in SIDES:
            _, _, gate, shift, scale, last = moves[side]
            x = streams[side] + gate * layer(f"{side}_attn").proj(mixed[side])
            result[side] = x + last * layer(f"{side}_mlp")(modulated(x, shift, scale))
        return result


class Single(nn.Module):
    """All tokens in one stream, attention and the other layers at once."""

    def __init__(self, shape: FluxShape):
        super().__init__()
        self.heads, width = shape.heads, shape.width
        self.linear1, self.linear2 = nn.Linear(width, 7 * width), nn.Linear(5 * width, width)
        self.norm, self.modulation = norms(width // shape.heads), named(lin=nn.Linear(width, 3 * width))

    def forward(self, x: Tensor, vector: Tensor, turns: Tensor) -> Tensor:
        shift, scale, gate = parts_of(self.modulation.lin, vector, 3)
        width = x.shape[-1]
        qkv, rest = self.linear1(modulated(x, shift, scale)).tensor_split([3 * width], -1)
        mixed = attend(in_heads(qkv, self.heads, self.norm), turns)
        return x + gate * self.linear2(torch.cat([mixed, F.gelu(rest, approximate="tanh")], -1))


def embedder(inside: int, width: int) -> nn.Module:
    """Two layers."""
    return named(in_layer=nn.Linear(inside, width), out_layer=nn.Linear(width, width))


def embedded(layers: nn.Module, x: Tensor) -> Tensor:
    """What they give."""
    return layers.out_layer(F.silu(layers.in_layer(x)))


class FluxTransformer(nn.Module):
    """x [B,16,h,w], timestep [B] in [0,1], context [B,T,C], y [B,P], guidance [B] -> velocity [B,16,h,w]."""

    def __init__(self, shape: FluxShape | None = None):
        super().__init__()
        self.shape = shape = shape or FluxShape()
        width, tokens = shape.width, 4 * shape.channels
        self.img_in, self.txt_in = nn.Linear(tokens, width), nn.Linear(shape.context, width)
        self.time_in, self.vector_in = embedder(TIME, width), embedder(shape.pooled, width)
        if shape.guided:
            self.guidance_in = embedder(TIME, width)
        self.double_blocks = nn.ModuleList(Double(shape) for _ in range(shape.doubles))
        self.single_blocks = nn.ModuleList(Single(shape) for _ in range(shape.singles))
        modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.final_layer = named(linear=nn.Linear(width, tokens), adaLN_modulation=modulation)
        self.eval().requires_grad_(False)

    def forward(self, x, timestep, context, y, guidance=None, **_others) -> Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, width % 2, 0, height % 2), mode="circular") if height % 2 or width % 2 else x
        rows, columns = (side // 2 for side in padded.shape[-2:])
        tokens = F.pixel_unshuffle(padded, 2).flatten(2).transpose(1, 2)
        vector = embedded(self.time_in, waves(timestep).to(x.dtype)) + embedded(self.vector_in, y)
        if self.shape.guided:
            vector = vector + embedded(self.guidance_in, waves(guidance).to(x.dtype))
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        ids = torch.cat([torch.zeros(context.shape[1], 2, dtype=torch.long), places])
        turns = turns_of(F.pad(ids, (1, 0)), self.shape.axes)
        streams = {"img": self.img_in(tokens), "txt": self.txt_in(context)}
        for block in self.double_blocks:
            streams = block(streams, vector, turns)
        x = torch.cat([streams["txt"], streams["img"]], 1)
        for block in self.single_blocks:
            x = block(x, vector, turns)
        shift, scale = self.final_layer.adaLN_modulation(vector)[:, None].chunk(2, -1)
        tokens = self.final_layer.linear(modulated(x[:, context.shape[1] :], shift, scale))
        whole = F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (rows, columns)), 2)
        return whole[..., :height, :width]


def flux_value(stem: str, key: str, shape: tuple[int, ...]) -> Tensor:
    """A made-up tensor of a network."""
    if key.endswith("_norm.scale"):
        return 1 + 0.1 * randn_for(f"{stem}/{key}", shape)
    return value(f"{stem}/{key}", shape)


def flux_state(stem: str = "flux_tiny", shape: FluxShape | None = None) -> dict[str, Tensor]:
    """All tensors of a network, BFL's names."""
    names = FluxTransformer(shape).state_dict()
    return {key: flux_value(stem, key, tuple(tensor.shape)) for key, tensor in names.items()}


def flux_network(stem: str = "flux_tiny", shape: FluxShape | None = None) -> FluxTransformer:
    """A network with made-up weights."""
    network = FluxTransformer(shape)
    network.load_state_dict(flux_state(stem, shape))
    return network


def inputs(shape: FluxShape | None = None) -> dict[str, Tensor]:
    """The inputs of the golden numbers."""
    shape = shape or FluxShape()
    return {
        "x": randn_for("golden/flux/lora/x", (1, shape.channels, 8, 6)),
        "timestep": torch.tensor([0.7]),
        "context": randn_for("golden/flux/lora/context", (1, 5, shape.context)),
        "y": randn_for("golden/flux/lora/pooled", (1, shape.pooled)),
        "guidance": torch.tensor([3.5]),
    }


# --- LoRA files

BLOCKS = ("double_blocks.", "single_blocks.")
PEFT_TARGETS = (
    *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *(f"{stream}.net.{layer}" for stream in ("ff", "ff_context") for layer in ("0.proj", "2")),
)


def bfl_linears(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Paths and shapes of the linear layers of the blocks."""
    return {
        path: tuple(module.weight.shape)
        for path, module in network.named_modules()
        if path.startswith(BLOCKS) and isinstance(module, nn.Linear)
    }


def kohya_state(network: nn.Module, stem: str = "flux_tiny_kohya", rank: int = 4, alpha: float = 2.0):
    """A LoRA of all linear layers of the blocks as sd-scripts writes it."""
    state = {}
    for path, (out, inside) in bfl_linears(network).items():
        layer = f"lora_unet_{path.replace('.', '_')}"
        for half, shape in (("down", (rank, inside)), ("up", (out, rank))):
            key = f"{layer}.lora_{half}.weight"
            state[key] = value(f"{stem}/{key}", shape, 0.5).half()
        state[f"{layer}.alpha"] = torch.tensor(alpha)
    return state


def peft_state(transformer: nn.Module, stem: str = "flux_tiny_peft", rank: int = 4, prefix: str = "transformer."):
    """A LoRA of attention and feed-forward layers as diffusers writes it."""
    state = {}
    for path, module in transformer.named_modules():
        block = "transformer_blocks." in path and any(path.endswith(f".{target}") for target in PEFT_TARGETS)
        if block:
            out, inside = module.weight.shape
            for half, shape in (("A", (rank, inside)), ("B", (out, rank))):
                tail = f"{path}.lora_{half}.weight"
                state[f"{prefix}{tail}"] = value(f"{stem}/transformer.{tail}", shape, 0.5).half()
    return state


# --- layers as hosts store them


class Packed(nn.Module):
    """A linear layer that does not tell its sides and holds its weight packed in bytes."""

    def __init__(self, source: nn.Module, told: str):
        super().__init__()
        plain = source.weight.detach().half()
        packed = plain.view(torch.uint8).flatten().clone()
        self.weight, self.bias = nn.Parameter(packed, requires_grad=False), source.bias
        shape = torch.Size(plain.shape)
        if told == "quant_state":
            self.weight.quant_state = type("State", (), {"shape": shape})()
        else:
            self.weight.real_shape = shape
        self._shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.view(torch.float16).reshape(self._shape).to(x.dtype), self.bias)
