"""The demo model's yaml finds its tokenizer: beside it, else where the extension lies, else where the user says."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
from fakes.webui import make_module

from lib_layerdiffuse.files.demo_folder import DEMO_FOLDER, TOKENIZER_VARIABLE
from lib_layerdiffuse.webui import demo_tokenizer


@pytest.fixture
def configs(monkeypatch, tmp_path):
    """The WebUI's module that finds the yaml of a checkpoint, and a folder with a checkpoint."""

    def find_checkpoint_config(state_dict, info):
        return str(tmp_path / "demo.yaml") if info.filename.startswith(str(tmp_path)) else None

    monkeypatch.setitem(sys.modules, "modules", make_module("modules"))
    module = make_module("modules.sd_models_config", find_checkpoint_config=find_checkpoint_config)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv(TOKENIZER_VARIABLE, "")  # given back in the end
    monkeypatch.delenv(TOKENIZER_VARIABLE)
    return module


def load(configs, folder) -> str | None:
    """What the yaml of a checkpoint finds, as the WebUI reads it."""
    configs.find_checkpoint_config({}, SimpleNamespace(filename=f"{folder}/demo.safetensors"))
    return os.environ.get(TOKENIZER_VARIABLE)


def test_users_need_not_copy_the_tokenizer(configs, tmp_path) -> None:
    original = configs.find_checkpoint_config
    for _ in range(2):  # "Reload UI"
        demo_tokenizer.install()
        assert load(configs, tmp_path) == str(DEMO_FOLDER / "tokenizer") and load(configs, "/elsewhere")
    (tmp_path / "tokenizer").mkdir()
    assert load(configs, tmp_path) == str(tmp_path / "tokenizer"), "a model of one's own brings its own words"
    assert load(configs, "/elsewhere") == str(DEMO_FOLDER / "tokenizer")
    demo_tokenizer.remove()
    assert configs.find_checkpoint_config is original and TOKENIZER_VARIABLE not in os.environ


def test_what_the_user_has_set_stays(configs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(TOKENIZER_VARIABLE, "/mine")
    demo_tokenizer.install()
    assert load(configs, tmp_path) == "/mine"
    demo_tokenizer.remove()
    assert os.environ[TOKENIZER_VARIABLE] == "/mine"


def test_a_webui_without_yamls_has_nothing_to_be_told(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "modules", make_module("modules"))
    demo_tokenizer.install()
    demo_tokenizer.remove()
