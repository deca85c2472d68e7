"""Offsets on a live model, reversibly: merged into swapped parameters, or added to outputs by forward hooks.

Both take a mapping from LDM module paths to modules (`dict(unet.named_modules())` for an LDM UNet), so that any host
can offer its own tree. Merging costs nothing per step and a second copy of the touched parameters; hooks keep
low-rank offsets low-rank, leave every parameter alone and so live with anything else that edits weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import BaseMismatchError, InputError, WeightsError
from .fingerprint import fingerprint
from .offsets import LowRank, Offset, OffsetSet, checked_offsets, is_quantised, merge_parameter
from .rows import spread_rows

logger = logging.getLogger(__name__)


@dataclass
class ConcatLatents:
    """What the wide input convolution of one run sees beside the sample: latents [N,4 or 8,h,w], sampler scale.

    N is 1, or the pictures of the batch (CFG repeats them in the same order). Where a host splits a batch over
    several UNet calls, set `rows` (one index into N for each row) before each call.
    """

    latents: Tensor
    rows: Sequence[int] | None = None
    _shaped: dict = field(default_factory=dict, repr=False)

    def beside(self, sample: Tensor) -> Tensor:
        """The latents for the rows and size of `sample` [B,C,H,W], in its dtype and on its device."""
        key = (sample.dtype, sample.device, tuple(sample.shape[2:]))
        if key not in self._shaped:
            moved = self.latents.to(sample.device)
            if moved.shape[2:] != sample.shape[2:]:  # a second pass at another size
                moved = F.interpolate(moved.float(), size=sample.shape[2:], mode="bilinear", antialias=True)
            self._shaped = {key: moved.to(sample.dtype)}
        return spread_rows(self._shaped[key], len(sample), self.rows)


class MergedCopies:
    """Merged parameters of one set of offsets, kept from run to run: good while nobody edits one of them."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple, nn.Parameter, bytes]] = {}

    def merged(self, name: str, original: Tensor, parts: Sequence[Offset], strength: float) -> nn.Parameter:
        """original + strength * offsets on the device of `original`, computed only where that has changed."""
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


class Installed:
    """Offsets on a model: `set_active(False)` gives the plain model back for a while, `remove()` for good."""

    def __init__(self) -> None:
        self.active = False

    def set_active(self, active: bool) -> None:
        """Put the offsets on, or give the plain model back; nothing is computed anew."""
        if active != self.active:
            self._switch(active)
            self.active = active

    def remove(self) -> None:
        """Give the plain model back and forget the offsets."""
        self.set_active(False)
        self._forget()

    def _switch(self, active: bool) -> None:
        raise NotImplementedError

    def _forget(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Installed:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.remove()


def parameter_shapes(modules: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights and biases of a tree {path: module}; for a quantised layer its plain shape."""
    shapes = {}
    for path, module in modules.items():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                shapes[f"{path}.{name}" if path else name] = _plain_shape(module, name, parameter)
    return shapes


def _plain_shape(module: nn.Module, name: str, parameter: Tensor) -> tuple[int, ...]:
    if name == "weight" and hasattr(module, "in_features"):  # packed weights have another shape
        return (module.out_features, module.in_features)
    return tuple(parameter.shape)


def merge_offsets(
    offsets: OffsetSet,
    modules: Mapping[str, nn.Module],
    strength: float = 1.0,
    concat: ConcatLatents | None = None,
    spare: bool = False,
    copies: MergedCopies | None = None,
) -> Installed:
    """Merge offsets into `modules`; the original parameter objects come back on removal. Strength 0 touches nothing.

    `spare` keeps what is not in use on the CPU, so that the device never holds two copies of a parameter. `copies`
    spares the next run of the same offsets the merging.
    """
    offsets = _prepared(offsets, modules, strength, concat)
    for name in offsets.entries:
        _refuse_quantised(name, *_parameter(modules, name))
    return _Merged(offsets, modules, (strength, copies or MergedCopies()), concat, spare)


def can_merge(offsets: OffsetSet, modules: Mapping[str, nn.Module]) -> bool:
    """Whether all touched parameters are plain floating-point numbers in memory."""
    parameters = [
        modules[path]._parameters[attribute]
        for path, _, attribute in (name.rpartition(".") for name in offsets.entries)
    ]
    return not any(parameter.is_meta or is_quantised(parameter) for parameter in parameters)


def merged_bytes(offsets: OffsetSet, modules: Mapping[str, nn.Module]) -> int:
    """Size of a second copy of all touched parameters."""
    touched = [_parameter(modules, name) for name in offsets.entries]
    return sum(module._parameters[attribute].nbytes for module, attribute in touched)


def hook_offsets(
    offsets: OffsetSet, modules: Mapping[str, nn.Module], strength: float = 1.0, concat: ConcatLatents | None = None
) -> Installed:
    """Add the effect of offsets to the outputs of `modules` by forward hooks. Strength 0 touches nothing."""
    offsets = _prepared(offsets, modules, strength, concat)
    return _Hooked(offsets, modules, strength, concat)


def _prepared(
    offsets: OffsetSet, modules: Mapping[str, nn.Module], strength: float, concat: ConcatLatents | None
) -> OffsetSet:
    """The offsets, checked against the tree; none at all for strength 0. Raises before anything is touched."""
    checked = checked_offsets(offsets, parameter_shapes(modules))
    if strength == 0:
        return OffsetSet({}, source=offsets.source)
    given = 0 if concat is None else concat.latents.shape[1]
    if given != checked.extra_channels:
        raise InputError(
            f"{given} channels of concat latents",
            f"{checked.extra_channels} for {offsets.source}",
            "give the method's condition images, all of them and no others",
        )
    return checked


def _parameter(modules: Mapping[str, nn.Module], name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return modules[path], attribute


def _refuse_quantised(name: str, module: nn.Module, attribute: str) -> None:
    parameter = module._parameters[attribute]
    if parameter.is_meta or is_quantised(parameter):
        kind = "weights that are not in memory" if parameter.is_meta else f"quantised weights ({parameter.dtype})"
        raise WeightsError(
            f"{kind} at {name}",
            "16 or 32 bit floating-point weights",
            "load the checkpoint without quantisation or offloading, or choose low-rank offsets by hooks",
        )


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
        there = self.module._parameters[self.attribute]
        if there.is_meta and not now.is_meta:  # the host threw the whole model away meanwhile
            return
        if now.device != there.device:  # a host that is short of memory moved the layer meanwhile
            now.data = now.data.to(there.device)
        self.module._parameters[self.attribute] = now
        if spare:
            other.data = other.data.to("cpu")


class _Merged(Installed):
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
                    module, attribute = _parameter(modules, name)
                    original = module._parameters[attribute]
                    self._swap_in(module, attribute, copies.merged(name, original, parts, strength))
        except BaseException:
            self._switch(False)  # out of memory half-way: what was swapped goes back
            copies.clear()
            raise
        self.set_active(True)

    def _swap_in(self, module: nn.Module, attribute: str, merged: nn.Parameter) -> None:
        original = module._parameters[attribute]
        swap = _Swap(module, attribute, original, merged)
        self._swaps.append(swap)
        swap.put(True, self._spare)
        if merged.shape != original.shape:
            self._wide = module

    def _switch(self, active: bool) -> None:
        for swap in self._swaps:
            swap.put(active, self._spare)
        while self._handles:
            self._handles.pop().remove()
        if active and self._wide is not None:
            self._handles.append(self._wide.register_forward_pre_hook(self._widen))

    def _widen(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.cat([inputs[0], self._concat.beside(inputs[0])], 1), *inputs[1:])

    def _forget(self) -> None:
        self._swaps.clear()


@dataclass
class _Terms:
    """The offsets of one module as hooks add them: a full and any number of low-rank weights, and a bias."""

    concat: ConcatLatents | None = None
    full: Tensor | None = None
    bias: Tensor | None = None
    low_rank: list[tuple[Tensor, Tensor]] = field(default_factory=list)


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
                terms.low_rank.append((self._scaled(part.up, sample), part.down.to(sample)))
            elif attribute == "weight":
                terms.full = self._scaled(part.diff, sample)
            else:
                terms.bias = self._scaled(part.diff, sample)
        return terms

    def _scaled(self, tensor: Tensor, sample: Tensor) -> Tensor:
        """Scaled in float32: 16-bit offsets of a weak strength would lose their last bits."""
        moved = tensor.to(sample.device)
        return (moved if self.strength == 1 else moved.float() * self.strength).to(sample.dtype)


def _sum(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term


def _linear_effect(module: nn.Module, terms: _Terms, sample: Tensor) -> Tensor | None:
    total = None
    for up, down in terms.low_rank:
        total = _sum(total, F.linear(F.linear(sample, down.flatten(1)), up))
    if terms.full is not None:
        total = _sum(total, F.linear(sample, terms.full))
    return total if terms.bias is None else _sum(total, terms.bias)


def _convolution_effect(module: nn.Conv2d, terms: _Terms, sample: Tensor) -> Tensor | None:
    total = None
    for up, down in terms.low_rank:
        kernel = down.reshape(len(down), -1, *module.kernel_size)
        total = _sum(total, F.conv2d(module._conv_forward(sample, kernel, None), up[:, :, None, None]))
    if terms.full is not None:
        wide = terms.full.shape[1] > sample.shape[1] // module.groups
        seen = torch.cat([sample, terms.concat.beside(sample)], 1) if wide else sample
        total = _sum(total, module._conv_forward(seen, terms.full, None))
    return total if terms.bias is None else _sum(total, terms.bias[:, None, None])


def _group_norm_effect(module: nn.GroupNorm, terms: _Terms, sample: Tensor) -> Tensor:
    weight = torch.zeros_like(module.weight).to(sample) if terms.full is None else terms.full
    return F.group_norm(sample, module.num_groups, weight, terms.bias, module.eps)


def _layer_norm_effect(module: nn.LayerNorm, terms: _Terms, sample: Tensor) -> Tensor:
    weight = torch.zeros_like(module.weight).to(sample) if terms.full is None else terms.full
    return F.layer_norm(sample, module.normalized_shape, weight, terms.bias, module.eps)


Effect = Callable[[nn.Module, _Terms, Tensor], "Tensor | None"]


def _is_linear(module: nn.Module) -> bool:
    """Hosts with their own storage formats bring linear layers of their own, which are no nn.Linear."""
    return hasattr(module, "in_features") and hasattr(module, "out_features")


EFFECTS: dict[str, tuple[Callable[[nn.Module], bool], Effect]] = {
    "Linear": (_is_linear, _linear_effect),
    "Conv2d": (lambda module: isinstance(module, nn.Conv2d), _convolution_effect),
    "GroupNorm": (lambda module: isinstance(module, nn.GroupNorm), _group_norm_effect),
    "LayerNorm": (lambda module: isinstance(module, nn.LayerNorm), _layer_norm_effect),
}


class _Hooked(Installed):
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
            return output + effect(module, source.on(inputs[0]), inputs[0]).to(output.dtype)

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
