"""The list of faults for a mutation run fits the code: each can be put in, and its tests are there."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import mutations  # noqa: E402


@pytest.mark.parametrize("fault", mutations.EVERY_FAULT, ids=lambda fault: fault.rule)
def test_a_listed_fault_can_be_put_in(fault) -> None:
    ast.parse(mutations.applied(fault))
    assert fault.old != fault.new and fault.tests
    assert all((ROOT / "tests" / test).is_file() for test in fault.tests)


def test_swept_files_and_their_tests_are_there() -> None:
    for file, tests in mutations.SWEPT.items():
        assert (ROOT / mutations.LIBRARY / file).is_file()
        assert all((ROOT / "tests" / test).is_file() for test in tests)


def test_single_changes_of_a_line() -> None:
    changes = {changed for _, changed in mutations.single_changes("é = a < 2 and not b - 1 == True\n")}
    assert changes == {
        f"é = {line}\n"
        for line in (
            "a <= 2 and not b - 1 == True",
            "a < 3 and not b - 1 == True",
            "a < 2 or not b - 1 == True",
            "a < 2 and b - 1 == True",
            "a < 2 and not b + 1 == True",
            "a < 2 and not b - 2 == True",
            "a < 2 and not b - 1 != True",
            "a < 2 and not b - 1 == False",
        )
    }


def test_a_fault_that_tests_see_and_one_that_they_do_not(tmp_path, monkeypatch) -> None:
    """In a made-up library with one rule and one test, which need no plugins of pytest."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name, text in {
        "lib_layerdiffuse/__init__.py": "",
        "lib_layerdiffuse/rule.py": "def least(a, b):\n    return a if a < b else b\n",
        "tests/test_rule.py": (
            "from lib_layerdiffuse.rule import least\n\n\ndef test_it():\n    assert least(1, 2) == least(2, 1) == 1\n"
        ),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    whole = (tmp_path / "lib_layerdiffuse/rule.py").read_text()
    for sign, seen in ((">=", True), ("<=", False)):
        assert mutations.is_seen(tmp_path, "rule.py", whole.replace("<", sign), ("test_rule.py",)) is seen
        assert (tmp_path / "lib_layerdiffuse/rule.py").read_text() == whole
