"""Infotexts of sets of layers tell the extra prompts and the seeds that make each set again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fakes import expanding
from fakes.prompt_jobs import EXTRAS, FOREGROUND, MAIN, NAMES, parameters, ran, told, with_script
from fakes.running import run, same_pictures

from lib_layerdiffuse.form.arguments import from_infotext

# --- infotexts


def test_infotexts_tell_what_each_result_used_and_what_was_typed(sd15) -> None:
    with_script(sd15, expanding.FirstPrompt)
    outcome, texts = ran(sd15, {"method": "sd15_joint", **EXTRAS}, prompt=MAIN, batch_size=6, n_iter=3)
    for place, text in enumerate(told(outcome)):
        main, found = text.split("\n")[0], parameters(text)
        foreground, background, blended = texts[place // 3 * 3 : place // 3 * 3 + 3]
        assert main == blended and found["Template"] == MAIN
        assert f"{found['layerdiffusion_fg_additional_prompt']}, {main}" == foreground
        assert f"{found['layerdiffusion_bg_additional_prompt']}, {main}" == background
        assert found["layerdiffusion_fg_additional_prompt_template"] == FOREGROUND
        assert "layerdiffusion_blend_additional_prompt" not in found
    info = json.loads(outcome.processed.js())["extra_generation_params"]
    assert len(info["layerdiffusion_fg_additional_prompt"]) == 18
    grid = parameters(outcome.processed.infotexts[0])
    assert outcome.processed.infotexts[0].startswith(MAIN) and grid["layerdiffusion_fg_additional_prompt"] == FOREGROUND


def test_opaque_pictures_tell_what_their_result_used(a1111) -> None:
    with_script(a1111, expanding.FirstPrompt)
    layer = {"method": "sd15_joint", "output_origin": True, **EXTRAS}
    outcome, _ = ran(a1111, layer, prompt=MAIN, batch_size=2, n_iter=3)
    texts = told(outcome)
    assert "rounded" in outcome.note and "rounded" not in str(texts), "files need not tell"
    used = [{key: value for key, value in parameters(text).items() if "note" not in key} for text in texts]
    assert len(texts) == 12 and used[9:] == used[0:9:3]


def test_an_infotext_pasted_back_gives_the_same_pictures(sd15) -> None:
    with_script(sd15, expanding.FirstPrompt)
    outcome, texts = ran(sd15, {"method": "sd15_joint", **EXTRAS}, prompt=MAIN, batch_size=3, n_iter=3)
    text = told(outcome)[6]
    arguments = from_infotext(parameters(text))
    layer = {name: getattr(arguments, name) for name in ("method", *NAMES.values())}
    again, repeated = ran(sd15, layer, prompt=text.split("\n")[0], seed=int(parameters(text)["Seed"]))
    assert repeated == texts[6:] and torch.equal(again.samples, outcome.samples)


# --- seeds


@pytest.mark.parametrize("extra", [{}, EXTRAS], ids=["plain", "extra prompts"])
def test_any_frame_tells_the_seed_that_makes_its_set_again(sd15, extra) -> None:
    layer = {"method": "sd15_joint", **extra}
    both = run(sd15, layer, steps=1, batch_size=6)
    assert [parameters(text)["Seed"] for text in told(both)] == ["11"] * 3 + ["14"] * 3
    assert both.processed.all_seeds == [11] * 3 + [14] * 3 and "Seed" not in both.parameters
    again = run(sd15, layer, steps=1, batch_size=3, seed=14)
    pairs = zip(again.arrays, both.arrays[3:], strict=True)
    assert all(abs(one.astype(int) - other).mean() < 1 for one, other in pairs)
    assert [parameters(text) for text in told(again)] == [parameters(text) for text in told(both)][3:]


@pytest.mark.parametrize("own", [{}, {"bg_seed": 70}, {"fg_seed": 0, "blend_seed": 2**32 - 1}], ids=str)
def test_what_a_set_with_seeds_of_layers_tells_makes_it_again(sd15, own) -> None:
    both = run(sd15, {"method": "sd15_joint", **own}, steps=1, batch_size=6)
    files = sorted(path.stem for path in Path(sd15.folder, "outputs", "txt2img-images").glob("*.png"))
    assert [name.split("-")[1] for name in files] == [parameters(text)["Seed"] for text in told(both)]
    text = parameters(told(both)[4])
    typed = {name: int(text[f"layerdiffusion_{name}"]) for name in own}
    assert {key for key in text if key.endswith("_seed") and key.startswith("layerdiffusion")} == {
        f"layerdiffusion_{name}" for name in own
    }
    again = run(sd15, {"method": "sd15_joint", **typed}, steps=1, batch_size=3, seed=int(text["Seed"]))
    pairs = zip(again.arrays, both.arrays[3:], strict=True)
    assert all(abs(one.astype(int) - other).mean() < 1 for one, other in pairs)
    assert both.processed.seed == 11


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_every_file_of_a_set_is_named_by_its_seed(sd15, upscaler) -> None:
    """That of a grid and of what is saved before the second pass, too; noise comes from each layer's own."""
    for setting in ("save_images_before_highres_fix", "grid_extended_filename"):
        sd15.opts.set(setting, True)
    second = {"enable_hr": True, "hr_upscaler": upscaler, "hr_upscale_to_x": 128, "hr_upscale_to_y": 128}
    outcome = run(sd15, {"method": "sd15_joint", "fg_seed": 70, "bg_seed": 80}, steps=1, batch_size=3, **second)
    assert outcome.error is None and not sd15.errors and outcome.p.all_seeds == [70, 81, 13]
    names = sorted(path.stem for path in Path(sd15.folder, "outputs").rglob("*.png"))
    assert len(names) == 7 and all(name.split("-")[1] == "11" for name in names if "grid" not in name), names
    assert [name for name in names if "grid" in name] == ["grid-0000-11"]
    first = [name for name in names if "before" in name]
    assert [name.rpartition("-")[2] for name in first] == ["foreground", "background", "blended"]
    again = run(sd15, {"method": "sd15_joint", "fg_seed": 70, "bg_seed": 80}, steps=1, batch_size=3, **second)
    assert same_pictures(again, outcome)


def test_a_layers_own_seed_changes_its_noise_alone(sd15) -> None:
    usual, own = (run(sd15, {"method": "sd15_joint", **seeds}, steps=1) for seeds in ({}, {"bg_seed": 70}))
    assert (usual.p.all_seeds, own.p.all_seeds) == ([11, 12, 13], [11, 71, 13])
    alike = run(sd15, {"method": "sd15_joint", "bg_seed": 11}, steps=1)
    assert same_pictures(alike, usual), "it acts as that of the set"


def test_seeds_of_somebody_elses_choice_are_told_as_they_are(sd15) -> None:
    outcome = run(sd15, {"method": "sd15_joint"}, steps=1, batch_size=3, seed=[5, 9, 2])
    assert [parameters(text)["Seed"] for text in told(outcome)] == ["5", "9", "2"]
    assert outcome.processed.all_seeds == [5, 9, 2]
