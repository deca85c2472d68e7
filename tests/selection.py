"""Which of the combinations of a test's parameters run by default: each value of each parameter once.

The choice is a test's own: it stays the same whichever other tests run, and from one run to the next. What is marked
`long` is left out: it is slow, and quicker tests see nearly the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping

import pytest

SPARED = {"webui", "training"}  # of whose tests all combinations take minutes; those of other rooms run whole
FLAVOUR = "flavour"  # the WebUI that a test runs on: where nothing else differs, tests of a file take turns

Values = Mapping[str, Hashable]  # which value each parameter has


def values_of(item: pytest.Item) -> dict[str, Hashable]:
    """Which value each parameter of a test has, as objects tell it; names that one mark gives together are one."""
    told = {name: id(value) for name, value in getattr(getattr(item, "callspec", None), "params", {}).items()}
    chosen: dict[str, Hashable] = dict(told)
    for mark in item.iter_markers("parametrize"):
        given = mark.args[0]
        names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
        chosen[names[0]] = tuple(told[name] for name in names)
        for name in names[1:]:
            del chosen[name]
    return chosen


def each_value_once(cases: Mapping[str, Values]) -> set[str]:
    """Names of cases that have every value of every parameter; of equally good ones by a hash of their names.

    So what is the first parameter's value meets now this, now that value of the others.
    """
    left = {pair for values in cases.values() for pair in values.items()}
    waiting = sorted(cases, key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen = set()
    while left:
        best = max(waiting, key=lambda name: len(left & set(cases[name].items())))
        left -= set(cases[best].items())
        waiting.remove(best)
        chosen.add(best)
    return chosen


def in_turn(cases: Mapping[str, Values], place: int) -> set[str]:
    """Names of the cases of one flavour: the first for tests at an even place of their file, else the second."""
    flavours = list(dict.fromkeys(values[FLAVOUR] for values in cases.values()))
    return {name for name, values in cases.items() if values[FLAVOUR] == flavours[place % len(flavours)]}


def place_in_file(item: pytest.Item) -> int:
    """How many tests stand above a test in its file; the same whichever of them run."""
    tests = [name for name in vars(item.module) if name.startswith("test")]
    name = getattr(item, "originalname", item.name)
    return tests.index(name) if name in tests else 0


def of_function(items: list[pytest.Item]) -> set[str]:
    """Names of those cases of one test function that run by default."""
    cases = {item.nodeid: values_of(item) for item in items}
    names = {name for values in cases.values() for name in values}
    free = {name for name in names if len({values.get(name) for values in cases.values()}) > 1}
    if free == {FLAVOUR}:
        return in_turn(cases, place_in_file(items[0]))
    if len(free) < 2:
        return set(cases)
    return each_value_once({name: {key: values[key] for key in free} for name, values in cases.items()})


def chosen(items: Iterable[pytest.Item], asked: Iterable[str]) -> list[pytest.Item]:
    """The tests that run by default; those of which one was `asked` for by its whole name, all run."""
    functions: dict[str, list[pytest.Item]] = {}
    asked = list(asked)
    named = {text.partition("[")[0] for text in asked if "[" in text}
    tests = {text.partition("[")[0] for text in asked if "::" in text}
    for item in items:
        functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    stay: set[str] = set()
    for function, cases in functions.items():
        if function not in tests:
            cases = [item for item in cases if item.get_closest_marker("long") is None]
        is_whole = function in named or not SPARED & set(function.split("/"))
        stay |= {item.nodeid for item in cases} if is_whole else of_function(cases)
    return [item for item in items if item.nodeid in stay]
