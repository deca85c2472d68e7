"""The diagnosis of a run of the diffusers host: its facts, and its pictures' alpha."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..core.picture.verdicts import AlphaFigures
from ..diagnosis.diagnosis import Case, Diagnosis, diagnose
from ..diagnosis.facts import Facts
from .run_plan import Plan

if TYPE_CHECKING:
    from .pictures import Picture


def diagnosis_of(
    model: Facts, plan: Plan, pictures: Iterable[Picture], drift: Callable[[], float | None]
) -> Diagnosis | None:
    """Why pictures of a run have no alpha worth the name; None where all of them have. `model` is what was loaded."""
    facts = facts_of(model, plan)
    cases = [
        Case(AlphaFigures.of(picture.image), replace(facts, prompt=f"{picture.prompt} {picture.layer_prompt}"))
        for picture in pictures
        if picture.transparent
    ]
    return diagnose(cases, drift)


def facts_of(model: Facts, plan: Plan) -> Facts:
    """What a run did with the loaded model, but for the words of its pictures."""
    settings, start = plan.settings, plan.images.get("init")
    return replace(
        model,
        weight=settings.weight,
        stop_at=settings.stop_at,
        guidance=settings.guidance,
        steps=settings.steps,
        sampler=settings.sampler or "",
        method_file=str(settings.layer_file or ""),
        decoder_file=str(settings.decoder_file or ""),
        start_alpha=None if start is None else AlphaFigures.of(start).opaque,
        denoise=settings.denoise,
    )
