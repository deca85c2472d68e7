"""Chains in one job: the steps that a user would run by hand, as one result, however it ends."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fakes import expanding
from fakes.processing import process_images
from fakes.running import IMAGE_ARGUMENTS, Snapshot, job, networks_of, picture, plainly, raising, run, same_pictures
from fakes.scripts import ALWAYS_VISIBLE, Script
from fakes.selectable import KINDS, SDUpscale, run_script
from fakes.webui import NansException
from PIL import Image

from lib_layerdiffuse.form.arguments import from_infotext
from lib_layerdiffuse.form.frames import FRAMES as ROWS
from lib_layerdiffuse.form.ways import CHAINS, find_way
from lib_layerdiffuse.sets.chains import FRAMES

JOINT = {"method": "xl_joint"}
EACH = pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.id)
ONE_STEP = {"steps": 1}
PROMPT = {name: frame.prompt for name, frame in ROWS.items()}
SEED = {name: frame.seed for name, frame in ROWS.items()}
ROUNDING = 2  # levels of 255 by which another batch size may change a picture
FAULTS = [(RuntimeError("shapes cannot be multiplied"), 2), (torch.cuda.OutOfMemoryError("CUDA out of memory"), 3)]


@pytest.fixture
def webui(make_webui) -> Any:
    """AUTOMATIC1111 with an SDXL checkpoint."""
    return make_webui("a1111", "sdxl")


def layer_of(chain: Any, **more: Any) -> dict[str, Any]:
    """What a chain needs: its name and its pictures."""
    images = {IMAGE_ARGUMENTS[frame]: picture(seed=place) for place, frame in enumerate(chain.images)}
    return {"method": chain.id, **images, **more}


def frames_of(chain: Any) -> list[str]:
    """What a set has, in the order of the result."""
    return [frame for frame in FRAMES if frame in chain.makes]


def layers(outcome: Any) -> dict[str, np.ndarray]:
    """The first set's layers by frame, as the result names them."""
    return dict(zip(reversed(outcome.parameters["layerdiffusion_layer"]), reversed(outcome.arrays), strict=True))


def parameters(text: str) -> dict[str, str]:
    """The generation parameters of an infotext."""
    pairs = re.findall(r'(\w[\w ]*): ("(?:\\.|[^"])*"|[^,]*)', text.split("\n")[-1])
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}


def texts(outcome: Any) -> list[str]:
    """Infotexts of the pictures."""
    return outcome.processed.infotexts[outcome.processed.index_of_first_image :]


def saved(webui: Any) -> list[str]:
    """Names of all files but grids."""
    return sorted(path.stem for path in Path(webui.folder, "outputs", "txt2img-images").glob("*.png"))


def kept_layers(webui: Any) -> list[str]:
    """Names of the files of layers, whatever plain pictures lie beside them."""
    return [name for name in saved(webui) if name.rpartition("-")[2] in FRAMES]


def by_hand(webui: Any, chain: Any, own: dict[str, dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    """The layers of a chain made by its single steps, each given the pictures of those before; `own` are fields."""
    made: dict[str, Any] = {frame: picture(seed=place) for place, frame in enumerate(chain.images)}
    for step in chain.steps:
        (frame,) = step.makes
        images = {IMAGE_ARGUMENTS[given.frame]: made[given.frame] for given in step.given}
        outcome = run(webui, {"method": step.method, **images}, **(fields | (own or {}).get(frame, {})))
        assert outcome.error is None
        made[frame] = outcome.pictures[0]
    return {frame: np.asarray(made[frame]) for frame in chain.makes}


def same_layers(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two sets are the same to the bit."""
    return one.keys() == other.keys() and all(np.array_equal(one[frame], other[frame]) for frame in one)


def with_script(webui: Any, *scripts: type) -> Any:
    """The WebUI with other always-on scripts."""
    webui.extra_scripts = list(scripts)
    return webui.reload_ui()


class AlwaysOn(Script):
    """A script of another extension."""

    args_from = args_to = 0

    def show(self, is_img2img: bool) -> Any:
        return ALWAYS_VISIBLE


# --- what comes out


@EACH
def test_a_chain_gives_what_its_single_steps_give(make_webui, flavour, chain) -> None:
    webui = make_webui(flavour, "sdxl")
    before, state = plainly(webui), Snapshot.of(webui)
    outcome = run(webui, layer_of(chain), **ONE_STEP)
    assert not webui.errors and outcome.error is None and not outcome.note and not outcome.processed.comments
    assert outcome.parameters["layerdiffusion_layer"] == frames_of(chain)
    assert outcome.modes == ["RGBA" if chain.transparent(frame) else "RGB" for frame in frames_of(chain)]
    state.check(webui)
    assert same_pictures(run(webui, **ONE_STEP), before)
    assert same_layers(layers(outcome), by_hand(webui, chain, **ONE_STEP))


@EACH
def test_each_layer_is_saved_once_under_its_name(webui, chain) -> None:
    run(webui, layer_of(chain), batch_size=2, **ONE_STEP)
    assert Counter(name.rpartition("-")[2] for name in saved(webui)) == dict.fromkeys(chain.makes, 2)


def test_sets_of_batches_and_of_more_batches_do_not_mix(sdxl) -> None:
    many = run(sdxl, JOINT, batch_size=2, n_iter=2, **ONE_STEP)
    assert many.parameters["layerdiffusion_layer"] == [*FRAMES] * 4 and not sdxl.errors
    for number in range(4):
        alone = run(sdxl, JOINT, seed=11 + number, **ONE_STEP)
        pairs = zip(many.arrays[3 * number : 3 * number + 3], alone.arrays, strict=True)
        assert all(np.abs(one.astype(int) - other).max() <= ROUNDING for one, other in pairs)
        assert parameters(texts(many)[3 * number])["Seed"] == str(11 + number)
    assert many.processed.all_seeds == [11] * 3 + [12] * 3 + [13] * 3 + [14] * 3


def test_parts_joined_by_and_see_their_own_set(webui) -> None:
    fields = {"prompt": "a cat AND a tree :4", "steps": 1}
    alone = [run(webui, JOINT, seed=seed, **fields) for seed in (11, 12)]
    for together in (True, False):
        with webui.settings(batch_cond_uncond=together):
            both = run(webui, JOINT, batch_size=2, **fields)
        pairs = zip(both.arrays, alone[0].arrays + alone[1].arrays, strict=True)
        assert all(np.abs(one.astype(int) - other).max() <= ROUNDING for one, other in pairs)
    assert not webui.errors


def test_the_last_results_are_the_layers(webui) -> None:
    sent = job(webui, JOINT).script_args
    outcome = run(webui, [*sent, "visitor"], **ONE_STEP)
    for frame, pixels in layers(outcome).items():
        assert np.array_equal(np.asarray(webui.runners[False].ours.last.get("visitor", frame)), pixels)


def test_opaque_pictures_that_are_wanted_too_come_after_the_sets(webui) -> None:
    alone = run(webui, JOINT, batch_size=2, **ONE_STEP)
    outcome = run(webui, JOINT | {"output_origin": True}, batch_size=2, **ONE_STEP)
    assert all(map(np.array_equal, outcome.arrays, alone.arrays))
    assert outcome.modes[6:] == ["RGB"] * 2 and outcome.parameters["layerdiffusion_layer"][6:] == [""] * 2
    assert len(texts(outcome)) == 8 and outcome.processed.all_seeds == [11] * 3 + [12] * 3 + [11, 12]


@pytest.mark.parametrize(
    ("settings", "grids"), [({"return_grid": True}, 1), ({"return_grid": False, "grid_save": False}, 0)]
)
def test_one_grid_of_all_layers(webui, settings, grids) -> None:
    with webui.settings(**settings):
        outcome = run(webui, JOINT, **ONE_STEP)
    assert outcome.processed.index_of_first_image == grids and len(outcome.processed.images) == 3 + grids
    assert len(list(Path(webui.folder, "outputs", "grids").glob("*"))) == grids
    if grids:
        assert outcome.processed.images[0].size == (192, 64)
        assert "layerdiffusion_method" in outcome.processed.infotexts[0]


def test_an_api_gets_all_layers_with_alpha_in_a_format_without(webui) -> None:
    with webui.settings(samples_format="jpg"):
        outcome = run(webui, JOINT, is_api=True, do_not_save_grid=True, **ONE_STEP)
    kinds = [type(image) for image in outcome.processed.images]
    assert kinds == [str, Image.Image, Image.Image]
    told = json.loads(outcome.processed.js())
    assert told["extra_generation_params"]["layerdiffusion_layer"] == [*FRAMES] and len(told["infotexts"]) == 3


def test_hires_fix_in_every_step(webui) -> None:
    outcome = run(webui, JOINT, enable_hr=True, hr_scale=1.5, width=64, **ONE_STEP)
    assert outcome.modes == ["RGBA", "RGB", "RGB"] and not webui.errors and not outcome.note
    assert {image.size for image in outcome.pictures} == {(96, 96)}
    chain = find_way("xl_joint")
    assert same_layers(layers(outcome), by_hand(webui, chain, enable_hr=True, hr_scale=1.5, width=64, **ONE_STEP))


def test_in_img2img_every_layer_starts_from_the_start_picture(sdxl) -> None:
    start = {"init_images": [picture(seed=7)], "steps": 2}
    outcome = run(sdxl, JOINT, **start)
    assert outcome.modes == ["RGBA", "RGB", "RGB"] and outcome.error is None and not sdxl.errors
    assert same_layers(layers(outcome), by_hand(sdxl, find_way("xl_joint"), **start))


# --- prompts and seeds


def test_a_prompt_and_a_seed_for_each_layer(sdxl) -> None:
    own = {"foreground": ("a cat", 5), "background": ("a meadow", 77), "blended": ("", 123)}
    sent = {PROMPT[frame]: prompt for frame, (prompt, _) in own.items()}
    sent |= {SEED[frame]: seed for frame, (_, seed) in own.items()}
    outcome = run(sdxl, JOINT | sent, **ONE_STEP)
    fields = {
        frame: {"prompt": ", ".join(filter(None, (prompt, "a red apple"))), "seed": seed}
        for frame, (prompt, seed) in own.items()
    }
    assert same_layers(layers(outcome), by_hand(sdxl, find_way("xl_joint"), fields, **ONE_STEP))
    assert not outcome.note and not sdxl.errors


def test_pasting_any_layer_restores_its_set(webui) -> None:
    sent = JOINT | {"fg_seed": 5, "bg_seed": 2**32 - 1, "bg_additional_prompt": "a meadow", "weight": 0.9}
    both = run(webui, sent, batch_size=2, **ONE_STEP)
    for place, text in enumerate(texts(both)):
        told = parameters(text)
        assert text.startswith("a red apple\n") and told["Seed"] == str(11 + place // 3)
        assert told["layerdiffusion_layer"] == FRAMES[place % 3]
    for number in range(2):
        found = [parameters(text) for text in texts(both)[3 * number : 3 * number + 3]]
        pasted = [from_infotext(told) for told in found]
        assert pasted[0] == pasted[1] == pasted[2]
        assert (pasted[0].method, pasted[0].weight) == ("xl_joint", 0.9)
        assert (pasted[0].fg_seed, pasted[0].bg_seed) == ((5, 2**32 - 1), (6, 0))[number]
        again = run(webui, vars(pasted[0]), seed=int(found[0]["Seed"]), **ONE_STEP)
        for one, other in zip(again.arrays, both.arrays[3 * number : 3 * number + 3], strict=True):
            assert np.abs(one.astype(int) - other).max() <= ROUNDING
        assert [parameters(text) for text in texts(again)] == found


def test_files_are_named_by_the_seed_of_their_set(webui) -> None:
    run(webui, JOINT | {"bg_seed": 77}, **ONE_STEP)
    assert [name.split("-", 1)[1] for name in saved(webui)] == ["11-foreground", "11-blended", "11-background"]


def test_one_seed_for_all_pictures_stays_one(webui) -> None:
    p = job(webui, JOINT | {"bg_seed": 3}, batch_size=2, seed=[4, 4], steps=1)
    outcome = process_images(p)
    assert p.all_seeds == [4, 4] and outcome.all_seeds == [4] * 6
    assert [parameters(text)["layerdiffusion_bg_seed"] for text in outcome.infotexts] == ["3"] * len(outcome.infotexts)


class Drawing(expanding.FirstPrompt):
    """Draws anew in each job, whatever its seed."""

    jobs = 0

    def process(self, p: Any) -> None:
        type(self).jobs, seed = self.jobs + 1, p.seed
        p.seed = 1000 * self.jobs
        super().process(p)
        p.seed, p.all_seeds = seed, [seed + place for place in range(len(p.all_seeds))]


@pytest.mark.parametrize("script", [expanding.EachPrompt, Drawing], ids=lambda script: script.__name__)
def test_variants_are_drawn_once_for_all_steps(webui, script) -> None:
    with_script(webui, script)
    sent = JOINT | {"bg_additional_prompt": "in {rain|snow|fog}"}
    outcome = run(webui, sent, prompt="a {red|blue|green} car", batch_size=4, **ONE_STEP)
    assert not webui.errors and not outcome.note
    for number in range(4):
        found = texts(outcome)[3 * number : 3 * number + 3]
        assert len({text.split("\n")[0] for text in found}) == 1 and "{" not in found[0].split("\n")[0]
        told = [parameters(text) for text in found]
        assert len({one["layerdiffusion_bg_additional_prompt"] for one in told}) == 1
        assert told[0]["layerdiffusion_bg_additional_prompt_template"] == "in {rain|snow|fog}"
        assert {one["Seed"] for one in told} == {str(11 + number)}
    assert len({text.split("\n")[0] for text in texts(outcome)}) > 1


def test_combinations_are_whole_sets(webui) -> None:
    with_script(webui, expanding.Combinations)
    outcome = run(webui, JOINT | {"bg_additional_prompt": "in {rain|snow}"}, prompt="a {red|blue} car", **ONE_STEP)
    assert outcome.parameters["layerdiffusion_layer"] == [*FRAMES] * 4 and not webui.errors
    told = [(text.split("\n")[0], parameters(text)["layerdiffusion_bg_additional_prompt"]) for text in texts(outcome)]
    assert Counter(told) == {
        (f"a {one} car", f"in {other}"): 3 for one in ("red", "blue") for other in ("rain", "snow")
    }


def test_styles_and_hires_prompts_hold_in_all_steps(webui) -> None:
    hires = {"enable_hr": True, "hr_scale": 1.0, "hr_prompt": "sharp", "steps": 1}
    sent = {"bg_additional_prompt": "a meadow", "styles": ["oil painting of {prompt}"]}
    styles = {"styles": sent.pop("styles")}
    outcome = run(webui, JOINT | sent, **hires, **styles)
    own = {"background": {"prompt": "a meadow, a red apple", "hr_prompt": "a meadow, sharp"}}
    assert same_layers(layers(outcome), by_hand(webui, find_way("xl_joint"), own, **hires, **styles))
    assert {text.split("\n")[0] for text in texts(outcome)} == {"oil painting of a red apple"}


def test_a_prompt_for_a_layer_that_is_given_is_told_to_be_unused(webui) -> None:
    chain = find_way("xl_fg2bg")
    outcome = run(webui, layer_of(chain, fg_additional_prompt="a cat"), **ONE_STEP)
    assert outcome.note == "fg_additional_prompt: not used by xl_fg2bg" and len(outcome.pictures) == 2


# --- other scripts


class Detailer(AlwaysOn):
    """Paints each picture anew by a job of its own, as ADetailer does, and counts."""

    painted: ClassVar[list[str]] = []

    def postprocess_image(self, p: Any, told: Any) -> None:
        if getattr(p, "_ad_inner", False):
            return
        inner = copy.copy(p)
        inner._ad_inner, inner.n_iter, inner.batch_size = True, 1, 1
        inner.do_not_save_samples = inner.do_not_save_grid = True
        process_images(inner)
        inner.close()
        self.painted.append(p.extra_generation_params.get("layerdiffusion_layer"))
        told.image = Image.fromarray(255 - np.asarray(told.image))


def test_adetailer_goes_over_each_layer_once_and_the_next_step_sees_what_it_made(webui) -> None:
    with_script(webui, Detailer)
    Detailer.painted.clear()
    outcome = run(webui, JOINT, batch_size=2, **ONE_STEP)
    assert Detailer.painted == ["foreground"] * 2 + ["blended"] * 2 + ["background"] * 2
    assert outcome.modes == ["RGBA", "RGB", "RGB"] * 2 and outcome.error is None and not webui.errors
    Detailer.painted.clear()
    alone = run(webui, JOINT, **ONE_STEP)
    assert same_layers(layers(alone), by_hand(webui, find_way("xl_joint"), **ONE_STEP))


def test_a_chain_in_a_script_that_joins_tiles_is_refused(webui) -> None:
    webui.extra_scripts = list(KINDS)
    outcome = run_script(webui.reload_ui(), SDUpscale, JOINT, 16, 1.5, init_images=[picture()], steps=1)
    assert "Single" in str(outcome.error)


# --- how it ends


def test_one_progress_bar_over_all_steps(sdxl) -> None:
    seen = []
    sdxl.engine.at_step[0] = lambda p: seen.append((sdxl.state.job_no, sdxl.state.job_count, sdxl.state.textinfo))
    run(sdxl, JOINT, n_iter=2, **ONE_STEP)
    sdxl.engine.at_step.clear()
    assert [number for number, _, _ in seen] == list(range(6)) and {count for _, count, _ in seen} == {6}
    assert [text for _, _, text in seen[::2]] == [
        f"Step {number} of 3 ({frame})" for number, frame in enumerate(("foreground", "blended", "background"), 1)
    ]


@pytest.mark.parametrize(
    ("name", "at", "left"),
    [
        ("interrupted", 1, ["foreground"]),
        ("interrupted", 2, ["foreground", "blended"]),
        ("stopping_generation", 2, ["foreground", "blended"]),
    ],
)
def test_an_interrupt_leaves_what_is_done(sdxl, name, at, left) -> None:
    before, state, calls = plainly(sdxl), Snapshot.of(sdxl), []

    def stop(_p: Any) -> None:
        calls.append(1)
        if len(calls) == at:
            setattr(sdxl.state, name, True)

    sdxl.engine.at_step[1] = stop
    outcome = run(sdxl, JOINT, steps=3)
    sdxl.engine.at_step.clear()
    assert outcome.parameters["layerdiffusion_layer"] == left and len(outcome.pictures) == len(left)
    assert outcome.error is None and not sdxl.errors
    missing = (
        f"step {len(left) + 1} of 3 ({('blended', 'background')[len(left) - 1]}) is missing (the user interrupted it)"
    )
    assert missing in outcome.note and f"made: {', '.join(left)}" in outcome.processed.comments
    assert len(kept_layers(sdxl)) == len(left)
    state.check(sdxl)
    assert same_pictures(run(sdxl, **ONE_STEP), before)


def test_an_interrupt_in_the_second_of_three_batches_leaves_whole_and_begun_sets(webui) -> None:
    calls = []

    def stop(_p: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            webui.state.interrupt()

    webui.engine.at_step[0] = stop
    outcome = run(webui, JOINT, n_iter=3, **ONE_STEP)
    webui.engine.at_step.clear()
    assert outcome.parameters["layerdiffusion_layer"] == ["foreground", "blended", "foreground", "foreground"]
    assert outcome.processed.all_seeds == [11, 11, 12, 13] and not webui.errors


@pytest.mark.parametrize(("fault", "at_call"), FAULTS)
def test_an_error_in_a_later_step_leaves_the_layers_before_it(sdxl, fault, at_call) -> None:
    before, state = plainly(sdxl), Snapshot.of(sdxl)
    with raising(sdxl, fault, at_call=at_call):
        outcome = run(sdxl, JOINT, **ONE_STEP)
    left = ["foreground", "blended"][: at_call - 1]
    assert outcome.parameters["layerdiffusion_layer"] == left and outcome.modes == ["RGBA", "RGB"][: at_call - 1]
    assert outcome.error.startswith(f"step {at_call} of 3 (") and str(fault) in outcome.error
    assert f"made: {', '.join(left)}" in outcome.processed.comments and len(kept_layers(sdxl)) == len(left)
    state.check(sdxl)
    assert same_pictures(run(sdxl, **ONE_STEP), before) and not sdxl.errors
    assert len(run(sdxl, JOINT, **ONE_STEP).pictures) == 3


def test_no_numbers_in_the_second_step(webui) -> None:
    before, state, calls = plainly(webui), Snapshot.of(webui), []

    def spoil(_module: Any, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return output * float("nan") if len(calls) == 2 else output

    handle = networks_of(webui)["unet"].out[2].register_forward_hook(spoil)
    outcome = run(webui, JOINT, **ONE_STEP)
    handle.remove()
    assert outcome.parameters["layerdiffusion_layer"] == ["foreground"]
    assert NansException("").__class__.__name__ in outcome.error or "no numbers" in outcome.error
    state.check(webui)
    assert same_pictures(run(webui, **ONE_STEP), before)


def test_an_error_in_the_first_step_is_as_in_any_job(webui) -> None:
    state = Snapshot.of(webui)
    with raising(webui, RuntimeError("boom")), pytest.raises(RuntimeError):
        run(webui, JOINT | {"fg_seed": 5}, **ONE_STEP)
    state.check(webui)


class Switching(AlwaysOn):
    """Chooses another checkpoint when a job is over, as a user may while it runs."""

    to: ClassVar[str]

    def postprocess(self, p: Any, processed: Any) -> None:
        p.webui.opts.set("sd_model_checkpoint", self.to)


@pytest.mark.parametrize("other", ["sdxl-two", "sd15-one", "flux-one"])
def test_another_checkpoint_between_the_steps_is_refused(sdxl, other) -> None:
    if other not in sdxl.engine.checkpoints:
        pytest.skip("this WebUI knows no such architecture")
    with_script(sdxl, type("Choosing", (Switching,), {"to": other}))
    outcome = run(sdxl, JOINT, **ONE_STEP)
    assert outcome.parameters["layerdiffusion_layer"] == ["foreground"] and not sdxl.errors
    told = f"got the checkpoint {other}, chosen while the set was being made (by sdxl-one: foreground)"
    for word in ("step 2 of 3 (blended): ", told, "expected sdxl-one for all 3 steps", "What to do"):
        assert word in outcome.error
    assert "made for" not in outcome.error, "the chain fits: it is the checkpoint that went away"
    sdxl.opts.set("sd_model_checkpoint", "sdxl-one")
    with_script(sdxl)
    assert len(run(sdxl, JOINT, **ONE_STEP).pictures) == 3


# --- what cannot work, before anything is made


def refused(outcome: Any) -> str:
    """The message of a job without pictures."""
    assert outcome.pictures == [] and "expected" in str(outcome.error) and "What to do" in str(outcome.error)
    return outcome.error


@EACH
def test_a_missing_file_of_any_step_is_named_before_the_first(sdxl, layers, chain) -> None:
    state = Snapshot.of(sdxl)
    path = layers / f"{chain.steps[-1].method_row().weights}.safetensors"
    away = path.rename(path.with_suffix(".away"))
    try:
        with sdxl.settings(layerdiffuse_offline=True):
            outcome = run(sdxl, layer_of(chain), **ONE_STEP)
    finally:
        away.rename(path)
    assert path.name in refused(outcome) and not kept_layers(sdxl)
    state.check(sdxl)


def test_a_chain_on_another_base(sd15) -> None:
    assert "SD1.5" in refused(run(sd15, JOINT, **ONE_STEP))


@pytest.mark.parametrize("chain", [chain for chain in CHAINS if chain.images], ids=lambda chain: chain.id)
def test_a_picture_that_is_not_given(webui, chain) -> None:
    assert chain.images[0] in refused(run(webui, {"method": chain.id}, **ONE_STEP))


def test_a_method_file_for_all_methods(webui) -> None:
    assert "method file" in refused(run(webui, JOINT | {"method_file": "own"}, **ONE_STEP))


def test_the_upscale_button(webui) -> None:
    fields = {"enable_hr": True, "firstpass_image": picture(), "steps": 1}
    assert "one picture to upscale" in refused(run(webui, JOINT, **fields))


# --- again and again


def test_many_sets_in_a_row_leave_nothing(sdxl) -> None:
    first, state = run(sdxl, JOINT, **ONE_STEP), Snapshot.of(sdxl)
    for _ in range(4):
        assert same_pictures(run(sdxl, JOINT, **ONE_STEP), first)
        state.check(sdxl)


def test_the_same_p_again_without_the_chain(webui) -> None:
    p = job(webui, JOINT | {"fg_seed": 5, "bg_additional_prompt": "a meadow"}, steps=1)
    process_images(p)
    webui.fresh_state()
    p.script_args = job(webui, None).script_args
    processed = process_images(p)
    assert not [key for key in p.extra_generation_params if key.startswith("layerdiffusion")]
    assert parameters(processed.infotexts[0])["Seed"] == "11" and "Seed" not in p.extra_generation_params
    assert np.array_equal(np.asarray(processed.images[0]), plainly(webui).arrays[0])
