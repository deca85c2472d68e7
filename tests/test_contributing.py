"""What contributors are told: named files are there, forms and CI can be read, versions are the pinned ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGE = "lib_layerdiffuse"
FOLDERS = ("", PACKAGE, "tests/fakes", "tests/hosts/webui")  # a recipe says the folder once
FILES = sorted({*re.findall(r"`([\w./-]+(?:\.\w+|/))`", TEXT), *re.findall(r"(?<![\w/])tests/[\w/.]*\w", TEXT)})
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
ASKED = {"host", "commit", "checkpoint", "infotext", "log"}


def load(path: Path) -> dict:
    """A YAML file; the key `on` of a workflow is True in YAML 1.1."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_named_files_are_there(name):
    assert any((ROOT / folder / name).exists() for folder in FOLDERS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z][A-Z_]{3,}|[a-z]+(?:_[a-z]+)+)`", TEXT))))
def test_named_tables_and_functions_are_there(name):
    sources = [path for folder in (PACKAGE, "tests") for path in (ROOT / folder).rglob("*.py")]
    defines = re.compile(rf"^(?:def )?{name}\b *[=:(]", re.MULTILINE)
    known = any(defines.search(path.read_text(encoding="utf-8")) for path in [*sources, ROOT / "tasks.py"])
    assert known or name == "TORCH_INDEX_URL"


def test_a_bug_report_asks_for_what_is_needed():
    forms = {path.stem: load(path) for path in FORMS}
    required = {row["id"] for row in forms["bug"]["body"] if row.get("validations", {}).get("required")}
    assert required >= ASKED
    assert "host" in {row["id"] for row in forms["wish"]["body"]}


def test_the_ci_definition_runs_the_promised_pythons_and_the_command_of_the_readme_with_all_combinations():
    jobs = load(ROOT / ".github/workflows/tests.yml")["jobs"]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    matrix = jobs["pinned"]["strategy"]["matrix"]
    assert matrix["python"] == re.findall(r"Python :: (3\.\d+)", project)
    assert {"run": "python tasks.py test --long"} in jobs["pinned"]["steps"]
    for row in jobs["oldest"]["strategy"]["matrix"]["include"]:
        assert all((ROOT / name).exists() for name in row["tests"].split())


@pytest.mark.parametrize(
    ("file", "promises"),
    [("oldest_webui", r"^dependencies = \[(.*)\]"), ("oldest_standalone", r"^standalone = \[(.*)\]")],
)
def test_the_oldest_versions_that_are_tested_are_those_that_are_promised(file, promises):
    """To the digits that the promise has; of other packages a WebUI's own versions stand there."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    promised = dict(re.findall(r'"([\w-]+)>=([\d.]+)"', re.search(promises, project, re.MULTILINE).group(1)))
    tested = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / f"requirements/{file}.txt").read_text(), re.MULTILINE))
    for name, least in promised.items():
        assert f"{tested[name]}.".startswith(f"{least}."), name


def test_pre_commit_has_the_pinned_ruff():
    pinned = re.findall(r"^ruff==.*$", (ROOT / "requirements/test.txt").read_text(encoding="utf-8"), re.MULTILINE)
    hooks = load(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    assert [hook["additional_dependencies"] for hook in hooks if "ruff" in hook["id"]] == [pinned] * 2
