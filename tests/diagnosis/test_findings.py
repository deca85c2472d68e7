"""Which short runs are made for the facts of a job, and what they say together."""

from __future__ import annotations

import pytest

from lib_layerdiffuse.core.picture.verdicts import HAZE, AlphaFigures
from lib_layerdiffuse.diagnosis import findings, trials
from lib_layerdiffuse.diagnosis.diagnosis import Case
from lib_layerdiffuse.diagnosis.facts import Facts
from lib_layerdiffuse.diagnosis.findings import Finding, conclude, find_out
from lib_layerdiffuse.diagnosis.trials import AS_IT_WAS, GREY, TOGETHER, short_runs, together
from lib_layerdiffuse.diagnosis.words import named_networks, without_networks, without_place

GOOD, HAZY = AlphaFigures(0.5, 0.05, 0.4, 0.5), AlphaFigures(0, 0.99, 0, 1)
FACTS = Facts("sdxl", "a cat in a forest <lora:one:1>", weight=0.4, sampler="DDIM", other_sampler="Euler")
NAMES = ["Weight and Stop At 1", "without LoRAs", "another sampler", GREY, "no scene in the prompt"]


def finding(name: str, *figures: AlphaFigures, error: str = "") -> Finding:
    return Finding.of(name, [Case(each, FACTS) for each in figures], error=error)


def outcome(*helpful: str, facts: Facts = FACTS) -> list[Finding]:
    """What is found where these runs alone are fine."""
    return find_out(facts, lambda short: finding(short.name, GOOD if short.name in helpful else HAZY), lambda: False)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a cat at the beach, oil painting", "a cat, oil painting"),
        ("a cat", "a cat"),
        ("a sand castle", "a sand castle"),
        ("in a forest", ""),
    ],
)
def test_scenes_are_cut_out_of_prompts(text, left) -> None:
    assert without_place(text) == left


@pytest.mark.parametrize(
    ("text", "left", "names"),
    [
        ("a cat <lora:one:1>, sitting", "a cat , sitting", ("one",)),
        ("<lora:a b:0.5:0.2>a cat<hypernet:two:1>", "a cat", ("a b", "two")),
        ("a <fox:1> cat  here", "a <fox:1> cat  here", ()),
        ("<lora:one:1>", "", ("one",)),
    ],
)
def test_what_loads_networks_is_cut_out_of_prompts(text, left, names) -> None:
    assert without_networks(text) == left and named_networks(text) == names


def test_a_run_is_made_for_each_thing_that_is_not_usual() -> None:
    assert [short.name for short in short_runs(FACTS)] == [AS_IT_WAS, *NAMES]
    assert {trial.name for trial in trials.TRIALS} >= set(NAMES)
    assert [short.name for short in short_runs(Facts("flux", "a cat"))] == [AS_IT_WAS, GREY]


def test_all_changes_fit_into_one_run() -> None:
    short = together(short_runs(FACTS))
    assert short.changes == {"weight": 1.0, "stop_at": 1.0, "sampler": "Euler"}
    assert short.prompt(FACTS.prompt) == f"a cat, {GREY}"
    assert short.prompt("in a forest") == GREY  # which comes after the scene


def test_all_of_it_is_tried_where_nothing_helps_alone() -> None:
    assert [each.name for each in outcome("without LoRAs")] == [AS_IT_WAS, *NAMES]
    assert [each.name for each in outcome()] == [AS_IT_WAS, *NAMES, TOGETHER]
    assert str(conclude(outcome(TOGETHER))) == f"{findings.HELPFUL} {TOGETHER}"


def test_the_conclusion_names_what_helps() -> None:
    assert str(conclude(outcome("without LoRAs", GREY))) == f"{findings.HELPFUL} without LoRAs, {GREY}"
    assert str(conclude(outcome())) == findings.HELPLESS
    assert str(conclude(outcome(AS_IT_WAS))) == findings.BY_CHANCE
    assert str(conclude([])) == findings.STOPPED
    some = [finding(AS_IT_WAS, HAZY, HAZY), finding("20 steps", HAZY, GOOD), finding("x", HAZY, HAZY), finding("y")]
    assert str(conclude(some)) == f"{findings.LESS_OFTEN} 20 steps"


def test_a_job_that_cannot_run_again_is_not_tried_further() -> None:
    found = find_out(FACTS, lambda short: finding(short.name, error="no memory"), lambda: False)
    assert [str(each) for each in found] == [f"{AS_IT_WAS}: no memory"]
    assert str(conclude(found)) == findings.UNFINISHED


@pytest.mark.parametrize("most", range(4))
def test_a_stop_ends_the_runs_and_what_was_found_stays(most) -> None:
    made: list[str] = []

    def run(short: trials.ShortRun) -> Finding:
        made.append(short.name)
        return finding(short.name, HAZY)

    found = find_out(FACTS, run, lambda: len(made) == most)
    assert [each.name for each in found] == made == [AS_IT_WAS, *NAMES][:most]
    assert conclude(found).sentence == (findings.STOPPED)


def test_a_finding_in_words() -> None:
    assert str(finding("x", HAZY)) == "x: haze; empty 0%, half transparent 99%, opaque 0%"
    assert finding("x", GOOD, GOOD).said == ("fine",) and finding("x", GOOD, HAZY).said == (HAZE.name,)
    assert str(finding("x")) == f"x: {findings.NO_PICTURE}" and not finding("x").is_fine


def test_a_change_that_would_leave_nothing_of_the_prompt_is_no_run() -> None:
    names = [short.name for short in short_runs(Facts("sdxl", "in a forest"))]
    assert names == [AS_IT_WAS, GREY]
    assert [short.name for short in short_runs(Facts("sdxl", "<lora:one:1>"))] == [AS_IT_WAS, GREY]


IN_LAYERS = {"foreground": "a cat in a forest <lora:two:1>", "background": "a forest <lora:three:1>", "blended": ""}


def test_what_layers_say_of_their_own_is_changed_too() -> None:
    facts = Facts("sd15", "<lora:one:1>", layers=IN_LAYERS)
    assert facts.loras == "one, two, three"
    runs = {short.name: short for short in short_runs(facts)}
    assert list(runs) == [AS_IT_WAS, "without LoRAs", GREY, "no scene in the prompt"]
    without = runs["without LoRAs"]
    assert without.prompt(facts.prompt, facts.is_alone) == ""
    assert without.layers(IN_LAYERS) == {"foreground": "a cat in a forest", "background": "a forest", "blended": ""}
    place = runs["no scene in the prompt"]
    assert place.prompt(facts.prompt) == facts.prompt
    assert place.layers(IN_LAYERS) == IN_LAYERS | {"foreground": "a cat <lora:two:1>"}
    both = together(list(runs.values()))
    assert both.layers(IN_LAYERS) == {"foreground": "a cat", "background": "a forest", "blended": ""}
    assert runs[AS_IT_WAS].layers(IN_LAYERS) == runs[GREY].layers(IN_LAYERS) == IN_LAYERS


@pytest.mark.parametrize("frame", IN_LAYERS)
def test_a_lora_of_one_layer_alone_is_tried_without(frame) -> None:
    facts = Facts("sd15", "a cat", layers={frame: "<lora:one:1>"})
    assert [short.name for short in short_runs(facts)] == [AS_IT_WAS, "without LoRAs", GREY]
