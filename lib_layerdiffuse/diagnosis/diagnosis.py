"""The diagnosis of a job: which of its pictures have no alpha worth the name, and what is known to do that."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..core.picture.verdicts import HAZE, AlphaFigures, Verdict
from .causes import ENGLISH, Cause, causes_of
from .facts import Facts

SHOWN = 3  # causes in a comment
OF_MANY, KNOWN = "{failed} of {total} pictures:", "In this job {known}"
LISTED, SENTENCES = "{first}; {second}", "{first} {second}"
ADVICE = (
    "Try a plain neutral grey background in the prompt, another sampler, or the base model itself: "
    "some checkpoints, merged or tuned far away from it, never give transparency"
)


@dataclass(frozen=True)
class Diagnosis:
    """Of `total` pictures those that failed alike: how, the figures of the first, and the causes, likeliest first."""

    verdict: Verdict
    figures: AlphaFigures
    failed: int
    total: int
    facts: Facts
    causes: tuple[Cause, ...]

    @property
    def text(self) -> str:
        """One comment for the user."""
        return self.said(ENGLISH)

    def said(self, texts: Mapping[str, str]) -> str:
        """The same in a language, of which `texts` has translations of sentences and templates."""

        def in_language(text: str) -> str:
            return texts.get(text, text)

        which = "" if self.total == 1 else in_language(OF_MANY).format(failed=self.failed, total=self.total)
        known = joined([cause.text(self.facts, texts) for cause in self.causes[:SHOWN]], in_language(LISTED))
        why = in_language(KNOWN).format(known=known) if known else in_language(ADVICE)
        return joined([which, in_language(self.verdict.sentence), why], in_language(SENTENCES))


def joined(texts: Iterable[str], pair: str) -> str:
    """Texts, without empty ones, put together by a template of two neighbours; empty where there are none."""
    found = list(filter(None, texts))
    return functools.reduce(lambda first, second: pair.format(first=first, second=second), found) if found else ""


@dataclass(frozen=True)
class Case:
    """A finished picture's alpha, the job that made it, and its place in that."""

    figures: AlphaFigures
    facts: Facts
    place: int = 0

    @property
    def verdict(self) -> Verdict | None:
        """What is wrong with the picture; a haze is not where the prompt asks for something of that kind."""
        verdict = self.figures.verdict
        return None if verdict is HAZE and self.facts.is_soft else verdict


def diagnose(cases: Sequence[Case], drift: Callable[[], float | None] = lambda: None) -> Diagnosis | None:
    """The diagnosis of the pictures of one job; None where no picture failed.

    `drift` measures how far the checkpoint is from its base; it is asked only where one did.
    """
    failed = [case for case in cases if case.verdict is not None]
    verdicts = [case.verdict for case in failed]
    verdict = max(verdicts, key=verdicts.count, default=None)
    if verdict is None:
        return None
    first = failed[verdicts.index(verdict)]
    facts = replace(first.facts, drift=drift())
    causes = tuple(causes_of(facts, verdict.name))
    return Diagnosis(verdict, first.figures, verdicts.count(verdict), len(cases), facts, causes)
