"""Extra prompts are prompts: other scripts expand them with the main prompt, in any order."""

from __future__ import annotations

import re

import pytest
import torch
from fakes import expanding
from fakes.prompt_jobs import BACKGROUND, EXTRAS, FOREGROUND, MAIN, NAMES, parameters, ran, told, with_script
from fakes.running import Snapshot, job, layer_of, plainly, run, run_closing, same_pictures

from lib_layerdiffuse.core.methods import METHODS, find_method
from lib_layerdiffuse.webui.jobs.frame_prompts import MARK, SEPARATOR, evened, is_template, spread

SHARING = [method.id for method in METHODS if len(method.frames) > 1 and method.base == "sd15"]
EXPANDING = [expanding.EachPrompt, expanding.FirstPrompt, expanding.FixedSeed]


# --- expanded as the main prompt is


@pytest.mark.parametrize("first", [True, False], ids=["before ours", "behind ours"])
@pytest.mark.parametrize("script", EXPANDING, ids=lambda script: script.__name__)
def test_dynamic_prompts_561_variants_in_extra_prompts(sd15, script, first) -> None:
    with_script(sd15, script, first)
    _, texts = ran(sd15, {"method": "sd15_joint", **EXTRAS}, prompt=MAIN, batch_size=6, n_iter=2)
    assert len(texts) == 12 and not any("{" in text for text in texts)
    for result in range(4):
        foreground, background, blended = texts[3 * result : 3 * result + 3]
        assert re.fullmatch("a (red|blue) car", blended), "the main prompt alone, expanded once for all frames"
        assert re.fullmatch(f"(one|two|three) cats, {blended}", foreground)
        assert re.fullmatch(f"in (rain|snow), {blended}", background)
    assert len(set(texts[::3])) > 1 or script is expanding.FixedSeed, "each result has a choice of its own"


@pytest.mark.parametrize("method", SHARING)
def test_all_sharing_methods(a1111, method) -> None:
    row = find_method(method)
    with_script(a1111, expanding.FirstPrompt)
    layer = layer_of(row, **{NAMES[frame]: f"{{{frame}|{frame}}} only" for frame in row.frames})
    outcome, texts = ran(a1111, layer, prompt=MAIN)
    main = told(outcome)[0].split("\n")[0]
    assert texts == [f"{frame} only, {main}" for frame in row.frames] and re.fullmatch("a (red|blue) car", main)


@pytest.mark.parametrize("method", ["sd15_fg", "xl_fg_conv", "xl_bg2blend"])
def test_methods_of_one_picture_use_the_main_prompt(make_webui, method) -> None:
    row = find_method(method)
    webui = with_script(make_webui("forge", row.base), expanding.FirstPrompt)
    outcome, texts = ran(webui, layer_of(row, **EXTRAS), prompt=MAIN, n_iter=2)
    assert all(re.fullmatch("a (red|blue) car", text) for text in texts) and len(texts) == 2
    assert "fg_additional_prompt and bg_additional_prompt" in outcome.note and "not used" in outcome.processed.comments
    assert not any("additional_prompt" in text for text in told(outcome))


def test_the_main_prompt_is_the_same_for_all_frames_without_extra_prompts(sd15) -> None:
    with_script(sd15, expanding.EachPrompt)
    _, texts = ran(sd15, {"method": "sd15_joint"}, prompt="{a|b|c|d|e|f|g} {h|i|j|k}", batch_size=6)
    assert len(set(texts[:3])) == len(set(texts[3:])) == 1 and len(set(texts)) == 2


def test_negative_prompts_are_the_same_for_all_frames(a1111) -> None:
    with_script(a1111, expanding.FirstPrompt)
    outcome, texts = ran(a1111, {"method": "sd15_joint"}, negative_prompt="{a|b|c|d|e|f|g} {h|i|j|k}", batch_size=6)
    assert len(set(outcome.p.all_negative_prompts[:3])) == 1 == len(set(outcome.p.all_negative_prompts[3:]))
    assert texts[6:] == ["a red apple"] * 6


def test_without_such_a_script_templates_are_literal_as_in_the_main_prompt(sd15) -> None:
    outcome, texts = ran(sd15, {"method": "sd15_joint", **EXTRAS}, prompt=MAIN)
    assert texts == [f"{FOREGROUND}, {MAIN}", f"{BACKGROUND}, {MAIN}", MAIN]
    assert outcome.p.prompt == MAIN and not any("template" in text for text in told(outcome))


def test_plain_extra_prompts_are_none_of_other_scripts_business(a1111) -> None:
    seen: list[str] = []

    class Seeing(expanding.Expanding):
        def process(self, p) -> None:
            seen.extend(p.all_prompts)

    with_script(a1111, Seeing)
    extra = "(shiny:1.2), [a:b:0.5] {apple}".replace(" {apple}", "") + " <lora:style:0.8>"
    _, texts = ran(a1111, {"method": "sd15_joint", "fg_additional_prompt": extra})
    assert seen == ["a red apple"] * 3 and texts[0] == "(shiny:1.2), [a:b:0.5], a red apple"


# --- what else expanding scripts do


@pytest.mark.parametrize(("script", "batches"), [(expanding.Combinations, 2), (expanding.SomeCombinations, 4)])
def test_every_combination_is_a_whole_result(sd15, script, batches) -> None:
    """Dynamic prompts' "combinatorial" gives one prompt for a batch of three: the frames would be noise."""
    with_script(sd15, script)
    outcome, texts = ran(sd15, {"method": "sd15_joint", **EXTRAS}, prompt=MAIN, batch_size=3, n_iter=batches)
    results = [tuple(texts[place : place + 3]) for place in range(0, len(texts), 3)]
    assert len(results) == 12 == len(set(results)) and outcome.modes == ["RGBA", "RGB", "RGB"] * 12
    assert {result[0] for result in results} >= {"one cats, a red car", "three cats, a blue car"}
    assert outcome.p.all_seeds == list(range(11, 11 + 36)) and outcome.p.n_iter == batches


def test_combinations_that_do_not_fill_the_last_batch(a1111) -> None:
    with_script(a1111, expanding.Combinations)
    outcome, texts = ran(a1111, {"method": "sd15_joint"}, prompt="{a|b|c}", batch_size=6)
    assert texts == ["a"] * 3 + ["b"] * 3 + ["c"] * 3 and outcome.modes == ["RGBA", "RGB", "RGB"] * 3


def test_a_list_of_prompts_that_frames_do_not_divide(a1111) -> None:
    """Prompt matrix gives such lists."""
    outcome, texts = ran(a1111, {"method": "sd15_joint"}, prompt=["a", "b"], n_iter=2, seed=[5, 5])
    assert texts == ["a"] * 3 + ["b"] * 3 and outcome.p.all_seeds == [5, 6, 7, 5, 6, 7]


def test_one_seed_for_all_is_one_seed_for_all_results(a1111) -> None:
    with_script(a1111, expanding.FixedSeed)
    outcome, _ = ran(a1111, {"method": "sd15_joint"}, prompt=MAIN, batch_size=6)
    assert outcome.p.all_seeds == [11, 12, 13, 11, 12, 13]


def test_seeds_of_results_leave_room_for_frames() -> None:
    assert spread([5, 6, 7], 2, 1) == [5, 6, 7, 8, 9, 10]
    assert spread([5, 5], 3, 1) == [5, 6, 7, 5, 6, 7] and spread([5, 5], 2, 0) == [5, 5, 5, 5]


@pytest.mark.parametrize("extra", ["{b|b}", "b"])
def test_words_in_front_of_and_behind_every_prompt(a1111, extra) -> None:
    with_script(a1111, expanding.Adding)
    _, texts = ran(a1111, {"method": "sd15_joint", "bg_additional_prompt": extra}, prompt="car")
    joined = f"best, {extra}, car, sharp" if "{" in extra else "b, best, car, sharp"
    assert texts == ["best, car, sharp", joined, "best, car, sharp"]


def test_a_script_that_replaces_prompts(a1111) -> None:
    with_script(a1111, expanding.Replacing)
    outcome, texts = ran(a1111, {"method": "sd15_joint", **EXTRAS})
    assert texts == [f"{FOREGROUND}, something else", f"{BACKGROUND}, something else", "something else"]
    assert "as they were typed" in outcome.note and outcome.note.count("typed") == 1


def test_a_script_that_spoils_the_lists(a1111) -> None:
    before, state = plainly(a1111), Snapshot.of(a1111)
    with_script(a1111, expanding.Spoiling)
    p = job(a1111, {"method": "sd15_joint", **EXTRAS}, steps=1)
    p.prompt = ["a", "b"]
    processed = run_closing(a1111, p)
    assert processed.images == [] and "report it" in processed.comments and not a1111.errors
    a1111.extra_scripts = []
    a1111.reload_ui()
    state.check(a1111)
    assert same_pictures(run(a1111, steps=1), before)


@pytest.mark.parametrize("first", [True, False], ids=["before ours", "behind ours"])
def test_a_refused_job_leaves_no_marks(a1111, first) -> None:
    with_script(a1111, expanding.FirstPrompt, first)
    outcome = run(a1111, {"method": "sd15_fg2bg", **EXTRAS}, prompt=MAIN, steps=1)
    assert outcome.pictures == [] and "fg_image" in outcome.error and not a1111.errors
    left = str([vars(outcome.p), outcome.processed.infotexts, outcome.processed.js()])
    assert MARK not in left and SEPARATOR not in left and outcome.p.prompt == MAIN


# --- styles, second pass, AND


@pytest.mark.parametrize(
    ("styles", "prompt", "wanted"),
    [
        (["oil"], "car", "two, car, oil"),
        (["oil painting of {prompt}, dark"], "car", "oil painting of two, car, dark"),
        (["oil painting of {prompt}, dark", "sharp"], "car", "oil painting of two, car, dark, sharp"),
        (["oil"], "", "two, oil"),
        (["a {wide|wide} shot of {prompt}"], "car", "a wide shot of two, car"),
    ],
)
@pytest.mark.parametrize("extra", ["two", "{two|two}"])
def test_styles_hold_for_the_joined_prompt(a1111, styles, prompt, wanted, extra) -> None:
    with_script(a1111, expanding.FirstPrompt)
    layer = {"method": "sd15_joint", "fg_additional_prompt": extra}
    outcome, texts = ran(a1111, layer, prompt=prompt, styles=styles, n_iter=2)
    plain, _ = ran(a1111, {"method": "sd15_joint"}, prompt=prompt, styles=styles, n_iter=2)
    assert texts[0] == texts[3] == wanted and outcome.p.prompt == plain.p.prompt
    assert outcome.p.all_prompts == plain.p.all_prompts and outcome.p.main_prompt == plain.p.main_prompt


@pytest.mark.parametrize("hr_prompt", ["", "a bus"])
def test_the_second_pass_has_the_same_extra_prompts(a1111, hr_prompt) -> None:
    with_script(a1111, expanding.FirstPrompt)
    fields = {"enable_hr": True, "hr_prompt": hr_prompt, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    outcome, texts = ran(a1111, {"method": "sd15_joint", **EXTRAS}, prompt=MAIN, **fields)
    first, second = texts[:3], texts[3:6]
    wanted = [text.replace(first[2], hr_prompt or first[2]) for text in first]
    assert second == wanted and outcome.p.hr_prompt == (hr_prompt or MAIN)
    assert outcome.p.all_hr_prompts == ([hr_prompt] * 3 if hr_prompt else outcome.p.all_prompts)


@pytest.mark.parametrize("prompt", ["a red apple", "a red apple AND a pear :0.5"])
def test_and_in_an_extra_prompt(sd15, prompt) -> None:
    """It divides the joined prompt, as if it were typed there; the other frames get parts without weight."""
    layer = {"method": "sd15_joint", "fg_additional_prompt": "cats AND dogs"}
    outcome, texts = ran(sd15, layer, prompt=prompt, batch_size=6)
    main = prompt.removesuffix(" :0.5").split(" AND ")
    joined = ["cats", f"dogs, {main[0]}", *main[1:]], [*main, main[-1]], [*main, main[-1]]
    assert [text.strip() for text in texts] == [text for parts in joined for text in parts] * 2
    assert outcome.modes == ["RGBA", "RGB", "RGB"] * 2
    alone, _ = ran(sd15, layer, prompt=prompt, seed=14)
    assert torch.allclose(outcome.samples[3:], alone.samples, rtol=1e-3, atol=2e-3)


def test_parts_without_weight_do_not_guide(a1111) -> None:
    """The same prompt for all frames, with as many parts more as its neighbour has."""
    assert evened(["a AND b :0.3", "c", "(d:1.2)", "[e:f:0.5] AND g"]) == [
        "a AND b :0.3",
        "c AND c :0",
        "(d:1.2) AND (d:1.2) :0",
        "[e:f:0.5] AND g",
    ]
    plain, _ = ran(a1111, {"method": "sd15_joint"})
    more, _ = ran(a1111, {"method": "sd15_joint"}, prompt="a red apple AND a red apple :0")
    assert torch.allclose(more.samples, plain.samples, rtol=1e-2, atol=2e-2)


# --- networks


@pytest.mark.parametrize("place", NAMES.values())
def test_a_lora_in_any_extra_prompt_is_loaded_for_the_batch(sd15, place) -> None:
    joint, tag = {"method": "sd15_joint"}, "<lora:style:1>"
    in_main, _ = ran(sd15, joint, prompt=f"a red apple {tag}")
    in_extra, texts = ran(sd15, joint | {place: tag})
    assert torch.equal(in_extra.samples, in_main.samples) and texts == ["a red apple"] * 3
    assert f"{tag} in an extra prompt works on all" in in_extra.note
    without, _ = ran(sd15, joint)
    assert not torch.equal(without.samples, in_main.samples) and not without.note.count("lora")
    assert all(parameters(text)[f"layerdiffusion_{place}"] == tag for text in told(in_extra))


def test_a_lora_that_the_main_prompt_names_too_is_loaded_once(sd15) -> None:
    joint, tag = {"method": "sd15_joint"}, "<lora:style:1>"
    in_main, _ = ran(sd15, joint, prompt=f"a red apple {tag}")
    both, _ = ran(sd15, joint | {"bg_additional_prompt": tag}, prompt=f"a red apple {tag}")
    assert torch.equal(both.samples, in_main.samples)


def test_a_lora_in_the_second_pass(a1111) -> None:
    fields = {"enable_hr": True, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    joint, tag = {"method": "sd15_joint"}, "<lora:style:1>"
    ran(a1111, joint, prompt=f"a red apple {tag}", **fields)
    wanted = a1111.second_pass
    ran(a1111, joint | {"blend_additional_prompt": tag}, **fields)
    assert torch.equal(a1111.second_pass, wanted)


def test_a_lora_that_a_variant_chooses(a1111) -> None:
    with_script(a1111, expanding.FirstPrompt)
    joint = {"method": "sd15_joint", "bg_additional_prompt": "{<lora:style:1>|<lora:style:1>} rain"}
    outcome, texts = ran(a1111, joint)
    assert texts[1].strip() == "rain, a red apple" and "<lora:style:1>" in outcome.note
    assert parameters(told(outcome)[0])["layerdiffusion_bg_additional_prompt"] == "<lora:style:1> rain"


def test_networks_that_are_switched_off(a1111) -> None:
    joint = {"method": "sd15_joint", "fg_additional_prompt": "cats <lora:style:1>"}
    outcome, texts = ran(a1111, joint, disable_extra_networks=True)
    assert "passed over" in outcome.note and texts[0].strip() == "cats, a red apple"


# --- templates


@pytest.mark.parametrize(
    "text", ["a cat", "(a:1.2), [b:c:0.5], [d|e]", "100-year-old", "<lora:x_y:0.8> cat", "ein Mädchen", ""]
)
def test_what_no_script_expands(text) -> None:
    assert not is_template(text)


@pytest.mark.parametrize(
    "text", ["{a|b}", "__animal__", "${x}", "<[tag]>", "a <wild> cat", "**x**", "{{ jinja }}", "@x"]
)
def test_what_a_script_may_expand(text) -> None:
    assert is_template(text)
