"""Chains in one job: the steps that a user would run by hand, as one result."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from fakes import expanding
from fakes.chains import (
    EACH,
    JOINT,
    ONE_STEP,
    PROMPT,
    ROUNDING,
    SEED,
    AlwaysOn,
    by_hand,
    frames_of,
    layer_of,
    layers,
    parameters,
    same_layers,
    saved,
    texts,
    with_script,
)
from fakes.processing import process_images
from fakes.running import Snapshot, job, picture, plainly, run, same_pictures
from fakes.selectable import KINDS, SDUpscale, run_script
from PIL import Image

from lib_layerdiffuse.form.arguments import from_infotext
from lib_layerdiffuse.form.ways import find_way
from lib_layerdiffuse.sets.chains import FRAMES

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
