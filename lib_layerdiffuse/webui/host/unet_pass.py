"""A method on a WebUI's UNet for one pass of sampling: put on inside the sampler call, taken off whatever happens."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...core.errors import InputError, LayerDiffuseError, unforeseen
from ...core.memory import is_out_of_memory
from ...core.methods import Method
from ...core.picture.boxes import Box, find_box
from ...unet.method_kinds import Conditions, OnUnet, needs_all_tokens, put_method
from .host import WebuiHost
from .row_map import RowMap

logger = logging.getLogger(__name__)

TIMESTEP_NAMES = ("timesteps", "timestep", "t")
ADVICE = "switch off the script that samples in tiles (MultiDiffusion, Tiled Diffusion, DemoFusion)"
ROW_NAMES = ("context", "y", *TIMESTEP_NAMES)


@dataclass(frozen=True)
class MethodRun:
    """What to put on the UNet: a row of the method table, its weights, and the two sliders."""

    method: Method
    weights: Any
    weight: float
    stop_at: float


class UnetPass:
    """The method on the UNet; a context manager. LayerDiffuseErrors come out of the sampling where it cannot go on."""

    def __init__(self, host: WebuiHost, run: MethodRun, conditions: Conditions):
        self.host, self.run, self.conditions = host, run, conditions
        self.rows = RowMap(len(run.method.frames))
        self.unet: nn.Module | None = None
        self.steps = self.calls = 0  # denoising steps that the WebUI announced, and calls of the UNet that came
        self._stack: ExitStack | None = None  # undoes all of it
        self._method: ExitStack | None = None  # undoes the method only, while our hooks stay
        self._order: list[int] | None = None
        self.suppressed: list[str] = []  # whose functions have no effect beside the method
        self.whole: torch.Tensor | None = None  # [B,4,H,W] that the step at hand denoises, maybe in tiles
        self._boxes: dict[Box, None] = {}  # of tiles seen before

    def __enter__(self) -> UnetPass:
        try:
            self._put_on(self.host)
        except LayerDiffuseError:
            raise
        except Exception as error:  # the WebUI would show the bare text of it in place of a message
            logger.exception("the method could not be put on the UNet")
            raise no_memory(error) if is_out_of_memory(error) else unforeseen(error) from error
        return self

    def __exit__(self, *_exception: object) -> None:
        self.remove()

    def follow(self, host: WebuiHost) -> None:
        """Move to the UNet that is loaded now, if a refiner or the like replaced it or its weights."""
        if host.unet is self.unet and self._method is not None:
            return
        self.remove()
        self._put_on(host)

    def begin_step(self, parameters: Any) -> None:
        """The WebUI's on_cfg_denoiser: what the step at hand denoises, and the rows of its UNet calls."""
        self.steps += 1
        self.whole = parameters.x
        if self.rows.frames > 1 or self._sees_own:
            self.rows.begin_step(self.host.rows_of_step(parameters))

    @property
    def _sees_own(self) -> bool:
        """Whether each picture of the batch sees one of its own."""
        return self.conditions.concat is not None and len(self.conditions.concat) > 1

    def _put_on(self, host: WebuiHost) -> None:
        self.host, self.unet = host, host.unet
        with ExitStack() as stack:
            if needs_all_tokens(self.run.method):
                host.plain_attention()
            modules = dict(host.unet.named_modules())
            host.settle(modules.values())
            method = stack.enter_context(ExitStack())
            on_unet = put_method(method, self.run.method, self.run.weights, modules, self.run.weight, self.conditions)
            self.suppressed = [*on_unet.suppressed]
            for handle in self._hooks(host.unet, on_unet):
                stack.callback(handle.remove)
            self._method, self._stack = method, stack.pop_all()

    def _hooks(self, unet: nn.Module, on_unet: OnUnet) -> list[torch.utils.hooks.RemovableHandle]:
        stop = self.host.stop_time(self.run.stop_at)

        def before(_unet: nn.Module, inputs: tuple, named: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            self.calls += 1
            if self._method is not None:
                active = timestep_of(inputs, named) > stop
                on_unet.set_active(active)
                if active and named.get("transformer_options") is not None:
                    named = {**named, "transformer_options": on_unet.adopt(named["transformer_options"])}
                if active and on_unet.set_boxes is not None and self.whole is not None:
                    on_unet.set_boxes(self._parts(inputs[0], self.whole), (self.whole.shape[-2], self.whole.shape[-1]))
            if on_unet.set_pictures is not None:
                on_unet.set_pictures(self.rows.pictures(len(inputs[0])))
            self._order = self.rows.order(len(inputs[0])) if self.rows.frames > 1 else None
            return (inputs, named) if self._order is None else reordered(inputs, named, self._order)

        def after(_unet: nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor | None:
            return None if self._order is None else output[torch.tensor(self._order).argsort().to(output.device)]

        return [
            unet.register_forward_pre_hook(before, with_kwargs=True),
            unet.register_forward_hook(after),
            unet._register_load_state_dict_pre_hook(self._before_loading),
        ]

    def _parts(self, rows: torch.Tensor, wholes: torch.Tensor) -> list[Box] | None:
        """Which part of the wholes [B,4,H,W] each row [C,h,w] of a UNet call is; None where all are whole."""
        if rows.shape[-2:] == wholes.shape[-2:]:
            return None
        if self.rows.rows:
            raise in_tiles("prompts joined by AND", "one prompt", "use no AND in this prompt")
        boxes = [find_box(row, wholes, self._boxes) for row in rows]
        found = [box for box in boxes if box is not None]
        if len(found) < len(boxes):
            raise in_tiles(
                f"a part of {rows.shape[-1]}x{rows.shape[-2]} that was not cut from the picture", "plain tiles", ADVICE
            )
        self._boxes.update(dict.fromkeys(found))
        return found

    def _before_loading(self, *_arguments: object) -> None:
        """Another checkpoint is about to be read into these very modules: ours must not be what it overwrites."""
        method, self._method = self._method, None
        if method is not None:
            method.close()

    def remove(self) -> None:
        """Give the plain UNet back; safe to call again."""
        stack, self._stack, self._method = self._stack, None, None
        if stack is not None:
            stack.close()


def in_tiles(got: str, expected: str, advice: str) -> InputError:
    """The message where the pictures that a method sees cannot be cut as a tiled sampler cuts its own."""
    return InputError(f"{got}, in tiled diffusion with a method that sees pictures", expected, advice)


def no_memory(error: Exception) -> InputError:
    """The message where the method's weights do not fit beside the checkpoint."""
    return InputError(
        f"too little memory for the method's weights ({str(error).splitlines()[0]})",
        "room beside the checkpoint",
        "close what else uses the graphics card, start the WebUI with --medvram, or take a smaller picture",
    )


def timestep_of(inputs: tuple, named: dict[str, Any]) -> float:
    """The timestep of a UNet call, by place or by name."""
    value = inputs[1] if len(inputs) > 1 else next(named[name] for name in TIMESTEP_NAMES if name in named)
    return float(torch.as_tensor(value).flatten()[0])


def reordered(inputs: tuple, named: dict[str, Any], order: list[int]) -> tuple[tuple, dict[str, Any]]:
    """The same UNet call with its rows in another order."""

    def turn(value: Any) -> Any:
        rows = isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == len(order)
        return value[order] if rows else value

    return (
        tuple(turn(value) for value in inputs),
        {name: turn(value) if name in ROW_NAMES else value for name, value in named.items()},
    )
