"""Finding out why a job gives no alpha: which short runs of it to make, in each of which one thing is otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.methods import FOREGROUND
from .causes import FEW_STEPS
from .facts import Facts
from .words import without_networks, without_place

STEPS, PICTURES = 12, 2  # of a short run
USUAL_STEPS = 20
GREY = "plain grey background"
AS_IT_WAS, TOGETHER = "as it was", "all of it together"
Changes = Mapping[str, Any]  # fields of `Facts`, as they are to be
Rewrite = Callable[[str], str]
InLayer = Callable[[str, str], str]  # of a frame's name and its own words


def nothing(facts: Facts) -> Changes:
    return {}


def the_same(prompt: str) -> str:
    return prompt


def as_typed(_frame: str, text: str) -> str:
    return text


@dataclass(frozen=True)
class Trial:
    """A row: what is to be otherwise than in a job of these facts, and what becomes of its prompts and layers' words.

    None of it is a change where all is usual; the run is not made then.
    """

    name: str
    changes: Callable[[Facts], Changes] = nothing
    rewrite: Rewrite = the_same
    in_layer: InLayer = as_typed


def full_method(facts: Facts) -> Changes:
    return {} if facts.weight == facts.stop_at == 1 else {"weight": 1.0, "stop_at": 1.0}


def usual_files(facts: Facts) -> Changes:
    files = ("method_file", "decoder_file", "encoder_file")
    return dict.fromkeys(files, "") if any(getattr(facts, name) for name in files) else {}


def usual_guidance(facts: Facts) -> Changes:
    return {} if facts.guidance in (None, facts.usual_guidance) else {"guidance": facts.usual_guidance}


def more_steps(facts: Facts) -> Changes:
    return {"steps": USUAL_STEPS} if facts.steps is not None and facts.steps < FEW_STEPS else {}


def other_sampler(facts: Facts) -> Changes:
    return {"sampler": facts.other_sampler} if facts.other_sampler else {}


def no_start(facts: Facts) -> Changes:
    return {"denoise": 1.0} if facts.denoise < 1 else {}


def on_grey(prompt: str) -> str:
    return f"{prompt}, {GREY}" if prompt else GREY


def no_networks(_frame: str, text: str) -> str:
    """They work on the whole network, whatever layer names them."""
    return without_networks(text)


def no_place(frame: str, text: str) -> str:
    """A background may be a scene."""
    return without_place(text) if frame == FOREGROUND else text


TRIALS = (
    Trial("Weight and Stop At 1", full_method),
    Trial("the usual files", usual_files),
    Trial("without LoRAs", rewrite=without_networks, in_layer=no_networks),
    Trial("the usual guidance", usual_guidance),
    Trial("20 steps", more_steps),
    Trial("another sampler", other_sampler),
    Trial(GREY, rewrite=on_grey),
    Trial("no scene in the prompt", rewrite=without_place, in_layer=no_place),
    Trial("no start picture", no_start),
)


@dataclass(frozen=True)
class ShortRun:
    """A run to make: its name, what is otherwise by the names of facts, and what becomes of prompts, in this order."""

    name: str
    changes: Changes = field(default_factory=dict)
    rewrites: tuple[Rewrite, ...] = ()
    in_layers: tuple[InLayer, ...] = ()

    def prompt(self, text: str, alone: bool = True) -> str:
        """What becomes of a prompt; a change that would leave nothing of one that is alone is left out."""
        for rewrite in self.rewrites:
            text = rewrite(text) or (text if alone else "")
        return text

    def layers(self, texts: Mapping[str, str]) -> dict[str, str]:
        """What becomes of layers' own words, by frame."""
        found = dict(texts)
        for rewrite in self.in_layers:
            found = {frame: rewrite(frame, text) for frame, text in found.items()}
        return found

    def changes_something(self, facts: Facts) -> bool:
        """Whether anything is otherwise than in a job of these facts."""
        same = self.prompt(facts.prompt, facts.is_alone) == facts.prompt and self.layers(facts.layers) == facts.layers
        return bool(self.changes) or not same


def short_runs(facts: Facts) -> list[ShortRun]:
    """The job of these facts as it was, then one run for each row that changes it."""
    runs = [ShortRun(trial.name, trial.changes(facts), (trial.rewrite,), (trial.in_layer,)) for trial in TRIALS]
    return [ShortRun(AS_IT_WAS), *(run for run in runs if run.changes_something(facts))]


def together(runs: Sequence[ShortRun]) -> ShortRun:
    """What several runs change, in one."""
    changes = {name: value for run in runs for name, value in run.changes.items()}
    rewrites = tuple(rewrite for run in runs for rewrite in run.rewrites)
    return ShortRun(TOGETHER, changes, rewrites, tuple(rewrite for run in runs for rewrite in run.in_layers))
