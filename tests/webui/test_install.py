"""install.py and preload.py, as a WebUI runs them."""

from __future__ import annotations

import argparse
import configparser
import importlib.util
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "pyproject.toml"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"layerdiffuse_{Path(name).name}", ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def installer() -> ModuleType:
    return load("install")


@pytest.fixture
def pip(monkeypatch) -> list[str]:
    commands: list[str] = []
    launch = SimpleNamespace(run_pip=lambda command, description=None: commands.append(command))
    monkeypatch.setitem(sys.modules, "launch", launch)
    return commands


def test_normally_nothing_is_installed(installer, pip):
    installer.install(PROJECT)
    assert pip == []


def test_torch_and_gradio_are_never_touched(installer):
    names = [installer.split(requirement)[0] for requirement in installer.requirements(PROJECT)]
    assert set(names) == {"numpy", "Pillow", "safetensors", "huggingface_hub"}


def test_only_what_is_missing_is_installed_and_told(installer, pip, monkeypatch, caplog):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        installer.importlib.util, "find_spec", lambda name: None if name == "safetensors" else find(name)
    )
    with caplog.at_level(logging.INFO):
        installer.install(PROJECT)
    assert pip == ['install "safetensors>=0.4"']
    assert "safetensors>=0.4 is missing" in caplog.text


def test_an_old_package_is_told_and_left_alone(installer, pip, monkeypatch, caplog):
    monkeypatch.setattr(
        installer.importlib.metadata, "version", lambda name: "0.3.3rc1" if name == "safetensors" else "9"
    )
    installer.install(PROJECT)
    assert pip == [] and "older than" in caplog.text and "safetensors" in caplog.text


@pytest.mark.parametrize(
    ("have", "wanted", "old"), [("1.9", "1.26", True), ("1.26.2", "1.26", False), ("2", "1.26", False)]
)
def test_versions_are_compared_number_by_number(installer, monkeypatch, have, wanted, old):
    monkeypatch.setattr(installer.importlib.metadata, "version", lambda name: have)
    assert installer.is_old(f"numpy>={wanted}") is old


def test_as_a_program_it_says_nothing_when_all_is_there():
    run = subprocess.run([sys.executable, str(ROOT / "install.py")], capture_output=True, text=True, check=True)
    assert run.stdout == ""


def test_preload_adds_three_flags_with_harmless_defaults():
    parser = argparse.ArgumentParser()
    load("preload").preload(parser)
    plain = parser.parse_args([])
    assert (plain.layerdiffuse_models, plain.layerdiffuse_mirror, plain.layerdiffuse_offline) == (None, None, False)
    flags = ["--layerdiffuse-models", "/files", "--layerdiffuse-mirror", "https://mirror", "--layerdiffuse-offline"]
    given = parser.parse_args(flags)
    assert (given.layerdiffuse_models, given.layerdiffuse_mirror) == ("/files", "https://mirror")
    assert given.layerdiffuse_offline


def test_sd_next_is_refused_in_one_line(tmp_path, monkeypatch, caplog):
    """It would load the script, and has nothing that the script works on."""
    package = tmp_path / "modules"
    package.mkdir()
    for name in ("__init__", "scripts_manager", "scripts"):
        (package / f"{name}.py").write_text("")
    for name in [name for name in sys.modules if name.split(".")[0] == "modules"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level(logging.ERROR):
        script = load("scripts/layerdiffuse")
    monkeypatch.delitem(sys.modules, "modules")
    assert [record.name for record in caplog.records] == ["LayerDiffuse"]
    assert "SD.Next" in caplog.text and "\n" not in caplog.records[0].getMessage()
    assert not hasattr(script, "LayerDiffuseScript") and not hasattr(script, "register")


def test_scripts_stand_before_those_that_edit_finished_pictures():
    """As WebUIs read it: names of folders in lower case, commas or spaces between them."""
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "metadata.ini")
    before = re.split(r"[,\s]+", metadata["scripts"]["Before"])
    assert {"adetailer", "sd-webui-reactor"} <= set(before) and all(name == name.lower() for name in before)
    assert set(metadata.sections()) == {"Extension", "scripts"}  # nothing that names our own folder, which users choose
