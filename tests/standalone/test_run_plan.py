"""Which seed every picture of a run gets, whatever the batch."""

from __future__ import annotations

import pytest

from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.sets.chains import CHAINS
from lib_layerdiffuse.standalone.course import Course
from lib_layerdiffuse.standalone.run_plan import Plan
from lib_layerdiffuse.standalone.settings import MAX_SEED, GenerateSettings


def plan_of(method: str | None, **settings) -> Plan:
    """A run's plan."""
    row = find_method(method) if method else None
    return Plan(GenerateSettings("a cat", **settings), row, course=Course(row, CHAINS.get(method)))


def seeds(method: str | None, **settings) -> list[int]:
    """Seeds of all rows of a run, in order."""
    return [seed for job in plan_of(method, **settings).jobs() for seed in job.seeds]


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize(("method", "frames"), [(None, 1), ("sd15_joint", 3), ("sd15_fg2bg", 2)])
def test_seeds_go_on_over_batches_and_frames(method, frames, batch) -> None:
    drawn = seeds(method, count=4, seed=7, batch=batch)
    assert drawn == list(range(7, 7 + 4 * frames))
    # what a picture's parameters say, so that the set can be made again
    assert [plan_of(method, seed=7).set_seed(group) for group in range(4)] == drawn[::frames]


def test_seeds_begin_anew_after_the_last_one() -> None:
    assert seeds("sd15_joint", count=2, seed=MAX_SEED - 3, batch=1) == [*range(MAX_SEED - 3, MAX_SEED + 1), 0, 1]
