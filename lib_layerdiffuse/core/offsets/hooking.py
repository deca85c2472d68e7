"""Offsets added to the outputs of modules by forward hooks: for weights that nothing can be merged into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BaseMismatchError
from .installed import ConcatLatents, Installed
from .offsets import LowRank, Offset, OffsetSet, Rows, plain_shape


@dataclass
class _Terms:
    """The offsets of one module as hooks add them: a full and any number of low-rank weights, and a bias."""

    concat: ConcatLatents | None = None
    full: Tensor | None = None
    bias: Tensor | None = None
    low_rank: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    of_rows: list[tuple[Tensor, Tensor, Rows]] = field(default_factory=list)  # of a larger layer's outputs


class _Source:
    """The offsets of one module as the file has them; `on` gives them ready for a sample, made once."""

    def __init__(self, strength: float, concat: ConcatLatents | None):
        self.strength, self.concat = strength, concat
        self.parts: list[tuple[str, Offset]] = []
        self._ready: tuple[tuple[torch.dtype, torch.device], _Terms] | None = None

    def on(self, sample: Tensor) -> _Terms:
        """The terms in the dtype and on the device of `sample`."""
        key = (sample.dtype, sample.device)
        if self._ready is None or self._ready[0] != key:
            self._ready = (key, self._terms(sample))
        return self._ready[1]

    def _terms(self, sample: Tensor) -> _Terms:
        terms = _Terms(self.concat)
        for attribute, part in self.parts:
            if isinstance(part, LowRank):
                up = self._scaled(part.up, sample, self.strength * part.scale)
                pair = up, part.down.to(sample)
                if part.rows is None:
                    terms.low_rank.append(pair)
                else:
                    terms.of_rows.append((*pair, part.rows))
            elif attribute == "weight":
                terms.full = self._scaled(part.diff, sample, self.strength)
            else:
                terms.bias = self._scaled(part.diff, sample, self.strength)
        return terms

    @staticmethod
    def _scaled(tensor: Tensor, sample: Tensor, factor: float) -> Tensor:
        """Scaled in float32: 16-bit offsets of a weak strength would lose their last bits."""
        moved = tensor.to(sample.device)
        return (moved if factor == 1 else moved.float() * factor).to(sample.dtype)


def _sum(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term


def _linear_effect(module: nn.Module, terms: _Terms, sample: Tensor) -> Tensor | None:
    total = None
    for up, down in terms.low_rank:
        total = _sum(total, F.linear(F.linear(sample, down.flatten(1)), up))
    if terms.of_rows:
        whole = sample.new_zeros(*sample.shape[:-1], terms.of_rows[0][2].whole)
        for up, down, rows in terms.of_rows:
            whole[..., rows.part] += F.linear(F.linear(sample, down), up)
        total = _sum(total, whole)
    if terms.full is not None:
        total = _sum(total, F.linear(sample, terms.full))
    return total if terms.bias is None else _sum(total, terms.bias)


def _convolution_effect(module: nn.Conv2d, terms: _Terms, sample: Tensor) -> Tensor | None:
    total = None
    for up, down in terms.low_rank:
        kernel = down.reshape(len(down), -1, *module.kernel_size)
        total = _sum(total, F.conv2d(module._conv_forward(sample, kernel, None), up[:, :, None, None]))
    if terms.full is not None:
        seen = sample
        if terms.concat is not None and terms.full.shape[1] > sample.shape[1] // module.groups:
            seen = torch.cat([sample, terms.concat.beside(sample)], 1)
        total = _sum(total, module._conv_forward(seen, terms.full, None))
    return total if terms.bias is None else _sum(total, terms.bias[:, None, None])


def _group_norm_effect(module: nn.GroupNorm, terms: _Terms, sample: Tensor) -> Tensor:
    weight = torch.zeros_like(module.weight).to(sample) if terms.full is None else terms.full
    return F.group_norm(sample, module.num_groups, weight, terms.bias, module.eps)


def _layer_norm_effect(module: nn.LayerNorm, terms: _Terms, sample: Tensor) -> Tensor:
    weight = torch.zeros_like(module.weight).to(sample) if terms.full is None else terms.full
    return F.layer_norm(sample, module.normalized_shape, weight, terms.bias, module.eps)


Effect = Callable[[Any, _Terms, Tensor], "Tensor | None"]  # of a module of the effect's own kind


def _is_linear(module: nn.Module) -> bool:
    """Hosts with their own storage formats bring linear layers of their own, which are no nn.Linear.

    Some of them do not even tell their sides (GGUF, four-bit floats): then the matrix that they stand for does.
    """
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return True
    weight = module._parameters.get("weight")
    return weight is not None and not isinstance(module, nn.Embedding) and len(plain_shape(module, weight)) == 2


EFFECTS: dict[str, tuple[Callable[[nn.Module], bool], Effect]] = {
    "Linear": (_is_linear, _linear_effect),
    "Conv2d": (lambda module: isinstance(module, nn.Conv2d), _convolution_effect),
    "GroupNorm": (lambda module: isinstance(module, nn.GroupNorm), _group_norm_effect),
    "LayerNorm": (lambda module: isinstance(module, nn.LayerNorm), _layer_norm_effect),
}


class Hooked(Installed):
    """One forward hook for each touched module."""

    def __init__(
        self, offsets: OffsetSet, modules: Mapping[str, nn.Module], strength: float, concat: ConcatLatents | None
    ):
        super().__init__()
        self._sources: dict[str, _Source] = {}
        for name, parts in offsets.entries.items():
            path, _, attribute = name.rpartition(".")
            source = self._sources.setdefault(path, _Source(strength, concat))
            source.parts += [(attribute, part) for part in parts]
        effects = {path: _effect_for(path, modules[path], source) for path, source in self._sources.items()}
        # registered once and switched by a flag, so that the order among other hooks never changes
        self._handles = [
            modules[path].register_forward_hook(self._hook(effect, self._sources[path]))
            for path, effect in effects.items()
        ]
        self.set_active(True)

    def _hook(self, effect: Effect, source: _Source) -> Callable:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if not self.active:
                return None
            added = effect(module, source.on(inputs[0]), inputs[0])
            return None if added is None else output + added.to(output.dtype)

        return hook

    def _switch(self, active: bool) -> None:
        pass  # the hooks read `active`

    def _forget(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._sources.clear()


def _effect_for(path: str, module: nn.Module, source: _Source) -> Effect:
    low_rank = any(isinstance(part, LowRank) for _, part in source.parts)
    grouped = isinstance(module, nn.Conv2d) and module.groups > 1 and low_rank
    for fits, effect in EFFECTS.values():
        if fits(module) and not grouped:
            return effect
    raise BaseMismatchError(
        f"{path}, a {type(module).__name__}{' with groups' if grouped else ''}",
        f"one of {', '.join(EFFECTS)}",
        "merge these offsets instead of hooking them",
    )
