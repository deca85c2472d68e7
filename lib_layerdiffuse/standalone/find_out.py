"""Finding out why a job of the diffusers host gives no alpha: it is run again, shorter, with one thing otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from ..core.picture.verdicts import AlphaFigures
from ..diagnosis import findings
from ..diagnosis.diagnosis import Case
from ..diagnosis.facts import Facts
from ..diagnosis.findings import Finding
from ..diagnosis.trials import PICTURES, STEPS, ShortRun
from ..form.frames import FRAMES
from .pictures import Pictures, Watchers
from .samplers import other_sampler
from .settings import GenerateSettings

if TYPE_CHECKING:
    from .diffusers_host import DiffusersHost

NAMES = {"method_file": "layer_file"}  # settings that are called otherwise than the facts


def find_out(host: DiffusersHost, settings: GenerateSettings, watchers: Watchers) -> list[Finding]:
    """The short runs of validated settings, one for each trial that changes them; fewer when stopped.

    InputError for plain pictures, which have no alpha.
    """
    if not settings.transparent:
        raise InputError("plain pictures", "transparent ones", "leave the method on")
    facts, done = facts_of(host.facts, settings), list[str]()
    total = findings.most_runs(facts)

    def run(short: ShortRun) -> Finding:
        def report(share: float, _text: str) -> None:
            watchers.report((len(done) + share) / total, short.name)

        pictures = host.run(changed(settings, short), Watchers(report, watchers.should_stop))
        done.append(short.name)
        return finding(short.name, pictures, host.facts)

    found = findings.find_out(facts, run, watchers.stopping)
    watchers.report(1.0, "done")
    return found


def facts_of(model: Facts, settings: GenerateSettings) -> Facts:
    """What a job is asked to do with the loaded model; the first prompt stands for all."""
    return replace(
        model,
        prompt=settings.prompts[0],
        weight=settings.weight,
        stop_at=settings.stop_at,
        guidance=settings.guidance,
        steps=settings.steps,
        sampler=settings.sampler or "",
        other_sampler=other_sampler(model.base, settings.sampler),
        method_file=str(settings.layer_file or ""),
        decoder_file=str(settings.decoder_file or ""),
        encoder_file=str(settings.encoder_file or ""),
        denoise=1.0 if settings.init is None else settings.denoise,
        layers=own_words(settings),
    )


def own_words(settings: GenerateSettings) -> dict[str, str]:
    """What layers are painted from beside the prompt, by frame."""
    given = {frame.name: getattr(settings, frame.prompt_setting) for frame in FRAMES.values()}
    return {frame: text for frame, text in given.items() if text.strip()}


def changed(settings: GenerateSettings, short: ShortRun) -> GenerateSettings:
    """The settings of a short run."""
    shorter = {"steps": min(settings.steps, STEPS), "count": min(settings.count, PICTURES)}
    changes: dict[str, Any] = {NAMES.get(name, name): value or None for name, value in short.changes.items()}
    if changes.pop("denoise", None):
        changes["init"] = None
    layers = own_words(settings)
    changes |= {FRAMES[frame].prompt_setting: text for frame, text in short.layers(layers).items()}
    prompts = tuple(short.prompt(prompt, alone=not layers) for prompt in settings.prompts)
    return replace(settings, prompt=prompts, **(shorter | changes))


def finding(name: str, pictures: Pictures, facts: Facts) -> Finding:
    """What a run says."""
    clear = [picture for picture in pictures if picture.transparent]
    cases = [Case(AlphaFigures.of(picture.image), replace(facts, prompt=picture.prompt)) for picture in clear]
    return Finding.of(name, cases, pictures)
