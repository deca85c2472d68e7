"""Everything about a run that can be decided, and refused, before the model works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..core.bases import BASES
from ..core.errors import InputError
from ..core.memory import free_bytes
from ..core.methods import Method
from ..diagnosis.facts import USUAL_GUIDANCE
from ..form.frames import FRAMES
from ..sets.chains import counted, plan_chain
from ..unet.images import read_image
from .course import Course, checked_course, wishes_of
from .families import Family, family_of
from .settings import FILE_FIELDS, IMAGE_FIELDS, CompleteSettings, GenerateSettings

VAE_TENSORS = 3  # full-size activations that a VAE's decoder holds at once: input, output and one between


@dataclass(frozen=True)
class Job:
    """One passage of the pipeline: rows are (group, frame) of one prompt, groups whole."""

    prompt: str
    prompts: tuple[str, ...]  # one a row, with the frames' extra words
    seeds: tuple[int, ...]
    first_group: int
    first_set: int = 0  # counted over all prompts

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Plan:
    """A checked run: complete settings, the method (None: plain pictures), opened images, and notes for the user.

    Of a chain it is one step, the first one at first; `made` are the layers of earlier steps, one a set.
    """

    settings: CompleteSettings
    method: Method | None
    images: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    course: Course = field(default_factory=Course)
    step: int = 0
    made: Mapping[str, Sequence[Image.Image]] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Pictures a result."""
        return len(self.method.frames) if self.method else 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.settings.height, self.settings.width

    @property
    def texts(self) -> list[str]:
        """All prompts that say something, those of layers too."""
        own = (getattr(self.settings, FRAMES[name].prompt_setting).strip() for name in self.course.layers)
        return [text for text in (*self.settings.prompts, *own) if text]

    @property
    def named_frames(self) -> bool:
        """Whether a picture is a layer that has a name."""
        return self.course.chain is not None or self.frames > 1

    def at_step(self, step: int, made: Mapping[str, Sequence[Image.Image]]) -> Plan:
        """The plan of a step of the chain, with what was made so far; images of one's own go into the first alone."""
        if step == 0:
            return self
        images = {name: image for name, image in self.images.items() if name in FRAMES}
        return replace(self, method=self.course.later_methods[step - 1], step=step, images=images, made=made)

    def jobs(self) -> list[Job]:
        """All passages, in order of prompt and group."""
        return [job for place, prompt in enumerate(self.settings.prompts) for job in self._jobs_of(place, prompt)]

    def set_seed(self, group: int) -> int:
        """The seed of the set of this number of a prompt."""
        return counted(self.settings.seed, group * self.frames)

    def layer_seed(self, frame: str, group: int) -> int | None:
        """The seed that a layer has of its own in the set of this number; None for that of the set."""
        own = getattr(self.settings, FRAMES[frame].seed_setting) if frame in self.course.layers else -1
        return None if own < 0 else counted(own, group * self.frames)

    def _jobs_of(self, place: int, prompt: str) -> Iterator[Job]:
        settings = self.settings
        prompts, seeds_of = (prompt,), lambda group: (self.set_seed(group),)
        if self.course.chain:
            planned = plan_chain(self.course.chain, wishes_of(settings, prompt, list(self.course.images)))[self.step]
            prompts, seeds_of = planned.prompts, planned.seeds_of
        for first in range(0, settings.count, settings.batch):
            groups = range(first, min(first + settings.batch, settings.count))
            seeds = tuple(seed for group in groups for seed in seeds_of(group))
            yield Job(prompt, prompts * len(groups), seeds, first, place * settings.count + first)


def make_plan(settings: GenerateSettings, base: str, pipeline: Any) -> Plan:
    """The plan of validated `settings` on a pipeline of `base`; a typed error for whatever cannot work."""
    course = checked_course(settings, base)
    given = [name for name in IMAGE_FIELDS if getattr(settings, name) is not None]
    family, told = family_of(base), []
    complete = with_defaults(on_grid(settings, base, told), base, pipeline)
    check_memory(complete, pipeline)
    wanted = {"init", "control_image", *course.images}
    size = (complete.height, complete.width)
    opened = {name: read_image(getattr(settings, name), name, size) for name in given if name in wanted}
    notes = [note for image in opened.values() for note in image.notes]
    notes += told + size_notes(complete, base, own_size(base, pipeline)) + family.notes(pipeline, complete)
    notes += unused_notes(settings, complete, course, list(opened)) + ignored_notes(settings, family)
    return Plan(complete, course.method, {name: image.rgba for name, image in opened.items()}, notes, course)


@dataclass(frozen=True)
class Unused:
    """Settings that change nothing where `holds(settings, course, names of the images in use)`, and why."""

    names: tuple[str, ...]
    holds: Callable[[CompleteSettings, Course, Sequence[str]], bool]
    reason: str


UNUSED = (
    *(
        Unused(
            (frame,), lambda settings, course, used, frame=frame: frame not in used, "the method takes no such image"
        )
        for frame in FRAMES
    ),
    *(
        Unused(
            (frame.prompt_setting, frame.seed_setting),
            lambda settings, course, used, name=name: name not in course.layers,
            "the method has no such layer with a prompt and a seed of its own",
        )
        for name, frame in FRAMES.items()
    ),
    Unused(
        ("mode", "method", "chain", "weight", "stop_at", "passes", "clear_haze", "hidden_colours", *FILE_FIELDS),
        lambda settings, course, used: course.method is None,
        "a plain picture has no method",
    ),
    Unused(
        ("mode",),
        lambda settings, course, used: course.method is not None and settings.chain is not None,
        "a chain was chosen",
    ),
    Unused(("denoise",), lambda settings, course, used: "init" not in used, "there is no image to start from"),
    Unused(
        ("control_strength", "draw_lines"),
        lambda settings, course, used: "control_image" not in used,
        "there is no control image",
    ),
    Unused(("resize_mode",), lambda settings, course, used: not used, "there is no image to bring to size"),
    Unused(
        ("negative_prompt",),
        lambda settings, course, used: settings.guidance <= 1,
        "with a guidance of 1 or less the model does not look at it",
    ),
)


def unused_notes(
    settings: GenerateSettings, complete: CompleteSettings, course: Course, used: Sequence[str]
) -> list[str]:
    """A note on each setting that was chosen and changes nothing."""
    usual = {field.name: field.default for field in fields(settings)}
    return [
        f"{name} is not used: {row.reason}"
        for row in UNUSED
        for name in row.names
        if row.holds(complete, course, used) and getattr(settings, name) not in (usual[name], None)
    ]


def ignored_notes(settings: GenerateSettings, family: Family) -> list[str]:
    """A note on each setting that was chosen and that such models have no use for."""
    return [f"{name} is not used: {reason}" for name, reason in family.ignored.items() if getattr(settings, name)]


def own_size(base: str, pipeline: Any) -> int:
    """Pixels of a side of the pictures that a model was trained on."""
    return family_of(base).own_size(pipeline)


def on_grid(settings: GenerateSettings, base: str, notes: list[str]) -> GenerateSettings:
    """The settings with sides in steps that the base has, and a note on what changed."""
    step = family_of(base).size_step
    changed = {}
    for name in ("width", "height"):
        value = getattr(settings, name)
        if value is not None and value % step:
            changed[name] = -(-value // step) * step
            notes.append(f"{name} {value} rounded up to {changed[name]}: {BASES[base].title} works in steps of {step}")
    return replace(settings, **changed)


# how much larger or smaller than its own a base bears, in pixels of the whole picture
SIZE_BOUNDS = {"demo": (1.0, 1.0), "sd15": (0.4, 2.5), "sdxl": (0.4, 2.5), "flux": (0.25, 2.0)}


def size_notes(settings: CompleteSettings, base: str, own: int) -> list[str]:
    """A note on a size that the model has not learned."""
    low, high = SIZE_BOUNDS[base]
    share = settings.width * settings.height / own**2
    if low <= share <= high and (low != high or settings.width == settings.height):
        return []
    return [f"the model learned {own}x{own}; at {settings.width}x{settings.height} it may paint things twice, or mush"]


def with_defaults(settings: GenerateSettings, base: str, pipeline: Any) -> CompleteSettings:
    """`settings` with the model's own size and guidance where none are chosen, and no more passes than are any good."""
    own = own_size(base, pipeline)
    completed = {
        "width": settings.width or own,
        "height": settings.height or own,
        "guidance": USUAL_GUIDANCE[base] if settings.guidance is None else settings.guidance,
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
