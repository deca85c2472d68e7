"""Everything about a run that can be decided, and refused, before the model works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch

from ..core.errors import InputError
from ..core.memory import free_bytes
from ..core.methods import BASES, Method, check_images, choose_method, frame_prompts
from ..form.frames import FRAMES
from ..unet.images import read_image
from .samplers import SAMPLERS
from .settings import FILE_FIELDS, IMAGE_FIELDS, MAX_SEED, CompleteSettings, GenerateSettings

GUIDANCE = {"demo": 2.0, "sd15": 7.0, "sdxl": 7.0}
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

    settings: CompleteSettings
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
        extra = {name: getattr(settings, frame.prompt_setting) for name, frame in FRAMES.items()}
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
    check_control(settings, base)
    if not settings.transparent:
        return None
    method = choose_method(base, settings.mode, settings.method)
    check_images(method, [name for name in IMAGE_FIELDS if getattr(settings, name) is not None])
    return method


def check_control(settings: GenerateSettings, base: str) -> None:
    """InputError for a ControlNet without a picture to follow, or a picture without a ControlNet."""
    if settings.controlnet is not None and settings.control_image is None:
        raise InputError(
            f"ControlNet {settings.controlnet} without a picture", "what it shall follow", "name --control-image FILE"
        )
    if settings.control_image is not None and settings.controlnet is None and base != "demo":
        raise InputError(
            "a control image without a ControlNet",
            f"a ControlNet for {BASES[base].title} (only the demo model has one of its own)",
            "name --controlnet FILE",
        )


def make_plan(settings: GenerateSettings, base: str, pipeline: Any) -> Plan:
    """The plan of validated `settings` on a pipeline of `base`; a typed error for whatever cannot work."""
    method = checked_method(settings, base)
    given = [name for name in IMAGE_FIELDS if getattr(settings, name) is not None]
    complete = with_defaults(settings, base, pipeline)
    check_memory(complete, pipeline)
    wanted = {"init", "control_image", *(method.images if method else ())}
    size = (complete.height, complete.width)
    opened = {name: read_image(getattr(settings, name), name, size) for name in given if name in wanted}
    notes = [note for image in opened.values() for note in image.notes]
    notes += size_notes(complete, base, own_size(pipeline)) + unused_notes(settings, complete, method, list(opened))
    return Plan(complete, method, {name: image.rgba for name, image in opened.items()}, notes)


@dataclass(frozen=True)
class Unused:
    """Settings that change nothing where `holds(settings, method, names of the images in use)`, and why."""

    names: tuple[str, ...]
    holds: Callable[[CompleteSettings, Method | None, Sequence[str]], bool]
    reason: str


UNUSED = (
    *(
        Unused(
            (frame,), lambda settings, method, used, frame=frame: frame not in used, "the method takes no such image"
        )
        for frame in FRAMES
    ),
    *(
        Unused(
            (frame.prompt_setting,),
            lambda settings, method, used, name=name: method is None or name not in method.extra_prompts,
            "the method has no such layer with a prompt of its own",
        )
        for name, frame in FRAMES.items()
    ),
    Unused(
        ("mode", "method", "weight", "stop_at", "passes", "clear_haze", "hidden_colours", *FILE_FIELDS),
        lambda settings, method, used: method is None,
        "a plain picture has no method",
    ),
    Unused(("denoise",), lambda settings, method, used: "init" not in used, "there is no image to start from"),
    Unused(
        ("control_strength", "draw_lines"),
        lambda settings, method, used: "control_image" not in used,
        "there is no control image",
    ),
    Unused(("resize_mode",), lambda settings, method, used: not used, "there is no image to bring to size"),
    Unused(
        ("negative_prompt",),
        lambda settings, method, used: settings.guidance <= 1,
        "with a guidance of 1 or less the model does not look at it",
    ),
)


def unused_notes(
    settings: GenerateSettings, complete: CompleteSettings, method: Method | None, used: Sequence[str]
) -> list[str]:
    """A note on each setting that was chosen and changes nothing."""
    usual = {field.name: field.default for field in fields(settings)}
    return [
        f"{name} is not used: {row.reason}"
        for row in UNUSED
        for name in row.names
        if row.holds(complete, method, used) and getattr(settings, name) not in (usual[name], None)
    ]


def own_size(pipeline: Any) -> int:
    """Pixels of a side of the pictures that a model was trained on."""
    return pipeline.unet.config.sample_size * pipeline.vae_scale_factor


# how much larger or smaller than its own a base bears, in pixels of the whole picture
SIZE_BOUNDS = {"demo": (1.0, 1.0), "sd15": (0.4, 2.5), "sdxl": (0.4, 2.5)}


def size_notes(settings: CompleteSettings, base: str, own: int) -> list[str]:
    """A note on a size that the model has not learned."""
    low, high = SIZE_BOUNDS[base]
    share = settings.width * settings.height / own**2
    if low <= share <= high and (low != high or settings.width == settings.height):
        return []
    return [f"the model learned {own}x{own}; at {settings.width}x{settings.height} it may paint things twice, or mush"]


def with_defaults(settings: GenerateSettings, base: str, pipeline: Any) -> CompleteSettings:
    """`settings` with the model's own size and guidance where none are chosen, and no more passes than are any good."""
    own = own_size(pipeline)
    completed = {
        "width": settings.width or own,
        "height": settings.height or own,
        "guidance": GUIDANCE[base] if settings.guidance is None else settings.guidance,
        "passes": min(settings.passes, BASES[base].orientations),
    }
    return CompleteSettings(**{field.name: getattr(settings, field.name) for field in fields(settings)} | completed)


def check_memory(settings: CompleteSettings, pipeline: Any) -> None:
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
