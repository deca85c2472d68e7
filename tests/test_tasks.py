"""The commands that `make demo` runs are commands that the program takes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from lib_layerdiffuse.cli.main import build_parser

ROOT = Path(__file__).parent.parent


@pytest.fixture
def tasks(monkeypatch):
    """The module, with nothing installed, and its commands noted instead of run."""
    spec = importlib.util.spec_from_file_location("tasks_of_the_project", ROOT / "tasks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.commands = []
    monkeypatch.setattr(module, "prepare", lambda requirements: None)
    monkeypatch.setattr(module, "run", lambda *arguments: module.commands.append(list(arguments)))
    return module


def test_the_demo_paints_pictures_sets_and_a_layered_file(tasks):
    tasks.demo([])
    parser = build_parser("generate")
    parsed = [parser.parse_args(command[2:]) for command in tasks.commands]
    assert all(command[:2] == ["-m", "lib_layerdiffuse"] for command in tasks.commands)
    assert [(each.out, each.chain, each.format) for each in parsed] == [
        ("out", None, None),
        ("out/sets", "joint", None),
        ("out/layers", "joint", "psd"),
    ]


@pytest.mark.parametrize("tests_pass", [True, False])
@pytest.mark.parametrize("types_pass", [True, False])
def test_types_are_checked_beside_the_tests_and_either_can_fail(tasks, monkeypatch, capfd, types_pass, tests_pass):
    def run(*arguments: str) -> None:
        if "pytest" in arguments and not tests_pass:
            raise SystemExit(3)

    monkeypatch.setattr(tasks, "run", run)
    monkeypatch.setattr(tasks, "PYTHON", sys.executable)
    monkeypatch.setattr(tasks, "PYRIGHT", ["-c", f"print('found'); raise SystemExit({0 if types_pass else 4})"])
    code = 0
    try:
        tasks.test([])
    except SystemExit as ended:
        code = ended.code
    assert code == (3 if not tests_pass else 0 if types_pass else 4)
    assert "types: found" in capfd.readouterr().out


def test_ones_own_words_go_to_the_command(tasks):
    tasks.demo(["a red apple", "--out", "mine"])
    (command,) = tasks.commands
    assert command[2:] == ["generate", "a red apple", "--out", "mine"]


def test_options_go_to_all_tests_and_names_choose_some(tasks):
    assert tasks.asked_for([]) == tasks.ALL_TESTS
    assert tasks.asked_for(["--long"]) == [*tasks.ALL_TESTS, "--long"]
    assert tasks.asked_for(["tests/core", "--long"]) == ["tests/core", "--long"]
