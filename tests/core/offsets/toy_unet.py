"""A UNet of a few layers, offsets of every kind for it, and what an installation might leave changed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A toy UNet with every kind of layer that offsets touch."""

    def __init__(self):
        super().__init__()
        self.input_blocks = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1))
        self.norm = nn.GroupNorm(2, 8)
        self.halve = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.layer_norm = nn.LayerNorm(8)
        self.to_q = nn.Linear(8, 8, bias=False)
        self.out = nn.Linear(8, 4)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        hidden = self.halve(F.silu(self.norm(self.input_blocks(sample))))
        tokens = self.layer_norm(hidden.flatten(2).transpose(1, 2))
        return self.out(tokens + self.to_q(tokens))


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    return dict(model.named_modules())


def random_tensors(model: nn.Module, extra_channels: int = 0) -> dict[str, torch.Tensor]:
    """A file's tensors: a diff of every parameter and low rank on three of them, one of which has both."""
    tensors = {}
    for name, parameter in model.named_parameters():
        if name != "to_q.weight":
            shape = list(parameter.shape)
            if name == "input_blocks.0.weight":
                shape[1] += extra_channels
            tensors[f"diffusion_model.{name}::diff::0"] = 0.1 * torch.randn(shape)
    low_rank = {"to_q.weight": (8, 8), "halve.weight": (8, 72), "out.weight": (4, 8)}
    for name, (width, width_in) in low_rank.items():
        tensors[f"diffusion_model.{name}::lora::0"] = 0.3 * torch.randn(width, 2)
        tensors[f"diffusion_model.{name}::lora::1"] = 0.3 * torch.randn(2, width_in)
    return tensors


def by_hand(model: nn.Module, tensors: dict[str, torch.Tensor], strength: float) -> Block:
    """A copy of the model with the offsets added the plain way."""
    copy = Block()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for key, tensor in tensors.items():
        name, kind, index = key.removeprefix("diffusion_model.").split("::")
        if kind == "diff":
            state[name] = state[name] + strength * tensor
        elif index == "0":
            down = tensors[key[:-1] + "1"]
            state[name] = state[name] + strength * (tensor @ down).reshape(state[name].shape)
    copy.load_state_dict(state)
    return copy


def fingerprint(model: nn.Module) -> list:
    """Everything that an installation might leave changed."""
    state = []
    for name, module in model.named_modules():
        state.append((name, len(module._forward_hooks), len(module._forward_pre_hooks), sorted(module.__dict__)))
        state += [
            (key, id(value), value.clone().tolist()) for key, value in module._parameters.items() if value is not None
        ]
    return state
