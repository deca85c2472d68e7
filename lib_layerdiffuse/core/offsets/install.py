"""Offsets on a live model, reversibly: merged into swapped parameters, or added to outputs by forward hooks.

Both take a mapping from LDM module paths to modules (`dict(unet.named_modules())` for an LDM UNet), so that any host
can offer its own tree. Merging costs nothing per step and a second copy of the touched parameters; hooks keep
low-rank offsets low-rank, leave every parameter alone and so live with anything else that edits weights.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..errors import InputError, WeightsError
from .hooking import Hooked
from .installed import ConcatLatents, Installed, parameter_at, parameter_of
from .merging import Merged, MergedCopies
from .offsets import OffsetSet, checked_offsets, is_quantised, plain_shape

__all__ = [
    "ConcatLatents",
    "MergedCopies",
    "can_merge",
    "hook_offsets",
    "merge_offsets",
    "merged_bytes",
    "parameter_shapes",
]


def parameter_shapes(modules: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights and biases of a tree {path: module}; for a quantised layer its plain shape."""
    shapes = {}
    for path, module in modules.items():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                shape = plain_shape(module, parameter) if name == "weight" else tuple(parameter.shape)
                shapes[f"{path}.{name}" if path else name] = shape
    return shapes


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
        _refuse_quantised(name, *parameter_of(modules, name))
    return Merged(offsets, modules, (strength, copies or MergedCopies()), concat, spare)


def can_merge(offsets: OffsetSet, modules: Mapping[str, nn.Module]) -> bool:
    """Whether all touched parameters are plain floating-point numbers in memory."""
    parameters = _touched(offsets, modules)
    return not any(parameter.is_meta or is_quantised(parameter) for parameter in parameters)


def merged_bytes(offsets: OffsetSet, modules: Mapping[str, nn.Module]) -> int:
    """Size of a second copy of all touched parameters."""
    return sum(parameter.nbytes for parameter in _touched(offsets, modules))


def _touched(offsets: OffsetSet, modules: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    return [parameter_at(*parameter_of(modules, name)) for name in offsets.entries]


def hook_offsets(
    offsets: OffsetSet, modules: Mapping[str, nn.Module], strength: float = 1.0, concat: ConcatLatents | None = None
) -> Installed:
    """Add the effect of offsets to the outputs of `modules` by forward hooks. Strength 0 touches nothing."""
    offsets = _prepared(offsets, modules, strength, concat)
    return Hooked(offsets, modules, strength, concat)


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


def _refuse_quantised(name: str, module: nn.Module, attribute: str) -> None:
    parameter = parameter_at(module, attribute)
    if parameter.is_meta or is_quantised(parameter):
        kind = "weights that are not in memory" if parameter.is_meta else f"quantised weights ({parameter.dtype})"
        raise WeightsError(
            f"{kind} at {name}",
            "16 or 32 bit floating-point weights",
            "load the checkpoint without quantisation or offloading, or choose low-rank offsets by hooks",
        )
