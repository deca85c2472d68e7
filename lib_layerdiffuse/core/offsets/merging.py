"""Offsets merged into second copies of the touched parameters, which are swapped in for the run and out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .fingerprint import fingerprint
from .installed import ConcatLatents, Installed, parameter_at, parameter_of
from .offsets import Offset, OffsetSet, merge_parameter


class MergedCopies:
    """Merged parameters of one set of offsets, kept from run to run: good while nobody edits one of them."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple, nn.Parameter, bytes]] = {}

    def merged(self, name: str, original: Tensor, parts: Sequence[Offset], strength: float) -> nn.Parameter:
        """original + strength * offsets, of its shape and on its device, computed only where that has changed."""
        key = strength, fingerprint(original)
        known = self._kept.pop(name, None)  # before another is made: two would need twice the memory
        if known is None or known[0] != key or fingerprint(known[1]) != known[2]:
            del known
            merged = _merged_parameter(original, parts, strength)
            known = key, merged, fingerprint(merged)
        known[1].data = known[1].data.to(original.device)
        self._kept[name] = known
        return known[1]

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()


def _merged_parameter(original: Tensor, parts: Sequence[Offset], strength: float) -> nn.Parameter:
    quick = "cuda" if torch.cuda.is_available() else original.device  # a host may keep weights on the CPU
    merged = merge_parameter(original.to(quick), parts, strength).to(original.device)
    return nn.Parameter(merged, requires_grad=False)


@dataclass(frozen=True)
class _Swap:
    """A parameter and its merged twin, of which the module has one."""

    module: nn.Module
    attribute: str
    original: nn.Parameter
    merged: nn.Parameter

    def put(self, active: bool, spare: bool) -> None:
        """Give the module the merged parameter or the original: the object that it was, on the device of the other."""
        now, other = (self.merged, self.original) if active else (self.original, self.merged)
        there = parameter_at(self.module, self.attribute)
        if there.is_meta and not now.is_meta:  # the host threw the whole model away meanwhile
            return
        if now.device != there.device:  # a host that is short of memory moved the layer meanwhile
            now.data = now.data.to(there.device)
        self.module._parameters[self.attribute] = now
        if spare:
            other.data = other.data.to("cpu")


class Merged(Installed):
    """Parameters swapped for merged ones."""

    def __init__(
        self,
        offsets: OffsetSet,
        modules: Mapping[str, nn.Module],
        merging: tuple[float, MergedCopies],
        concat: ConcatLatents | None,
        spare: bool,
    ):
        super().__init__()
        strength, copies = merging
        self._swaps: list[_Swap] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._concat, self._wide, self._spare = concat, None, spare
        try:
            with torch.no_grad():
                for name, parts in offsets.entries.items():
                    module, attribute = parameter_of(modules, name)
                    original = parameter_at(module, attribute)
                    merged = copies.merged(name, original, parts, strength)
                    self._swap_in(_Swap(module, attribute, original, merged))
        except BaseException:
            self._switch(False)  # out of memory half-way: what was swapped goes back
            copies.clear()
            raise
        self.set_active(True)

    def _swap_in(self, swap: _Swap) -> None:
        self._swaps.append(swap)
        swap.put(True, self._spare)
        if swap.merged.shape != swap.original.shape:
            self._wide = swap.module

    def _switch(self, active: bool) -> None:
        for swap in self._swaps:
            swap.put(active, self._spare)
        while self._handles:
            self._handles.pop().remove()
        if active and self._wide is not None:
            self._handles.append(self._wide.register_forward_pre_hook(self._widen))

    def _widen(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert self._concat is not None  # as checked before anything was merged
        return (torch.cat([inputs[0], self._concat.beside(inputs[0])], 1), *inputs[1:])

    def _forget(self) -> None:
        self._swaps.clear()
