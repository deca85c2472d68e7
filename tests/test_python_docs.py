"""The examples of docs/python.md and docs/layers.md are run, and the tables of the first name what there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import tiny
from PIL import Image

from lib_layerdiffuse import api

ROOT = Path(__file__).parent.parent
TEXT, LAYERS = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("python.md", "layers.md"))


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT + LAYERS, re.DOTALL))
def test_examples_run(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    demo = tiny.write_demo_folder(tmp_path / "demo")
    Image.new("RGBA", (32, 32), (255, 0, 0, 128)).save("sketch.png")
    small, load = {"steps": 2, "passes": 1}, api.load
    generate = api.generate
    monkeypatch.setattr(api, "load", lambda *_args, **_choices: load(demo=demo))
    monkeypatch.setattr(
        api,
        "generate",
        lambda *args, **choices: generate(*args, **{"model": api.ModelSettings(demo=demo), **choices, **small}),
    )
    exec(code, {"__name__": "example"})


def test_every_setting_is_named():
    for kind in (api.ModelSettings, api.GenerateSettings):
        names = {field.name for field in fields(kind)} - {"prompt"}
        missing = {name for name in names if f"`{name}" not in TEXT and not name.endswith("_prompt")}
        assert not missing
    for name in ("save", "trimmed", "box", "cleaned", "image", "parameters"):
        assert f"picture.{name}" in TEXT or f"`.{name}`" in TEXT


def test_readme_names_the_document():
    assert "docs/python.md" in (ROOT / "README.md").read_text(encoding="utf-8")
