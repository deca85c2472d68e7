"""Finding out why a job gives no alpha: short runs of it, in each of which one thing is otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from ..core.picture.verdicts import AlphaFigures, Verdict
from ..diagnosis.causes import FEW_STEPS
from ..diagnosis.diagnosis import Case
from ..diagnosis.facts import Facts
from ..diagnosis.words import without_place
from .pictures import Pictures, Watchers
from .settings import FILE_FIELDS, GenerateSettings

if TYPE_CHECKING:
    from .diffusers_host import DiffusersHost

STEPS, PICTURES = 12, 2  # of a short run
USUAL_STEPS = 20
GREY = "plain grey background"
Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """A row: what is otherwise, and the settings that change; None where that is no change in this job."""

    name: str
    changes: Callable[[GenerateSettings, Facts], Changes | None]


@dataclass(frozen=True)
class Finding:
    """A short run: its trial, what of its pictures failed how, the figures of each, and the pictures."""

    name: str
    figures: tuple[AlphaFigures, ...]
    verdicts: tuple[Verdict | None, ...]
    pictures: Pictures

    @property
    def failed(self) -> int:
        """How many pictures failed."""
        return sum(verdict is not None for verdict in self.verdicts)

    def __str__(self) -> str:
        said = ", ".join(dict.fromkeys(verdict.name for verdict in self.verdicts if verdict)) or "fine"
        return f"{self.name}: {said}; " + " | ".join(map(str, self.figures))


def as_it_was(settings: GenerateSettings, facts: Facts) -> Changes | None:
    return {}


def full_method(settings: GenerateSettings, facts: Facts) -> Changes | None:
    return None if settings.weight == settings.stop_at == 1 else {"weight": 1.0, "stop_at": 1.0}


def usual_files(settings: GenerateSettings, facts: Facts) -> Changes | None:
    return dict.fromkeys(FILE_FIELDS) if any(getattr(settings, name) for name in FILE_FIELDS) else None


def usual_guidance(settings: GenerateSettings, facts: Facts) -> Changes | None:
    return None if settings.guidance in (None, facts.usual_guidance) else {"guidance": facts.usual_guidance}


def more_steps(settings: GenerateSettings, facts: Facts) -> Changes | None:
    return {"steps": USUAL_STEPS} if settings.steps < FEW_STEPS else None


def other_sampler(settings: GenerateSettings, facts: Facts) -> Changes | None:
    if facts.base == "flux":
        return None
    return {"sampler": "euler" if settings.sampler != "euler" else "ddim"}


def grey_background(settings: GenerateSettings, facts: Facts) -> Changes | None:
    return {"prompt": tuple(f"{prompt}, {GREY}" for prompt in settings.prompts)}


def no_scene(settings: GenerateSettings, facts: Facts) -> Changes | None:
    left = tuple(map(without_place, settings.prompts))
    return {"prompt": left} if all(left) and left != settings.prompts else None


def no_start(settings: GenerateSettings, facts: Facts) -> Changes | None:
    return None if settings.init is None else {"init": None}


TRIALS = (
    Trial("as it was", as_it_was),
    Trial("Weight and Stop At 1", full_method),
    Trial("the usual files", usual_files),
    Trial("the usual guidance", usual_guidance),
    Trial("20 steps", more_steps),
    Trial("another sampler", other_sampler),
    Trial(GREY, grey_background),
    Trial("no scene in the prompt", no_scene),
    Trial("no start picture", no_start),
)


def find_out(host: DiffusersHost, settings: GenerateSettings, watchers: Watchers) -> list[Finding]:
    """The short runs of validated settings, one for each trial that changes them; fewer when stopped.

    InputError for plain pictures, which have no alpha.
    """
    if not settings.transparent:
        raise InputError("plain pictures", "transparent ones", "leave the method on")
    short = replace(settings, count=min(settings.count, PICTURES), steps=min(settings.steps, STEPS))
    wanted = [(trial.name, trial.changes(settings, host.facts)) for trial in TRIALS]
    runs = [(name, replace(short, **changes)) for name, changes in wanted if changes is not None]
    findings: list[Finding] = []
    for number, (name, changed) in enumerate(runs):
        if watchers.stopping():
            break

        def report(share: float, _text: str, number: int = number, name: str = name) -> None:
            watchers.report((number + share) / len(runs), name)

        findings.append(finding(name, host.run(changed, Watchers(report, watchers.should_stop)), host.facts))
    return findings


def finding(name: str, pictures: Pictures, facts: Facts) -> Finding:
    """What a run says."""
    clear = [picture for picture in pictures if picture.transparent]
    cases = [Case(AlphaFigures.of(picture.image), replace(facts, prompt=picture.prompt)) for picture in clear]
    return Finding(name, tuple(case.figures for case in cases), tuple(case.verdict for case in cases), pictures)
