"""The text of settings in a PNG, in the form that WebUIs write and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.picture.resize_modes import ResizeMode
from ..files.demo_folder import CONTROLNET
from ..form.arguments import BY_NAME, LayerArguments, to_infotext
from ..form.frames import FRAMES, PROMPT_SETTINGS
from .run_plan import Plan


def parameters_text(plan: Plan, prompt: str, group: int, sampler: str, model: str) -> str:
    """`prompt`, the negative prompt, and a line of settings; the method's under the keys that the WebUI restores.

    All layers of the set of this number tell the seed of the set, and those that layers have of their own: each of
    them brings back the whole.
    """
    settings = plan.settings
    values: dict[str, Any] = {
        "Steps": settings.steps,
        "Sampler": sampler,
        "CFG scale": f"{settings.guidance:g}",
        "Seed": plan.set_seed(group),
        "Size": f"{settings.width}x{settings.height}",
        "Model": model,
    }
    if "init" in plan.images:
        values["Denoising strength"] = f"{settings.denoise:g}"
    values.update(_layer_values(plan) | _layer_seeds(plan, group))
    if "control_image" in plan.images:
        name = Path(settings.controlnet).stem if settings.controlnet else CONTROLNET
        values["ControlNet 0"] = f"Module: none, Model: {name}, Weight: {settings.control_strength:g}"
    values["Version"] = f"sd-webui-layerdiffuse {__version__}"
    lines = [prompt]
    if settings.negative_prompt:
        lines.append(f"Negative prompt: {settings.negative_prompt}")
    return "\n".join([*lines, ", ".join(f"{key}: {_quoted(value)}" for key, value in values.items())])


def _layer_values(plan: Plan) -> dict[str, Any]:
    if plan.method is None:
        return {}
    settings = plan.settings
    return to_infotext(
        LayerArguments(
            enabled=True,
            method=plan.course.id,
            weight=settings.weight,
            ending_step=settings.stop_at,
            resize_mode=ResizeMode.named(settings.resize_mode).value,
            **{argument: getattr(settings, setting) for argument, setting in PROMPT_SETTINGS.items()},
            passes=settings.passes,
            method_file=str(settings.layer_file or ""),
            decoder_file=str(settings.decoder_file or ""),
            encoder_file=str(settings.encoder_file or ""),
        )
    )


def _layer_seeds(plan: Plan, group: int) -> dict[str, int]:
    """The seeds that layers of a set have of their own, by their keys."""
    own = {name: plan.layer_seed(name, group) for name in plan.course.layers}
    return {BY_NAME[FRAMES[name].seed].infotext_key: seed for name, seed in own.items() if seed is not None}


def _quoted(value: Any) -> str:
    """A WebUI quotes values that contain its separators, as JSON strings."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text
