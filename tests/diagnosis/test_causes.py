"""The table of causes: each row sees its own fault and no other; an ordinary job has none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lib_layerdiffuse.core.picture.verdicts import EMPTY, HAZE, OPAQUE, VERDICTS, AlphaFigures
from lib_layerdiffuse.diagnosis.causes import CAUSES, causes_of
from lib_layerdiffuse.diagnosis.diagnosis import ADVICE, Case, diagnose
from lib_layerdiffuse.diagnosis.facts import Facts
from lib_layerdiffuse.diagnosis.words import named_place
from lib_layerdiffuse.files.demo_folder import DEMO_FOLDER

ORDINARY = Facts("sdxl", "a red apple, masterpiece", guidance=7.0, steps=20, sampler="Euler a", prediction="eps")
FAULTS = {
    "weight": {"weight": 0.5},
    "stop_at": {"stop_at": 0.5},
    "start_picture": {"start_alpha": 1.0, "denoise": 0.4},
    "prediction": {"prediction": "v_prediction"},
    "decoder_file": {"decoder_file": "other [0123456789]"},
    "method_file": {"method_file": "other [0123456789]"},
    "loras": {"prompt": "a cat <lora:add-detail:0.8> <lyco:style:1>"},
    "guidance": {"guidance": 20.0},
    "distilled": {"checkpoint": "juggernautXL_v9Lightning.safetensors"},
    "few_steps": {"steps": 4},
    "drift": {"drift": 0.4},
    "far_tuned": {"checkpoint": "noobaiXL_epsPred11"},
    "place": {"prompt": "a cat in a forest"},
}
CALLED_SCENES = {"sun", "castle", "snow cloud", "cloud with snow"}  # things that are scenes just as well
GOOD = AlphaFigures(0.5, 0.05, 0.4, 0.5)
FAILED = {
    "opaque": AlphaFigures(0, 0, 1, 1),
    "empty": AlphaFigures(1, 0, 0, 0),
    "haze": AlphaFigures(0, 0.99, 0, 1),
}


def test_every_row_has_its_fault() -> None:
    assert list(FAULTS) == [cause.id for cause in CAUSES]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_by_its_row_alone(fault) -> None:
    facts = replace(ORDINARY, **FAULTS[fault])
    row = next(cause for cause in CAUSES if cause.id == fault)
    for verdict in VERDICTS:
        wanted = [fault] if verdict.name in row.verdicts else []
        assert [cause.id for cause in causes_of(facts, verdict.name)] == wanted
        assert "{" not in row.text(facts)
        assert causes_of(ORDINARY, verdict.name) == []


JUST_RIGHT = [
    {"weight": 0.9}, {"stop_at": 0.95}, {"guidance": 11.2}, {"steps": 8}, {"drift": 0.01},
    {"start_alpha": 1.0, "denoise": 1.0},  # nothing is taken from it
    {"start_alpha": 0.98, "denoise": 0.4},
]  # fmt: skip


@pytest.mark.parametrize("fields", JUST_RIGHT, ids=str)
def test_a_row_says_nothing_at_its_limit(fields) -> None:
    assert [causes_of(replace(ORDINARY, **fields), verdict.name) for verdict in VERDICTS] == [[]] * len(VERDICTS)


@pytest.mark.parametrize("base", ["sd15", "sdxl", "flux", "demo"])
def test_usual_settings_of_a_base_are_no_fault(base) -> None:
    facts = Facts(base, "a cat", guidance=Facts(base).usual_guidance, steps=20)
    assert not causes_of(replace(facts, drift=0.002), "haze")
    own = replace(facts, prediction={"demo": "v_prediction", "flux": "const"}.get(base, "epsilon"))
    assert not any(causes_of(own, verdict.name) for verdict in VERDICTS)


def test_the_words_of_a_fault_are_told() -> None:
    told = {name: causes_of(replace(ORDINARY, **fault), "haze")[0] for name, fault in FAULTS.items()}
    text = {name: cause.text(replace(ORDINARY, **FAULTS[name])) for name, cause in told.items()}
    assert "add-detail, style" in text["loras"] and "40% away" in text["drift"] and '"forest"' in text["place"]
    assert "20" in text["guidance"] and "7" in text["guidance"] and '"lightning"' in text["distilled"]


def test_a_lora_of_few_steps_is_named_once() -> None:
    facts = replace(ORDINARY, prompt="a cat <lora:sdxl_lightning_4step:1>", steps=4)
    assert [cause.id for cause in causes_of(facts, "haze")] == ["loras", "distilled"]


@pytest.mark.parametrize(
    "text", ["a cat, plain grey background", "a cat, simple white background", "a seal", "a skyhook"]
)
def test_a_plain_background_is_no_scene(text) -> None:
    assert named_place(text) == ""


def test_scenes_of_the_demo_model_are_known_and_its_things_are_none() -> None:
    told = json.loads((DEMO_FOLDER / "vocabulary.json").read_text(encoding="utf-8"))
    scenes = [text for scene in told["scenes"] for part in ("captions", "phrases") for text in scene[part]]
    assert [text for text in scenes if not named_place(text)] == []
    things = {name for concept in told["concepts"] for name in names_in(concept)}
    assert len(things) > 200 and {name for name in things if named_place(name)} <= CALLED_SCENES


def names_in(value) -> list[str]:
    """All texts in a part of the vocabulary."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, bool):
        return []
    return [text for part in (value.values() if isinstance(value, dict) else value) for text in names_in(part)]


# --- the diagnosis of a job


def cases(*figures: AlphaFigures, **facts) -> list[Case]:
    return [Case(each, replace(ORDINARY, **facts)) for each in figures]


def test_good_pictures_get_no_diagnosis_and_nothing_is_measured() -> None:
    assert diagnose(cases(GOOD, GOOD, weight=0.1), drift=lambda: pytest.fail("measured")) is None
    assert diagnose([]) is None


@pytest.mark.parametrize("name", FAILED)
def test_a_failure_is_told_with_what_is_known(name) -> None:
    found = diagnose(cases(FAILED[name], weight=0.5), drift=lambda: 0.4)
    assert found.verdict.name == name and [cause.id for cause in found.causes] == ["weight", "drift"]
    assert found.text.startswith(found.verdict.sentence) and "Weight is 0.5: set it to 1" in found.text
    assert diagnose(cases(FAILED[name])).text == f"{found.verdict.sentence} {ADVICE}"


def test_the_most_frequent_failure_is_counted() -> None:
    found = diagnose(cases(GOOD, FAILED["haze"], FAILED["opaque"], FAILED["haze"]))
    assert (found.verdict, found.failed, found.total) == (HAZE, 2, 4) and found.text.startswith("2 of 4 pictures: ")


def test_a_haze_is_no_fault_where_it_was_asked_for() -> None:
    assert diagnose(cases(FAILED["haze"], prompt="morning fog over nothing")) is None
    assert diagnose(cases(FAILED["opaque"], prompt="morning fog")).verdict is OPAQUE
    assert diagnose(cases(FAILED["empty"], prompt="<lora:fog:1> a cat")).verdict is EMPTY


@pytest.mark.parametrize("name", ["hyperrealism_v3", "nailArt_xl", "waitingRoom", "ponytail"])
def test_names_that_only_begin_like_known_ones_say_nothing(name):
    facts = Facts("sdxl", checkpoint=name)
    assert facts.distilled == "" and facts.far_tuned == ""
