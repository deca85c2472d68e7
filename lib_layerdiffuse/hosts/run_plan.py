"""Everything about a run that can be decided, and refused, before the model works."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..core.errors import InputError
from ..core.memory import free_bytes
from ..core.methods import BASES, Method, check_images, choose_method, frame_prompts
from ..settings import IMAGE_FIELDS, MAX_SEED, GenerateSettings
from .images import alpha_notes, open_image
from .samplers import SAMPLERS

GUIDANCE = {"demo": 1.5, "sd15": 7.0, "sdxl": 7.0}
VAE_TENSORS = 3  # full-size activations that a VAE's decoder holds at once: input, output and one between


@dataclass(frozen=True)
class Job:
    """One passage of the pipeline: rows are (group, frame) of one prompt, groups whole."""

    prompt: str
    prompts: tuple[str, ...]  # one a row, with the frames' extra words
    seeds: tuple[int, ...]
    first_group: int

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Plan:
    """A checked run: complete settings, the method (None: plain pictures), opened images, and notes for the user."""

    settings: GenerateSettings
    method: Method | None
    images: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """Pictures a result."""
        return len(self.method.frames) if self.method else 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.settings.height, self.settings.width

    def jobs(self) -> list[Job]:
        """All passages, in order of prompt and group."""
        return [job for prompt in self.settings.prompts for job in self._jobs_of(prompt)]

    def _jobs_of(self, prompt: str) -> Iterator[Job]:
        settings = self.settings
        extra = {name: getattr(settings, f"{name}_prompt") for name in ("foreground", "background", "blended")}
        rows = frame_prompts(self.method, prompt, extra) if self.method else (prompt,)
        for first in range(0, settings.count, settings.batch):
            groups = min(settings.batch, settings.count - first)
            start = settings.seed + first * self.frames
            seeds = tuple((start + row) % (MAX_SEED + 1) for row in range(groups * self.frames))
            yield Job(prompt, rows * groups, seeds, first)


def checked_method(settings: GenerateSettings, base: str) -> Method | None:
    """The method of validated `settings` on `base`, None for plain pictures; typed errors that need no model."""
    if settings.sampler is not None and settings.sampler not in SAMPLERS:
        raise InputError(f"sampler {settings.sampler!r}", f"one of {', '.join(SAMPLERS)}", "choose one of these")
    if not settings.transparent:
        return None
    method = choose_method(base, settings.mode, settings.method)
    check_images(method, [name for name in IMAGE_FIELDS if getattr(settings, name) is not None])
    return method


def make_plan(settings: GenerateSettings, base: str, pipeline: Any) -> Plan:
    """The plan of validated `settings` on a pipeline of `base`; a typed error for whatever cannot work."""
    method = checked_method(settings, base)
    given = [name for name in IMAGE_FIELDS if getattr(settings, name) is not None]
    settings = with_defaults(settings, base, pipeline)
    check_memory(settings, pipeline)
    wanted = {"init", *(method.images if method else ())}
    images = {name: open_image(getattr(settings, name), name) for name in given if name in wanted}
    notes = [note for name, rgba in images.items() for note in alpha_notes(rgba, name)]
    notes += [f"the {name} image is not used by this method" for name in given if name not in wanted]
    return Plan(settings, method, images, notes)


def with_defaults(settings: GenerateSettings, base: str, pipeline: Any) -> GenerateSettings:
    """`settings` with the model's own size and guidance where none are chosen, and no more passes than are any good."""
    own = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return replace(
        settings,
        width=settings.width or own,
        height=settings.height or own,
        guidance=GUIDANCE[base] if settings.guidance is None else settings.guidance,
        passes=min(settings.passes, BASES[base].orientations),
    )


def check_memory(settings: GenerateSettings, pipeline: Any) -> None:
    """InputError when one picture of this size cannot fit into the memory at hand, by a low estimate."""
    widest = pipeline.vae.config.block_out_channels[0]
    value = torch.empty(0, dtype=pipeline.vae.dtype).element_size()
    needed = settings.width * settings.height * widest * value * VAE_TENSORS
    free = free_bytes(pipeline.device)
    if needed > free:
        raise InputError(
            f"a size of {settings.width}x{settings.height}, which needs at least {needed / 2**30:.1f} GiB",
            f"at most the {free / 2**30:.1f} GiB of memory at hand",
            "choose a smaller --size",
        )
