"""Which rows a UNet call has: AND, guidance in one call or several, uneven prompts, skipped guidance."""

from __future__ import annotations

import pytest
import torch
from fakes.running import Snapshot, counting, layer_of, plainly, run, same_pictures

from lib_layerdiffuse.core.methods import find_method

JOINT = {"method": "sd15_joint"}
LONG = "a red apple on a wooden table beside a bowl of green pears in the evening light"
LOOSE = {"rtol": 1e-3, "atol": 2e-3}


def joint(webui, **more):
    """Both results of a joint batch of two."""
    return run(webui, JOINT, batch_size=6, **({"steps": 1} | more))


def test_guidance_in_one_call_or_in_two(a1111) -> None:
    with counting(a1111) as rows:
        together = joint(a1111)
        with a1111.settings(batch_cond_uncond=False):
            apart = joint(a1111)
    assert rows == [12, 6, 6] and not a1111.errors
    assert torch.allclose(together.samples, apart.samples, **LOOSE)


def test_guidance_in_one_call_or_in_two_on_forge(forge) -> None:
    with counting(forge) as rows:
        together = joint(forge)
        forge.engine.chunks_together = 1
        apart = joint(forge)
    assert rows == [12, 6, 6] and not forge.errors
    assert torch.allclose(together.samples, apart.samples, **LOOSE)


@pytest.mark.parametrize("together", [True, False])
def test_prompts_longer_than_the_negative_one(a1111, together) -> None:
    with a1111.settings(batch_cond_uncond=together), counting(a1111) as rows:
        outcome = joint(a1111, prompt=LONG)
    assert rows == [6, 6] and outcome.error is None and not a1111.errors
    alone = run(a1111, JOINT, batch_size=3, seed=14, steps=1, prompt=LONG)
    assert torch.allclose(outcome.samples[3:], alone.samples, **LOOSE)


def test_prompts_longer_than_the_negative_one_on_forge(forge) -> None:
    outcome = joint(forge, prompt=LONG)
    alone = run(forge, JOINT, batch_size=3, seed=14, steps=1, prompt=LONG)
    assert outcome.error is None and not forge.errors
    assert torch.allclose(outcome.samples[3:], alone.samples, **LOOSE)


@pytest.mark.parametrize("name", ["skip_early_cond", "s_min_uncond"])
def test_guidance_that_is_skipped(a1111, name) -> None:
    skipped = {"s_min_uncond": 100.0} if name == "s_min_uncond" else {}
    settings = {"s_min_uncond_all": True} if skipped else {"skip_early_cond": 1.0}
    with a1111.settings(**settings), counting(a1111) as rows:
        outcome = joint(a1111, **skipped)
    assert rows == [6] and outcome.error is None and not a1111.errors
    assert torch.allclose(outcome.samples, joint(a1111, cfg_scale=1.0).samples, **LOOSE)


def test_guidance_that_is_skipped_on_forge(forge) -> None:
    with forge.settings(s_min_uncond_all=True), counting(forge) as rows:
        outcome = joint(forge, s_min_uncond=100.0)
    assert rows == [6] and outcome.error is None and not forge.errors


@pytest.mark.parametrize("method", ["sd15_joint", "sd15_fg2bg"])
def test_and_with_all_rows_in_one_call(sd15, method) -> None:
    """A prompt twice with half the guidance is the prompt with all of it; only the order of rows can part them."""
    row = find_method(method)
    layer, batch = layer_of(row), {"batch_size": 2 * len(row.frames), "steps": 1}
    twice = run(sd15, layer, prompt="a red apple AND a red apple", cfg_scale=3.5, **batch)
    once = run(sd15, layer, prompt="a red apple", cfg_scale=7.0, **batch)
    assert twice.error is None and not sd15.errors
    assert torch.allclose(twice.samples, once.samples, rtol=1e-2, atol=2e-2)


def test_and_of_different_prompts_and_weights(a1111) -> None:
    prompt = "a red apple AND a green pear :0.5 AND a table :0.3"
    with counting(a1111) as rows:
        both = joint(a1111, prompt=prompt)
    second = run(a1111, JOINT, batch_size=3, seed=14, steps=1, prompt=prompt)
    assert rows == [24] and not a1111.errors
    assert torch.allclose(both.samples[3:], second.samples, **LOOSE)


def test_and_with_guidance_skipped(a1111) -> None:
    with a1111.settings(skip_early_cond=1.0), counting(a1111) as rows:
        outcome = joint(a1111, prompt="a red apple AND a green pear")
    assert rows == [12] and outcome.error is None and not a1111.errors


def test_and_in_several_calls_that_tear_results_apart(a1111) -> None:
    before, state = plainly(a1111), Snapshot.of(a1111)
    with a1111.settings(batch_cond_uncond=False):
        outcome = run(a1111, JOINT, batch_size=3, n_iter=2, prompt="a red apple AND a green pear", steps=1)
    assert outcome.pictures == [] and "AND" in outcome.error
    assert outcome.error in outcome.processed.comments and "layerdiffusion_error" in outcome.processed.js()
    assert not a1111.errors
    state.check(a1111)
    assert same_pictures(run(a1111, steps=1), before)


def test_and_in_several_calls_for_a_method_of_one_frame(a1111) -> None:
    with a1111.settings(batch_cond_uncond=False):
        outcome = run(a1111, {"method": "sd15_fg"}, batch_size=3, prompt="a red apple AND a green pear", steps=1)
    assert outcome.modes == ["RGBA"] * 3 and outcome.error is None and not a1111.errors


def test_and_with_prompts_longer_than_the_negative_one(a1111) -> None:
    with counting(a1111) as rows:
        outcome = run(a1111, JOINT, batch_size=3, prompt=f"{LONG} AND a green pear", steps=1)
    assert rows == [6, 3] and outcome.error is None and not a1111.errors
    assert outcome.modes == ["RGBA", "RGB", "RGB"]


def test_a_prompt_for_each_frame(sd15) -> None:
    learned: list[str] = []
    model = sd15.sd_model
    embed = type(model).embed
    model.__dict__["embed"] = lambda text: learned.append(text) or embed(model, text)
    layer = JOINT | {"fg_additional_prompt": "shiny", "bg_additional_prompt": "a forest", "blend_additional_prompt": ""}
    outcome = run(sd15, layer, batch_size=3, n_iter=2, steps=1)
    del model.__dict__["embed"]
    wanted = ["shiny, a red apple", "a forest, a red apple", "a red apple"]
    assert [text for text in learned if text] == wanted * 2
    texts = outcome.processed.infotexts[outcome.processed.index_of_first_image :]
    assert all(text.startswith("a red apple\n") for text in texts)
    assert all("layerdiffusion_fg_additional_prompt: shiny" in text for text in texts)


def test_prompts_of_frames_with_a_prompt_for_each_picture(sd15) -> None:
    prompts = ["one", "two", "three", "four", "five", "six"]
    layer = JOINT | {"bg_additional_prompt": "a forest"}
    outcome = run(sd15, layer, prompt=prompts, batch_size=3, n_iter=2, steps=1)
    texts = outcome.processed.infotexts[outcome.processed.index_of_first_image :]
    assert [text.split("\n")[0] for text in texts] == prompts and not sd15.errors
