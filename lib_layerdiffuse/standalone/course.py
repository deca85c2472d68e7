"""How the pictures of a run are made, by checked settings and the loaded base: one method, a chain of them, or none."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.bases import BASES
from ..core.errors import InputError
from ..core.methods import Method, check_images, choose_method, find_method, methods_for
from ..form.frames import FRAMES
from ..sets.chains import CHAINS, Chain, Wishes, chain_with, chains_for, find_chain, is_chain, plan_chain
from .families import family_of
from .samplers import samplers_for
from .settings import IMAGE_FIELDS, GenerateSettings, check_no_empty_prompt


@dataclass(frozen=True)
class Course:
    """The method of the first step, and the chain that it belongs to; plain pictures have none of them."""

    method: Method | None = None
    chain: Chain | None = None

    @property
    def id(self) -> str:
        """What it is called by in a text of settings: the chain where several methods work, else the method."""
        if self.chain and self.steps > 1:
            return self.chain.id
        return self.method.id if self.method else ""

    @property
    def later_methods(self) -> tuple[Method, ...]:
        """The methods of all steps but the first."""
        return tuple(step.method_row() for step in self.chain.steps[1:]) if self.chain else ()

    @property
    def images(self) -> tuple[str, ...]:
        """The layers that the user must give."""
        if self.chain:
            return self.chain.images
        return self.method.images if self.method else ()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that may have a prompt and a seed of their own."""
        return self.chain.makes if self.chain else ()

    @property
    def steps(self) -> int:
        """How many methods work one after the other."""
        return len(self.chain.steps) if self.chain else 1


def checked_course(settings: GenerateSettings, base: str) -> Course:
    """How validated `settings` are carried out on `base`; typed errors that need no model."""
    if settings.sampler is not None and settings.sampler not in samplers_for(base):
        known = ", ".join(samplers_for(base))
        raise InputError(
            f"sampler {settings.sampler!r}", f"one of {known} with {BASES[base].title}", "choose one of these"
        )
    check_control(settings, base)
    course = _course(settings, base)
    given = [name for name in IMAGE_FIELDS if getattr(settings, name) is not None]
    if course.chain is not None:
        for prompt in settings.prompts:
            plan_chain(course.chain, wishes_of(settings, prompt, given))
        _check_one_file(settings, course)
        return course
    check_no_empty_prompt(settings.prompts)
    if course.method is not None:
        check_images(course.method, given)
    return course


def chosen_chain(settings: GenerateSettings, base: str) -> Chain | None:
    """The chain that is named, as such or as a method, or the only way in which a base has a mode; None for none."""
    if settings.chain is not None:
        named, method = find_chain(base, settings.chain), chosen_method(settings)
        return named if method is None else chain_with(named, method)
    if settings.method is not None and is_chain(settings.method):
        return find_chain(base, settings.method)
    if settings.method is not None or methods_for(base, settings.mode):
        return None
    return next((chain for chain in chains_for(base) if chain.name == settings.mode), None)


def chosen_method(settings: GenerateSettings) -> str | None:
    """The id of the single method that settings name; None for none, or a chain."""
    return None if settings.method is None or is_chain(settings.method) else find_method(settings.method).id


def wishes_of(settings: GenerateSettings, prompt: str, given: list[str]) -> Wishes:
    """What settings ask of a chain, for one of their prompts."""
    return Wishes(
        prompt,
        settings.seed,
        [name for name in given if name in FRAMES],
        {name: getattr(settings, frame.prompt_setting) for name, frame in FRAMES.items()},
        {name: getattr(settings, frame.seed_setting) for name, frame in FRAMES.items()},
    )


def check_control(settings: GenerateSettings, base: str) -> None:
    """InputError for a ControlNet without a picture to follow, a picture without one, or a base that takes none."""
    if settings.control_image is not None and not family_of(base).takes_controlnet:
        raise InputError(f"a control image with {BASES[base].title}", "a base with a UNet", "leave it out")
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


def _course(settings: GenerateSettings, base: str) -> Course:
    if not settings.transparent:
        return Course()
    chain = chosen_chain(settings, base)
    if chain is None:
        method = choose_method(base, settings.mode, settings.method)
        return Course(method, CHAINS.get(method.id))
    return Course(chain.steps[0].method_row(), chain)


def _check_one_file(settings: GenerateSettings, course: Course) -> None:
    if settings.layer_file and course.steps > 1:
        raise InputError(
            f"one layer file for the {course.steps} methods of chain {course.id}",
            "the usual files",
            "leave it out, or make the layers one by one by their methods",
        )
