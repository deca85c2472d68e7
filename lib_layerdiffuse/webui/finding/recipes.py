"""The last jobs, as far as it takes to run them again: each page its own, and those of the API."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from ..jobs.job import Job
from ..saving.last_sets import at
from ..tile_scripts import selected
from .diagnosing import facts_of
from .trial_jobs import Recipe

MOST = 8  # jobs that are kept; they hold the pictures that were given to them


class Recipes:
    """The last job of each visitor in each tab; the API is a visitor without a name."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Recipe] = OrderedDict()
        self._lock = threading.Lock()  # jobs and buttons run in threads of their own

    def keep(self, tab: str, job: Job) -> None:
        """A job that is over, if it is one to be run again."""
        request = job.request
        if request.asked is None or job.failed or not is_whole(job):
            return
        with self._lock:
            self._kept[request.visitor, tab] = recipe_of(job)
            self._kept.move_to_end((request.visitor, tab))
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)

    def get(self, visitor: str, tab: str) -> Recipe | None:
        """The last job; None before the first."""
        with self._lock:
            return self._kept.get((visitor, tab))


def is_whole(job: Job) -> bool:
    """Whether a job made transparent pictures (a tile is none), or began a chain."""
    chain = job.request.chain
    return bool(job.outcome.cases) if chain is None else chain.is_first and bool(job.outcome.results)


def recipe_of(job: Job) -> Recipe:
    """A job with the words and the seed of its first picture that failed, or of its first one."""
    asked, request = job.request.asked, job.request
    vars(asked).pop(selected.ATTRIBUTE, None)  # which has the `p` of the job, and so its pictures
    place = next((case.place for case in job.outcome.cases if case.verdict), 0)
    fill(asked, job, place)
    arguments = request.arguments if request.chain is None else request.chain.arguments
    return Recipe(asked, arguments, replace(facts_of(job, place), prompt=asked.prompt, layers=job.own_words(place)))


def fill(asked: Any, job: Job, place: int) -> None:
    """What scripts and styles made of the words, and chance of the seed, at a place of the job."""
    p = job.p
    asked.prompt = at(getattr(p, "all_prompts", None), place, p.prompt)
    asked.negative_prompt = at(getattr(p, "all_negative_prompts", None), place, p.negative_prompt)
    asked.styles = []
    asked.seed = at(job.told_seeds, place, p.seed)
    asked.subseed = at(getattr(p, "all_subseeds", None), place, getattr(p, "subseed", -1))
