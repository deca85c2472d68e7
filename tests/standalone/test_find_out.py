"""Short runs of the diffusers host that change one thing at a time: their settings, and what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from lib_layerdiffuse.api import diagnose, load
from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.diagnosis.facts import Facts
from lib_layerdiffuse.diagnosis.trials import STEPS, short_runs
from lib_layerdiffuse.standalone.find_out import changed, facts_of
from lib_layerdiffuse.standalone.settings import GenerateSettings

ORDINARY = GenerateSettings(("a cat",), seed=1, steps=30)
ALWAYS = ["as it was", "another sampler", "plain grey background"]
MORE = {
    "Weight and Stop At 1": ({"weight": 0.3}, {"weight": 1.0, "stop_at": 1.0}),
    "the usual files": ({"decoder_file": "x"}, {"layer_file": None, "decoder_file": None, "encoder_file": None}),
    "without LoRAs": ({"prompt": ("a cat <lora:one:1>",)}, {"prompt": ("a cat",)}),
    "the usual guidance": ({"guidance": 20.0}, {"guidance": 7.0}),
    "20 steps": ({"steps": 4}, {"steps": 20}),
    "no scene in the prompt": ({"prompt": ("a cat in a dark forest",)}, {"prompt": ("a cat",)}),
    "no start picture": ({"init": "x.png"}, {"init": None}),
}


def runs(settings: GenerateSettings, base: str = "sdxl") -> dict[str, GenerateSettings]:
    """The settings of each short run by its name."""
    return {short.name: changed(settings, short) for short in short_runs(facts_of(Facts(base), settings))}


def test_an_ordinary_job_is_changed_in_what_may_always_help() -> None:
    assert list(runs(ORDINARY)) == ALWAYS
    assert runs(ORDINARY)["another sampler"].sampler == "euler"
    assert runs(replace(ORDINARY, sampler="euler"))["another sampler"].sampler == "ddim"
    assert "another sampler" not in runs(ORDINARY, "flux")  # which has one alone


@pytest.mark.parametrize("name", MORE)
def test_what_is_unusual_is_made_usual(name) -> None:
    unusual, usual = MORE[name]
    made = runs(replace(ORDINARY, **unusual))
    assert set(made) == {*ALWAYS, name}
    assert made[name] == replace(made["as it was"], **usual)


def test_layers_own_words_are_changed_too() -> None:
    words = {"foreground_prompt": "fur in a forest <lora:one:1>", "background_prompt": "in a forest <lora:two:1>"}
    made = runs(replace(ORDINARY, **words))
    assert set(made) == {*ALWAYS, "without LoRAs", "no scene in the prompt"}
    without = {"foreground_prompt": "fur in a forest", "background_prompt": "in a forest"}
    assert made["without LoRAs"] == replace(made["as it was"], **without)
    assert made["no scene in the prompt"] == replace(made["as it was"], foreground_prompt="fur <lora:one:1>")


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    return tiny.write_demo_folder(tmp_path_factory.mktemp("demo"))


def test_the_runs_are_short_alike_and_told(demo) -> None:
    told, host = [], load(demo=demo)
    found = diagnose("a cat", pipeline=host, seed=1, steps=1, count=3, weight=0.5, progress=lambda *at: told.append(at))
    names = [each.name for each in found]
    assert names[:5] == ["as it was", "Weight and Stop At 1", "20 steps", *ALWAYS[1:]]
    assert all(len(each.figures) == len(each.pictures) == 2 for each in found) and STEPS < 20
    assert {picture.seed for each in found for picture in each.pictures} == {1, 2}
    assert [share for share, _ in told] == sorted(share for share, _ in told) and told[-1][0] == 1
    with pytest.raises(InputError, match="plain pictures"):
        diagnose("a cat", pipeline=host, transparent=False)
    assert diagnose("a cat", pipeline=host, should_stop=lambda: True) == []


def test_the_command_shows_a_line_for_each_run(demo, capsys) -> None:
    words = ["diagnose", "a cat", "--demo", str(demo), "--steps", "1", "-n", "1", "--seed", "1", "--sampler", "euler"]
    assert main(words) == 0
    *lines, conclusion = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines][:4] == ["as it was", "20 steps", *ALWAYS[1:]]
    assert all("half transparent" in line for line in lines)
    assert "help" in conclusion or "fine" in conclusion
    assert main(["diagnose", "", "--demo", str(demo)]) == 2
