"""What differs between pipelines around a UNet and those around Flux's transformer, as one row for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch

from ..core.bases import BASES, TRANSFORMER, UNET
from ..core.stopping import stop_limit, stop_timestep
from .settings import SIZE_STEP, GenerateSettings

PATCH = 2  # places of the latent to a side of one of Flux's tokens
TEXT_TOKENS = {True: 512, False: 256}  # that Flux reads: dev, and schnell without its guidance
# by which dev's schedule is shifted, where a scheduler does not say
DEV = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
NOT_GUIDED = (
    "guidance is not used: the checkpoint has none, as Flux.1 schnell; the layer files were made for Flux.1 dev"
)

IMAGE_TO_IMAGE = {
    "StableDiffusionPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLImg2ImgPipeline",
    "FluxPipeline": "FluxImg2ImgPipeline",
}

Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True)
class Family:
    """How pipelines of a kind are used. `ignored` are settings that it has no use for, and why.

    `arguments` are what a call is told beside prompts, steps and seeds; `latents` are [B,C,h,w] of what it gives;
    `stop` is the time, as the network is told it, at and below which it is the plain one.
    """

    part: str  # the pipeline's attribute that denoises
    size_step: int
    image_steps: Callable[[GenerateSettings], int]  # of the settings' steps, from a start picture
    own_size: Callable[[Any], int]
    arguments: Callable[[Any, GenerateSettings, int], dict[str, Any]]
    latents: Callable[[Any, torch.Tensor, Size], torch.Tensor]
    stop: Callable[[Any, float, Size], float]
    notes: Callable[[Any, GenerateSettings], list[str]] = lambda pipeline, settings: []
    ignored: Mapping[str, str] = field(default_factory=dict)
    takes_controlnet: bool = True

    def network(self, pipeline: Any) -> Any:
        """What denoises."""
        return getattr(pipeline, self.part)


def family_of(base: str) -> Family:
    """The row of a base's pipelines."""
    return FAMILIES[BASES[base].network]


# --- a UNet


def _unet_arguments(pipeline: Any, settings: GenerateSettings, rows: int) -> dict[str, Any]:
    # none rather than empty: SDXL was trained with zeros there, as in the WebUIs
    negative = [settings.negative_prompt] * rows if settings.negative_prompt else None
    return {"guidance_scale": settings.guidance, "negative_prompt": negative}


# --- Flux


def _flux_arguments(pipeline: Any, settings: GenerateSettings, rows: int) -> dict[str, Any]:
    return {"guidance_scale": settings.guidance, "max_sequence_length": TEXT_TOKENS[is_guided(pipeline)]}


def _unpacked(pipeline: Any, tokens: torch.Tensor, size: Size) -> torch.Tensor:
    """Tokens [B,T,4C] -> latents [B,C,h,w]: channels, then the 2x2 places."""
    rows, columns = (side // (pipeline.vae_scale_factor * PATCH) for side in size)
    return torch.nn.functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (rows, columns)), PATCH)


def _flux_stop(pipeline: Any, stop_at: float, size: Size) -> float:
    """The share of noise after a share of the steps."""
    tokens = size[0] * size[1] // (pipeline.vae_scale_factor * PATCH) ** 2
    return stop_limit(stop_at, shifted(pipeline.scheduler, 1 - stop_at, tokens))


def shifted(scheduler: Any, level: float, tokens: int) -> float:
    """An even level of noise as a flow-matching scheduler shifts it: for larger pictures, more of it."""
    config = scheduler.config
    if not config.get("use_dynamic_shifting", False):
        shift = config.get("shift", 1.0)
        return shift * level / (1 + (shift - 1) * level)
    low, high, least, most = (config.get(name, usual) for name, usual in DEV.items())
    moved = least + (most - least) * (tokens - low) / (high - low)
    return 0.0 if level <= 0 else float(scheduler.time_shift(moved, 1.0, torch.tensor(float(level))))


def is_guided(pipeline: Any) -> bool:
    """Whether a Flux pipeline's transformer is told how strong its guidance is."""
    return bool(pipeline.transformer.config.guidance_embeds)


def _flux_notes(pipeline: Any, settings: GenerateSettings) -> list[str]:
    return [] if is_guided(pipeline) else [NOT_GUIDED]


FAMILIES = {
    UNET: Family(
        part="unet",
        size_step=SIZE_STEP,
        image_steps=lambda settings: int(settings.steps * settings.denoise),
        own_size=lambda pipeline: pipeline.unet.config.sample_size * pipeline.vae_scale_factor,
        arguments=_unet_arguments,
        latents=lambda pipeline, latents, size: latents,
        stop=lambda pipeline, stop_at, size: stop_timestep(stop_at),
    ),
    TRANSFORMER: Family(
        part="transformer",
        size_step=2 * SIZE_STEP,
        image_steps=lambda settings: settings.steps - int(settings.steps - settings.steps * settings.denoise),
        own_size=lambda pipeline: pipeline.default_sample_size * pipeline.vae_scale_factor,
        arguments=_flux_arguments,
        latents=_unpacked,
        stop=_flux_stop,
        notes=_flux_notes,
        ignored={"negative_prompt": "Flux is guided without one"},
        takes_controlnet=False,
    ),
}


def image_to_image(pipeline: Any, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The image-to-image pipeline of the same parts, and those of the arguments that it knows."""
    import diffusers

    kind = getattr(diffusers, IMAGE_TO_IMAGE[type(pipeline).__name__])
    known = signature(kind.__init__).parameters
    options = {name: value for name, value in pipeline.config.items() if name in known and not name.startswith("_")}
    made = kind(**{**options, **{name: part for name, part in pipeline.components.items() if name in known}})
    made.set_progress_bar_config(disable=True)
    wanted = signature(made.__call__).parameters
    return made, {name: value for name, value in arguments.items() if name in wanted}
