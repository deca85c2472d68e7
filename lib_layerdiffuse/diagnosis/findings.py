"""What short runs of a job say: the alpha of each, and in one sentence what helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.picture.verdicts import AlphaFigures, Verdict
from .diagnosis import Case
from .facts import Facts
from .trials import TOGETHER, ShortRun, short_runs, together

FINE, NO_PICTURE = "fine", "no picture"
BY_CHANCE = "As it was, the short run is fine: try another seed, or look at what it leaves out (steps, a second pass)."
HELPFUL, LESS_OFTEN = "This helps:", "This helps sometimes:"
HELPLESS = "None of this helps: try the base model itself, or a checkpoint that is nearer to it."
STOPPED = "Stopped before anything was found that helps."
UNFINISHED = "The job could not be run again."


@dataclass(frozen=True)
class Finding:
    """A short run: its name, figures and verdicts of its transparent pictures, all that it made, or why it failed."""

    name: str
    figures: tuple[AlphaFigures, ...] = ()
    verdicts: tuple[Verdict | None, ...] = ()
    pictures: Any = ()
    error: str = ""

    @classmethod
    def of(cls, name: str, cases: Sequence[Case], pictures: Any = (), error: str = "") -> Finding:
        """What a run's pictures say."""
        figures = tuple(case.figures for case in cases)
        return cls(name, figures, tuple(case.verdict for case in cases), pictures, error)

    @property
    def failed(self) -> int:
        """How many pictures failed."""
        return sum(verdict is not None for verdict in self.verdicts)

    @property
    def is_fine(self) -> bool:
        """Whether there are pictures, and none failed."""
        return bool(self.verdicts) and not self.failed

    @property
    def said(self) -> tuple[str, ...]:
        """In words, how the pictures are: "fine" or the names of what is wrong with them."""
        if not self.verdicts:
            return (self.error or NO_PICTURE,)
        return tuple(dict.fromkeys(verdict.name for verdict in self.verdicts if verdict)) or (FINE,)

    def __str__(self) -> str:
        figures = " | ".join(map(str, self.figures))
        return f"{self.name}: {', '.join(self.said)}" + (f"; {figures}" if figures else "")


@dataclass(frozen=True)
class Conclusion:
    """A sentence, and the names of the runs that it speaks of."""

    sentence: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.sentence} {', '.join(self.names)}".strip()


def find_out(facts: Facts, run: Callable[[ShortRun], Finding], is_stopped: Callable[[], bool]) -> list[Finding]:
    """What the short runs of a job say, fewer when stopped or where the job cannot be run again.

    All changes together come last, where none of them helps alone.
    """
    findings: list[Finding] = []
    planned = short_runs(facts)
    for each in planned:
        if is_stopped() or (findings and not findings[0].verdicts):
            return findings
        findings.append(run(each))
    if not any(finding.is_fine for finding in findings) and not is_stopped():
        findings.append(run(together(planned)))
    return findings


def most_runs(facts: Facts) -> int:
    """How many runs there may be, for a progress bar."""
    return len(short_runs(facts)) + 1


def conclude(findings: Sequence[Finding]) -> Conclusion:
    """What helps, in one sentence."""
    if not findings or not findings[0].verdicts:
        return Conclusion(UNFINISHED if findings and findings[0].error else STOPPED)
    before, *others = findings
    if before.is_fine:
        return Conclusion(BY_CHANCE)
    helpful = tuple(finding.name for finding in others if finding.is_fine)
    if helpful:
        return Conclusion(HELPFUL, helpful)
    less = tuple(finding.name for finding in others if finding.verdicts and finding.failed < before.failed)
    if less:
        return Conclusion(LESS_OFTEN, less)
    return Conclusion(HELPLESS if findings[-1].name == TOGETHER else STOPPED)  # which is tried at last
