"""A method on a diffusers UNet for a run: installed, switched off at Stop At, taken off whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.attention_sharing import AttentionSharing, SharingRun, install, unit_paths
from ..core.errors import BaseMismatchError
from ..core.methods import ATTENTION_SHARING, OFFSETS, Method, stop_timestep
from ..core.offset_install import ConcatLatents, merge_offsets, parameter_shapes
from ..core.offsets import OffsetSet, read_offsets
from .ldm_keys import unet_modules

SetActive = Callable[[bool], object]


@dataclass(frozen=True)
class Conditions:
    """What a method sees: latents [1,4 or 8,h,w] in sampler scale, or a control image [1,3,H,W] in [-1,1]."""

    concat: torch.Tensor | None = None
    control: torch.Tensor | None = None


@dataclass(frozen=True)
class Kind:
    """How methods of one kind are read from a file and put on a UNet."""

    read: Callable[[Path, torch.nn.Module, Method], Any]
    put: Callable[[ExitStack, Any, torch.nn.Module, float, Conditions], SetActive]


def _read_offsets(path: Path, unet: torch.nn.Module, method: Method) -> OffsetSet:
    return read_offsets(path, parameter_shapes(unet_modules(unet)))


def _put_offsets(
    stack: ExitStack, offsets: OffsetSet, unet: torch.nn.Module, strength: float, conditions: Conditions
) -> SetActive:
    concat = None if conditions.concat is None else ConcatLatents(conditions.concat)
    return stack.enter_context(merge_offsets(offsets, unet_modules(unet), strength, concat)).set_active


def _read_sharing(path: Path, unet: torch.nn.Module, method: Method) -> AttentionSharing:
    return AttentionSharing.from_file(path, method)


def _put_sharing(
    stack: ExitStack, sharing: AttentionSharing, unet: torch.nn.Module, strength: float, conditions: Conditions
) -> SetActive:
    run = SharingRun()
    if conditions.control is not None:
        run.signals = sharing.signals(conditions.control)
    stack.callback(sharing.release)
    stack.enter_context(install(sharing, sharing_layers(unet), run, strength))
    return lambda active: setattr(run, "active", active)


KINDS: Mapping[str, Kind] = {
    OFFSETS: Kind(_read_offsets, _put_offsets),
    ATTENTION_SHARING: Kind(_read_sharing, _put_sharing),
}


def sharing_layers(unet: torch.nn.Module) -> list[torch.nn.Module]:
    """The attention layers in the order of the published units; BaseMismatchError where the UNet has others."""
    modules = unet_modules(unet)
    missing = [path for path in unit_paths() if path not in modules]
    if missing:
        raise BaseMismatchError(
            f"a UNet without {missing[0]}", "the attention layers of SD1.5", "load an SD1.5 checkpoint for this method"
        )
    return [modules[path] for path in unit_paths()]


def read_method(path: Path, unet: torch.nn.Module, method: Method) -> Any:
    """The weights of a method, checked against the UNet, which is not touched."""
    return KINDS[method.kind].read(path, unet, method)


@contextmanager
def method_on_unet(
    method: Method, weights: Any, unet: torch.nn.Module, strengths: tuple[float, float], conditions: Conditions
) -> Iterator[None]:
    """`weights` on the UNet inside the context, with (weight, stop at); then the UNet is what it was, bit by bit."""
    strength, stop_at = strengths
    with ExitStack() as stack:
        set_active = KINDS[method.kind].put(stack, weights, unet, strength, conditions)
        stop = stop_timestep(stop_at)

        def before_call(_module: torch.nn.Module, inputs: tuple, named: dict[str, Any]) -> None:
            timestep = named["timestep"] if "timestep" in named else inputs[1]
            set_active(float(torch.as_tensor(timestep).flatten()[0]) > stop)

        stack.callback(unet.register_forward_pre_hook(before_call, with_kwargs=True).remove)
        yield
