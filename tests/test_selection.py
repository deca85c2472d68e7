"""Which combinations of parameters run without --long: the same ones each time, and every value of every parameter."""

from __future__ import annotations

import itertools

import pytest
from selection import chosen, each_value_once, in_turn

pytest_plugins = ["pytester"]
TWO_WEBUIS = """
    import pytest

    @pytest.fixture(params=["one", "other"])
    def flavour(request):
        return request.param
"""
PAIRS = """
    @pytest.mark.parametrize(("name", "number"), [("a", 1), ("a", 2), ("b", 3)])
    def test_pairs(flavour, name, number):
        pass

    @pytest.mark.parametrize("side", [1, 2])
    @pytest.mark.parametrize("base", ["x", "y", "z"])
    def test_product(flavour, base, side):
        pass
"""
MARKED = """
    @pytest.mark.long
    def test_slow():
        pass

    @pytest.mark.parametrize("look", [pytest.param("light", marks=pytest.mark.long), "dark"])
    def test_looks(look):
        pass
"""
TURNS = "\n".join(f"    def test_{name}(flavour):\n        pass\n" for name in ("first", "second", "third"))


def product(**counts: int) -> dict[str, dict[str, int]]:
    """All combinations of so many values of each parameter, by name."""
    places = itertools.product(*(range(count) for count in counts.values()))
    return {f"test[{place}]": dict(zip(counts, place, strict=True)) for place in places}


@pytest.mark.parametrize("counts", [{"a": 2, "b": 9}, {"a": 2, "b": 4, "c": 3}, {"a": 1, "b": 2}, {"a": 5, "b": 5}])
def test_each_value_runs_and_no_more_cases_than_that_takes(counts):
    cases = product(**counts)
    names = each_value_once(cases)
    assert {pair for name in names for pair in cases[name].items()} == {
        pair for values in cases.values() for pair in values.items()
    }
    assert max(counts.values()) <= len(names) <= sum(counts.values()) - len(counts) + 1


def test_values_of_the_shorter_parameter_are_mixed_among_those_of_the_longer():
    cases = product(flavour=2, method=12)
    flavours = [cases[name]["flavour"] for name in each_value_once(cases)]
    assert 3 <= sum(flavours) <= 9


def test_cases_that_are_no_whole_product():
    cases = {"t[1]": {"a": 0, "b": 0}, "t[2]": {"a": 0, "b": 1}, "t[3]": {"b": 2}}
    assert each_value_once(cases) == {"t[1]", "t[2]", "t[3]"}


def test_tests_of_a_file_take_turns_on_the_webuis():
    cases = {"t[one]": {"flavour": 0}, "t[other]": {"flavour": 1}}
    assert [in_turn(cases, place) for place in range(3)] == [{"t[one]"}, {"t[other]"}, {"t[one]"}]


@pytest.fixture
def items(pytester: pytest.Pytester) -> dict[str, list[pytest.Item]]:
    """The tests above as pytest collects them, in rooms of these names."""
    found = {}
    for room, source in {"webui": PAIRS, "training": TURNS, "core": PAIRS, "page": MARKED}.items():
        lines = (TWO_WEBUIS + source).splitlines()
        (pytester.mkdir(room) / f"test_{room}.py").write_text("\n".join(line[4:] for line in lines))
    for item in pytester.inline_genitems()[0]:
        found.setdefault(item.nodeid.partition("/")[0], []).append(item)
    return found


def names_of(items: list[pytest.Item], *asked: str) -> list[str]:
    """Names of those that run."""
    return [item.name for item in chosen(items, asked)]


def test_what_pytest_collects(items):
    names = names_of(items["webui"])
    pairs = [name.removeprefix("test_pairs") for name in names if "pairs" in name]
    assert sorted(name.partition("-")[2] for name in pairs) == ["a-1]", "a-2]", "b-3]"], "together they are one"
    assert {name[1:4] for name in pairs} == {"one", "oth"}
    assert len(names) - len(pairs) == 3
    assert names_of(items["core"]) == [item.name for item in items["core"]], "other rooms run whole"

    in_turns = ["test_first[one]", "test_second[other]", "test_third[one]"]
    assert names_of(items["training"]) == in_turns
    alone = [item for item in items["training"] if "second" in item.name]
    assert names_of(alone) == in_turns[1:2], "which tests run does not change which of their cases do"
    asked = "training/test_training.py::test_second[one]"
    assert names_of(alone, asked) == ["test_second[one]", "test_second[other]"], "what is asked for by name runs"


def test_what_is_marked_long_waits_for_long(items):
    assert names_of(items["page"]) == ["test_looks[dark]"]
    assert names_of(items["page"], "page/test_page.py::test_slow") == ["test_slow", "test_looks[dark]"]
    assert len(names_of(items["page"], "page/test_page.py::test_looks[light]")) == 2
