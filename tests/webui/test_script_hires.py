"""Hires fix: two passes, the second at another size, with conditions, prompts and a user's Lora of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.running import Snapshot, layer_of, run, same_pictures
from PIL import Image
from safetensors.torch import load_file

from lib_layerdiffuse.core.codec.codec import TransparencyCodec, to_vae_space
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.core.picture.alpha import from_tensor

HIRES = {"enable_hr": True, "steps": 1}
AS_DECODED = {"layerdiffuse_clear_haze": False, "layerdiffuse_hidden_colours": "As decoded"}


@pytest.fixture(scope="module")
def decoder(layers) -> TransparencyCodec:
    """SD1.5's transparency decoder."""
    return TransparencyCodec.from_state_dicts(
        decoder=load_file(layers / "layer_sd15_vae_transparent_decoder.safetensors")
    )


@pytest.mark.parametrize("upscaler", ["Lanczos", "Latent"])
def test_forge_2_hires_fix_gives_transparency(sd15, decoder, upscaler) -> None:
    state = Snapshot.of(sd15)
    with sd15.settings(**AS_DECODED):
        outcome = run(sd15, {"method": "sd15_fg", "output_origin": True}, hr_upscaler=upscaler, **HIRES)
    assert outcome.modes == ["RGBA", "RGB"] and outcome.error is None and not sd15.errors
    assert [picture.size for picture in outcome.pictures] == [(128, 128)] * 2
    calls = {"AUTOMATIC1111": 2, "Forge": 3}[sd15.engine.name]  # Forge's second one is for nothing
    assert sd15.runners[False].called.count("process_before_every_sampling") == calls
    state.check(sd15)
    check_decoded(outcome, sd15.second_pass, decoder)


def test_issue_119_alpha_is_that_of_the_last_latents(a1111, decoder) -> None:
    with a1111.settings(**AS_DECODED):
        outcome = run(a1111, {"method": "sd15_fg", "output_origin": True}, steps=1)
    check_decoded(outcome, a1111.first_pass, decoder)


def check_decoded(outcome, latents: torch.Tensor, decoder: TransparencyCodec) -> None:
    """The picture is what the decoder makes of its opaque self and of these latents, without their scale."""
    transparent, opaque = outcome.pictures
    pixels = torch.from_numpy(np.array(opaque)).permute(2, 0, 1)[None].float() / 255
    wanted = from_tensor(decoder.decode(pixels, to_vae_space(latents.clone(), 0.18215), passes=1))[0]
    difference = np.abs(np.asarray(transparent, np.int16) - np.asarray(wanted, np.int16))
    assert difference.max() <= 6 and np.asarray(transparent)[..., 3].std() > 1


def test_joint_in_both_passes(forge) -> None:
    outcome = run(forge, {"method": "sd15_joint"}, batch_size=2, **HIRES)
    assert outcome.modes == ["RGBA", "RGB", "RGB"] and outcome.error is None and not forge.errors
    assert {picture.size for picture in outcome.pictures} == {(128, 128)}


@pytest.mark.parametrize(("flavour", "method"), [("a1111", "sd15_bg2fg"), ("forge", "xl_fg2blend")])
def test_conditions_are_encoded_at_the_size_of_each_pass(make_webui, flavour, method) -> None:
    row = find_method(method)
    webui = make_webui(flavour, row.base)
    outcome = run(webui, layer_of(row), batch_size=len(row.frames), hr_upscaler="Latent", **HIRES)
    assert outcome.error is None and not webui.errors
    half = layer_of(row)
    name = next(name for name in half if name.endswith("_image"))
    blurred = half[name].resize((64, 64)).resize((128, 128), Image.Resampling.BILINEAR)
    other = run(webui, half | {name: blurred}, batch_size=len(row.frames), hr_upscaler="Latent", **HIRES)
    assert not torch.equal(outcome.samples[0], other.samples[0])


def test_the_method_is_on_in_the_second_pass_too(a1111) -> None:
    """The first pass alone would give other pictures."""
    outcome = run(a1111, {"method": "sd15_fg"}, hr_upscaler="Latent", **HIRES)
    first = a1111.first_pass
    plain = run(a1111, hr_upscaler="Latent", **HIRES)
    assert not torch.equal(first, a1111.first_pass)
    scripts = a1111.runners[False]
    ours, scripts.scripts = scripts.scripts, []  # the second pass alone, from the transparent first one
    p = plain.p.__class__(a1111, hr_upscaler="Latent", **HIRES)
    p.setup_prompts()
    p.prompts, p.negative_prompts, p.seeds = p.all_prompts, p.all_negative_prompts, p.all_seeds
    p.parse_extra_network_prompts()
    p.setup_conds()
    with a1111.engine.scope():
        unlike = p.sample_hr_pass(first, None, p.seeds, [], 0, p.prompts)
    scripts.scripts = ours
    assert not torch.equal(torch.stack(list(unlike)), torch.stack(list(outcome.samples)))


def test_batches_and_a_prompt_of_its_own(sd15) -> None:
    named = {"hr_prompt": "a green apple", "n_iter": 2, "batch_size": 2, **HIRES}
    state = Snapshot.of(sd15)
    outcome = run(sd15, {"method": "sd15_bg2fg", **image(), "fg_additional_prompt": "shiny"}, **named)
    assert outcome.modes == ["RGBA", "RGB"] * 2 and outcome.error is None and not sd15.errors
    assert outcome.p.hr_prompts == ["shiny, a green apple", "a green apple"]
    state.check(sd15)


def image() -> dict:
    """The picture that the method needs."""
    return {"bg_image": layer_of(find_method("sd15_bg2fg"))["bg_image"]}


def test_a_lora_of_the_second_pass_only(sd15) -> None:
    plain = run(sd15, steps=1)
    layer, hires = {"method": "sd15_fg"}, {"hr_prompt": "a red apple <lora:style:1>", **HIRES}
    outcome = run(sd15, layer, **hires)
    assert outcome.error is None and not sd15.errors
    first = sd15.first_pass
    without = run(sd15, layer, **HIRES)
    assert torch.equal(first, sd15.first_pass)
    assert not same_pictures(outcome, without)
    assert same_pictures(run(sd15, layer, **hires), outcome)
    assert same_pictures(run(sd15, steps=1), plain)
