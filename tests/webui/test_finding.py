"""Finding out why a job has no alpha: the WebUI runs it again, shorter, and is left as it was."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.expanding import EachPrompt
from fakes.prompts import loras_of
from fakes.running import Snapshot, job, layer_of, picture, plainly, raising, run, same_pictures
from fakes.selectable import Loop, SDUpscale, run_script

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.core.picture import verdicts
from lib_layerdiffuse.diagnosis import trials
from lib_layerdiffuse.diagnosis.findings import UNFINISHED
from lib_layerdiffuse.diagnosis.trials import AS_IT_WAS, GREY, TOGETHER
from lib_layerdiffuse.form.arguments import ARGUMENTS
from lib_layerdiffuse.webui.finding import recipes as keeping
from lib_layerdiffuse.webui.finding import trial_jobs
from lib_layerdiffuse.webui.finding.answers import for_api, for_page, last
from lib_layerdiffuse.webui.finding.finding_out import find_out
from lib_layerdiffuse.webui.finding.recipes import Recipes
from lib_layerdiffuse.webui.finding.trial_jobs import trial_of
from lib_layerdiffuse.webui.tile_scripts import selected

FG, JOINT = find_method("sd15_fg"), find_method("sd15_joint")
BROKEN = {"weight": 0.2, "ending_step": 0.5}
PROMPT = "a cat in a forest <lora:one:1>"
NAMES = [
    AS_IT_WAS,
    "Weight and Stop At 1",
    "without LoRAs",
    "20 steps",
    "another sampler",
    GREY,
    "no scene in the prompt",
    TOGETHER,
]
PAGE = "a page of this name"
FEW, MANY = 1, 2  # steps of a short run, and of one with more


@pytest.fixture(autouse=True)
def recipes(a1111, monkeypatch) -> Recipes:
    """The last jobs, of this test alone."""
    kept = Recipes()
    monkeypatch.setattr(trials, "USUAL_STEPS", MANY)
    monkeypatch.setattr(trial_jobs, "STEPS", FEW)
    monkeypatch.setattr(type(a1111.runners[False].ours), "recipes", kept)
    return kept


@pytest.fixture
def jobs(monkeypatch) -> list[Any]:
    """The `p` of all jobs that are processed from now on, as they come in."""
    seen: list[Any] = []
    processing = sys.modules["fakes.processing"]
    original = processing.process_images

    def process(p: Any) -> Any:
        seen.append(p)
        return original(p)

    monkeypatch.setattr(processing, "process_images", process)
    return seen


@pytest.fixture
def only(monkeypatch) -> Callable[..., None]:
    """Leaves these of the runs beside the job as it was, and all together, where a test is not about the rows."""

    def leave(*wanted: str) -> None:
        monkeypatch.setattr(trials, "TRIALS", [trial for trial in trials.TRIALS if trial.name in wanted])

    return leave


def asked(webui: Any, **fields: Any) -> Any:
    """A job that fails, of the API."""
    return run(webui, {**layer_of(FG), **BROKEN}, **({"prompt": PROMPT, "steps": 2} | fields))


def names(found: list[Any]) -> list[str]:
    return [finding.name for finding in found]


def files_in(webui: Any) -> list[str]:
    return sorted(str(path) for path in Path(webui.folder).rglob("*") if path.is_file())


def test_the_job_is_run_again_with_one_thing_otherwise(make_webui, flavour, recipes, jobs) -> None:
    webui = make_webui(flavour, "sd15")
    asked(webui, seed=7, batch_size=3, n_iter=2, negative_prompt="ugly")
    found = find_out(last(recipes, "", "txt2img"))
    assert names(found) == NAMES and not webui.errors
    assert all(len(finding.figures) == 2 and not finding.error for finding in found)
    baseline, *others = jobs
    assert (baseline.prompt, baseline.negative_prompt, baseline.seed) == (PROMPT, "ugly", 7)
    assert {p.seed for p in others} == {7} and {p.steps for p in others} == {FEW, MANY}
    by_name = dict(zip(NAMES, jobs, strict=True))
    assert by_name["without LoRAs"].prompt == "a cat in a forest"
    assert by_name["no scene in the prompt"].prompt == "a cat <lora:one:1>"
    assert by_name[GREY].prompt == f"{PROMPT}, {GREY}"
    assert by_name["another sampler"].sampler_name == "DDIM" != baseline.sampler_name
    assert by_name[TOGETHER].prompt == f"a cat, {GREY}" and by_name[TOGETHER].steps == MANY


def test_the_run_as_it_was_gives_the_same_alpha(make_webui, flavour, recipes, only) -> None:
    only(NAMES[1])
    webui = make_webui(flavour, "sd15")
    outcome = asked(webui, steps=FEW)
    found = find_out(last(recipes, "", "txt2img"))
    assert found[0].figures == (verdicts.AlphaFigures.of(outcome.pictures[0]),)
    assert found[1].figures != found[0].figures


def test_nothing_is_saved_and_nothing_is_left(make_webui, flavour, recipes, only) -> None:
    only("without LoRAs")
    webui = make_webui(flavour, "sd15")
    before, state = plainly(webui), Snapshot.of(webui)
    with webui.settings(save_images_before_highres_fix=True):
        asked(webui, enable_hr=True, restore_faces=True)
        files, settings = files_in(webui), dict(webui.opts.data)
        find_out(last(recipes, "", "txt2img"))
        assert files_in(webui) == files and webui.opts.data == settings
    state.check(webui)
    assert same_pictures(run(webui, steps=1), before) and not webui.errors


@pytest.mark.parametrize("before", [None, "the user's"])
def test_the_history_is_as_it_was(make_webui, recipes, only, monkeypatch, before) -> None:
    only(NAMES[1])
    webui = make_webui("a1111", "sd15")
    asked(webui)
    path = Path(webui.folder, "params.txt")
    if before is not None:
        path.write_text(before, encoding="utf-8")
    processing = sys.modules["fakes.processing"]
    original = processing.process_images

    def process(p: Any) -> Any:
        path.write_text("a short run's", encoding="utf-8")
        return original(p)

    monkeypatch.setattr(processing, "process_images", process)
    find_out(last(recipes, "", "txt2img"))
    assert (path.read_text(encoding="utf-8") if path.exists() else None) == before


def test_start_pictures_are_taken_again_and_one_run_goes_without(make_webui, flavour, recipes, only, jobs) -> None:
    only("no start picture")
    webui = make_webui(flavour, "sd15")
    start = picture(alpha=False)
    with webui.settings(save_init_img=True):
        asked(webui, init_images=[start], denoising_strength=0.3)
        shutil.rmtree(Path(webui.folder, "outputs"))  # or the start picture would be written over itself
        found = find_out(last(recipes, "", "img2img"))
        assert not Path(webui.folder, "outputs").exists() and webui.opts.save_init_img
    assert all(p.init_images[0].tobytes() == start.tobytes() for p in jobs if not p.sampler)
    without = dict(zip(names(found), jobs, strict=True))["no start picture"]
    assert without.denoising_strength == 1 and jobs[0].denoising_strength == 0.3
    with pytest.raises(InputError, match="no job in txt2img"):
        last(recipes, "", "txt2img")


def test_several_frames_are_run_as_a_whole(make_webui, recipes, only, jobs) -> None:
    only(GREY)
    webui = make_webui("a1111", "sd15")
    run(webui, {**layer_of(JOINT), "bg_additional_prompt": "a wall"}, steps=1, batch_size=3)
    found = find_out(last(recipes, "", "txt2img"))
    assert found[0].figures and all(len(p.all_prompts) == 3 for p in jobs) and not webui.errors


def test_chains_are_run_as_a_whole(make_webui, recipes, only, jobs) -> None:
    only(GREY)
    webui = make_webui("a1111", "sdxl")
    run(webui, {"method": "xl_joint"}, steps=1)
    jobs.clear()
    found = find_out(last(recipes, "", "txt2img"))
    assert len(jobs) == 3 * len(found) and found[0].figures and not webui.errors


OWN_WORDS = ("fg_additional_prompt", "bg_additional_prompt", "blend_additional_prompt")


def networks(jobs: list[Any], name: str, found: list[Any], steps: int = 1) -> list[Any]:
    """What the jobs of one short run loaded."""
    first = names(found).index(name) * steps
    return [loras_of(p.extra_network_data) for p in jobs[first : first + steps]]


@pytest.mark.parametrize("layer", OWN_WORDS)
@pytest.mark.parametrize("main", ["a cat", "a cat <lora:one:1>", "<lora:one:1>"])
def test_loras_of_layers_own_words_are_left_out_too(sd15, recipes, only, jobs, layer, main) -> None:
    only("without LoRAs", GREY)
    run(sd15, {**layer_of(JOINT), layer: "fur <lora:two:1>"}, steps=2, prompt=main, batch_size=3)
    jobs.clear()
    recipe = last(recipes, "", "txt2img")
    found = find_out(recipe)
    assert recipe.facts.loras == ("one, two" if "one" in main else "two") and not sd15.errors
    assert ("two", 1.0) in networks(jobs, AS_IT_WAS, found)[0] and networks(jobs, GREY, found)[0]
    assert networks(jobs, "without LoRAs", found) == networks(jobs, TOGETHER, found) == [()]
    assert trial_of(jobs[0]).arguments != trial_of(jobs[names(found).index("without LoRAs")]).arguments


@pytest.mark.parametrize("layer", OWN_WORDS)
def test_loras_of_layers_are_left_out_of_every_step_of_a_chain(make_webui, recipes, only, jobs, layer) -> None:
    only("without LoRAs")
    webui = make_webui("a1111", "sdxl")
    run(webui, {"method": "xl_joint", layer: "fur <lora:two:1>"}, steps=1)
    jobs.clear()
    found = find_out(last(recipes, "", "txt2img"))
    assert any(networks(jobs, AS_IT_WAS, found, 3)) and not any(networks(jobs, "without LoRAs", found, 3))


def test_short_runs_have_the_words_that_a_script_chose_for_layers(make_webui, recipes, only, jobs) -> None:
    only("without LoRAs")
    webui = make_webui("a1111", "sd15")
    webui.extra_scripts = [EachPrompt]
    webui.reload_ui()
    layer = {**layer_of(JOINT), "fg_additional_prompt": "{<lora:one:1>|<lora:two:1>|<lora:three:1>} {a|b|c|d|e|f}"}
    outcome = run(webui, layer, steps=2, batch_size=3)
    chosen = outcome.parameters["layerdiffusion_fg_additional_prompt"]
    jobs.clear()
    found = find_out(last(recipes, "", "txt2img"))
    told = [trial_of(p).arguments.fg_additional_prompt for p in jobs]
    assert told[0] == chosen and "{" not in chosen
    assert told[names(found).index("without LoRAs")] == chosen[-1]


def test_what_a_plot_set_counts_and_is_not_set_again(make_webui, recipes, only) -> None:
    only(NAMES[1])
    webui = make_webui("a1111", "sd15")
    p = job(webui, {**layer_of(FG)}, steps=FEW, prompt="a cat")
    p.layerdiffuse_axes = {"weight": 0.3}
    sys.modules["fakes.processing"].process_images(p)
    recipe = last(recipes, "", "txt2img")
    assert recipe.facts.weight == recipe.arguments.weight == 0.3
    found = find_out(recipe)
    assert names(found)[:2] == NAMES[:2] and found[0].figures != found[1].figures


def test_what_is_kept_of_a_chosen_script_is_its_last_job(make_webui, recipes, only) -> None:
    only(NAMES[1])
    webui = make_webui("a1111", "sd15")
    webui.extra_scripts = [Loop]
    run_script(webui.reload_ui(), Loop, {**layer_of(FG), **BROKEN}, 2, init_images=[picture()], steps=1)
    recipe = last(recipes, "", "img2img")
    assert not hasattr(recipe.p, selected.ATTRIBUTE) and recipe.p.init_images[0].tobytes() != picture().tobytes()
    assert find_out(recipe)[0].figures and not webui.errors


def test_an_interrupt_ends_it_and_the_table_so_far_stays(make_webui, flavour, recipes) -> None:
    webui = make_webui(flavour, "sd15")
    asked(webui)
    calls = 0

    def interrupt(_parameters: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            webui.state.interrupt()

    webui.callbacks.lists["cfg_denoiser"].append(interrupt)
    found = find_out(last(recipes, "", "txt2img"))
    assert names(found) == NAMES[:3] and found[1].figures and not found[2].figures
    webui.fresh_state()
    assert asked(webui).error is None


def test_a_run_that_fails_is_told_and_the_others_go_on(make_webui, flavour, recipes, jobs) -> None:
    webui = make_webui(flavour, "sd15")
    state = Snapshot.of(webui)
    asked(webui)
    with raising(webui, RuntimeError("shapes cannot be multiplied"), at_call=2):
        found = find_out(last(recipes, "", "txt2img"))
    run(webui, steps=1)  # which loads no LoRA
    state.check(webui)
    assert names(found) == NAMES and [bool(finding.error) for finding in found].count(True) == 1
    assert all(p.sampler is None for p in jobs)  # closed


def test_another_checkpoint_is_told_once(make_webui, recipes) -> None:
    webui = make_webui("a1111", "sd15")
    asked(webui)
    webui.opts.set("sd_model_checkpoint", "sd15-two")
    (found,) = find_out(last(recipes, "", "txt2img"))
    assert "sd15-two" in found.error and "sd15-one" in found.error


def test_one_progress_bar(make_webui, recipes) -> None:
    webui = make_webui("a1111", "sd15")
    asked(webui, n_iter=3)
    webui.fresh_state()
    seen = []
    webui.callbacks.lists["cfg_denoiser"].append(lambda _: seen.append((webui.state.job_no, webui.state.job_count)))
    find_out(last(recipes, "", "txt2img"))
    assert {count for _, count in seen} == {len(NAMES)}
    assert sorted({number for number, _ in seen}) == list(range(len(NAMES)))


@pytest.mark.parametrize(("is_api", "told"), [(True, GREY), (False, "提示词加 plain grey background")])
def test_the_progress_bar_tells_the_runs_in_the_language_of_the_page(make_webui, recipes, only, is_api, told) -> None:
    only(GREY)
    webui, seen = make_webui("a1111", "sd15"), []
    webui.callbacks.lists["cfg_denoiser"].append(lambda _: seen.append(webui.state.textinfo))
    with webui.settings(localization="zh_CN"):
        asked(webui, is_api=is_api)
        find_out(last(recipes, "", "txt2img"))
    assert told in seen


def page(**layer: Any) -> list[Any]:
    """What a page sends: all arguments, then its name."""
    values = {argument.name: argument.default for argument in ARGUMENTS} | {"enabled": True} | layer
    return [*values.values(), PAGE]


def test_a_page_asks_for_its_own_last_job(make_webui, flavour, recipes, only) -> None:
    only(GREY, NAMES[1])
    webui = make_webui(flavour, "sd15")
    run(webui, page(**layer_of(FG), **BROKEN), steps=FEW, prompt="a cat")
    run(webui, layer_of(FG), steps=FEW, prompt="another's")
    assert recipes.get(PAGE, "txt2img").facts.weight == 0.2 and recipes.get("", "txt2img").facts.weight == 1
    (told,) = for_page(recipes, "txt2img", PAGE)
    assert "<table>" in told and all(f"<span>{name}</span>" in told for name in (AS_IT_WAS, GREY, NAMES[1]))
    (told,) = for_page(recipes, "img2img", PAGE)
    assert "no job in img2img" in told and "<table>" not in told
    assert webui.runners[False].ours.last.get(PAGE, "foreground") is not None


def test_short_runs_are_nobodys_last_results(make_webui, recipes, only) -> None:
    only(NAMES[1])
    webui = make_webui("a1111", "sd15")
    run(webui, page(**layer_of(FG), **BROKEN), steps=2)
    ours = webui.runners[False].ours
    kept, recipe = ours.last.get(PAGE, "foreground"), recipes.get(PAGE, "txt2img")
    for_page(recipes, "txt2img", PAGE)
    assert ours.last.get(PAGE, "foreground") is kept and recipes.get(PAGE, "txt2img") is recipe


def test_the_answer_as_data(make_webui, recipes) -> None:
    webui = make_webui("a1111", "sd15")
    asked(webui)
    told = for_api(recipes, "txt2img")
    assert [row["name"] for row in told["runs"]] == NAMES and isinstance(told["conclusion"], str)
    first = told["runs"][0]["pictures"][0]
    assert first["verdict"] == "haze" and first["between"] > 0.6 and webui.state.job_count == 0


def test_only_so_many_jobs_are_kept(make_webui, recipes, monkeypatch) -> None:
    monkeypatch.setattr(keeping, "MOST", 2)
    webui = make_webui("a1111", "sd15")
    for name in ("one", "two", "three"):
        run(webui, [*page(**layer_of(FG))[:-1], name], steps=1)
    assert recipes.get("one", "txt2img") is None and recipes.get("three", "txt2img") is not None


def test_plain_jobs_failed_jobs_and_tiles_are_not_asked_about(make_webui, recipes) -> None:
    webui = make_webui("a1111", "sd15")
    run(webui, steps=1)
    assert run(webui, {"method": "xl_fg_attn"}, steps=1).error
    webui.extra_scripts = [SDUpscale]
    run_script(webui.reload_ui(), SDUpscale, layer_of(FG), 16, 1.5, init_images=[picture()], steps=1)
    assert recipes.get("", "img2img") is None
    assert recipes.get("", "txt2img") is None


def test_the_conclusion_of_a_job_that_cannot_run(make_webui, recipes) -> None:
    webui = make_webui("a1111", "sd15")
    asked(webui)
    with raising(webui, RuntimeError("no memory")):
        told = for_api(recipes, "txt2img")
    assert told["conclusion"] == UNFINISHED and told["runs"][0]["error"]
