"""A method on a diffusers UNet for a run: installed, switched off at Stop At, taken off whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ..core.memory import is_roomy
from ..core.methods import Method
from ..core.stopping import stop_timestep
from ..unet.ldm_keys import unet_modules
from ..unet.method_kinds import Conditions, OnUnet, put_method


@contextmanager
def method_on_unet(
    method: Method,
    weights: Any,
    unet: torch.nn.Module,
    strengths: tuple[float, float],
    conditions: Conditions,
    stop: float | None = None,
) -> Iterator[OnUnet]:
    """`weights` on the UNet inside the context, with (weight, stop at); then the UNet is what it was, bit by bit.

    `stop` is the time that "stop at" means, as the network is told it; a UNet's timestep by default.
    """
    strength, stop_at = strengths
    stop = stop_timestep(stop_at) if stop is None else stop
    with ExitStack() as stack:
        on_unet = put_method(stack, method, weights, unet_modules(unet), strength, conditions)
        stack.callback(_rest, weights, unet)

        def before_call(_module: torch.nn.Module, inputs: tuple, named: dict[str, Any]) -> None:
            timestep = named["timestep"] if "timestep" in named else inputs[1]
            on_unet.set_active(float(torch.as_tensor(timestep).flatten()[0]) > stop)

        stack.callback(unet.register_forward_pre_hook(before_call, with_kwargs=True).remove)
        yield on_unet


def _rest(weights: Any, unet: torch.nn.Module) -> None:
    """After a run: what was merged or made ready stays for the next one where there is room."""
    if not is_roomy(next(unet.parameters()).device):
        weights.release()
