"""All ten methods through every hook of both WebUIs, text to image and image to image, on real LDM UNets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.running import Snapshot, layer_of, networks_of, picture, plainly, run, same_pictures

from lib_layerdiffuse.core.methods import METHODS, find_method
from lib_layerdiffuse.core.offsets.install import ConcatLatents, merge_offsets
from lib_layerdiffuse.core.offsets.offsets import read_offsets
from lib_layerdiffuse.files.demo_folder import DEMO_FOLDER

TEN = [method for method in METHODS if method.base in ("sd15", "sdxl")]
IDS = [method.id for method in TEN]
ONE_STEP = {"steps": 1}
START = {"init_images": [picture(seed=7)]}


def named(*names: str) -> pytest.MarkDecorator:
    """Only these methods."""
    return pytest.mark.parametrize("method", [find_method(name) for name in names], ids=names)


DEMO = [method for method in METHODS if method.base == "demo"]


@pytest.mark.parametrize("method", DEMO, ids=[method.id for method in DEMO])
def test_every_method_of_the_demo_model(make_webui, method) -> None:
    """On AUTOMATIC1111: Forge loads no small checkpoints."""
    test_every_method(make_webui, "a1111", method)


@pytest.mark.parametrize("method", DEMO[1:], ids=[method.id for method in DEMO[1:]])
def test_the_demo_models_batches_are_rounded_up_to_whole_results(make_webui, method) -> None:
    webui, frames = make_webui("a1111", "demo"), len(method.frames)
    outcome = run(webui, layer_of(method), batch_size=frames + 1, **ONE_STEP)
    assert len(outcome.pictures) == 2 * frames and f"rounded up from {frames + 1} to {2 * frames}" in outcome.note


def test_layers_of_the_demo_model_that_are_not_there_are_named(make_webui, layers) -> None:
    webui, path = make_webui("a1111", "demo"), layers / "layer_demo_joint.safetensors"
    away = path.rename(path.with_suffix(".away"))
    try:
        outcome = run(webui, {"method": "demo_joint"}, batch_size=3, **ONE_STEP)
    finally:
        away.rename(path)
    if not (DEMO_FOLDER / path.name).is_file():  # else the shipped one is found, and made for wider layers
        assert "layer_demo_joint.safetensors" in str(outcome.error) and "part of the demo model" in str(outcome.error)
    assert outcome.error is not None and not outcome.pictures


@pytest.mark.parametrize("method", TEN, ids=IDS)
def test_every_method(make_webui, flavour, method) -> None:
    webui, frames = make_webui(flavour, method.base), len(method.frames)
    before, state = plainly(webui), Snapshot.of(webui)
    for kind in (ONE_STEP, START):
        outcome = run(webui, layer_of(method), batch_size=frames, **kind)
        assert not webui.errors and outcome.error is None and not outcome.note
        assert outcome.modes == ["RGBA" if method.is_transparent(place) else "RGB" for place in range(frames)]
        assert all(np.ptp(values[..., 3]) > 0 for values in outcome.arrays if values.shape[2] == 4)
        assert not torch.equal(outcome.samples[:1], before.samples)
        state.check(webui)
    assert same_pictures(run(webui, **ONE_STEP), before)


@pytest.mark.parametrize("method", TEN, ids=IDS)
def test_weight_0_and_stop_at_0_are_plain(make_webui, method) -> None:
    webui, batch = make_webui("a1111", method.base), len(method.frames)
    plain = plainly(webui, batch_size=batch).samples
    for sliders in ({"weight": 0.0}, {"ending_step": 0.0}):
        outcome = run(webui, layer_of(method, **sliders), batch_size=batch, **ONE_STEP)
        assert torch.equal(outcome.samples, plain) and outcome.error is None


@named("sd15_joint", "sd15_bg2fg", "xl_fg_attn", "xl_bgblend2fg")
def test_both_webuis_make_the_same_latents(make_webui, method) -> None:
    found = []
    for flavour in ("a1111", "forge"):
        with pytest.MonkeyPatch.context() as patch:
            webui = make_webui(flavour, method.base, patch=patch)
            found.append(run(webui, layer_of(method), batch_size=len(method.frames), **ONE_STEP).samples)
    assert torch.allclose(*found, rtol=1e-3, atol=2e-3)


@named("sd15_joint", "sd15_fg2bg")
def test_issue_3_a_batch_that_the_frames_do_not_divide_is_rounded_up(make_webui, method) -> None:
    webui, frames = make_webui("a1111", "sd15"), len(method.frames)
    outcome = run(webui, layer_of(method), batch_size=frames + 1, steps=1)
    assert len(outcome.pictures) == 2 * frames
    assert f"rounded up from {frames + 1} to {2 * frames}" in outcome.note
    assert f"rounded up from {frames + 1} to {2 * frames}" in outcome.processed.comments


def test_forge_5_joint_with_batch_1(sd15) -> None:
    outcome = run(sd15, {"method": "sd15_joint"}, batch_size=1)
    assert outcome.modes == ["RGBA", "RGB", "RGB"] and not sd15.errors


def test_groups_of_a_batch_are_results_of_their_own(sd15) -> None:
    both = run(sd15, {"method": "sd15_joint"}, batch_size=6, steps=1).samples
    second = run(sd15, {"method": "sd15_joint"}, batch_size=3, seed=14, steps=1).samples
    assert torch.allclose(both[3:], second, rtol=1e-3, atol=1e-3)


@named("xl_fg2blend", "xl_bgblend2fg")
def test_issue_125_conditioned_methods_take_any_batch(sdxl, method) -> None:
    one = run(sdxl, layer_of(method), seed=12, steps=1).samples
    three = run(sdxl, layer_of(method), batch_size=3, steps=1).samples
    assert not sdxl.errors and torch.allclose(three[1:2], one, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_forge_8_sdxl_conditioned_methods_with_batch_2_and_weight_0(sdxl, weight) -> None:
    method = find_method("xl_fg2blend")
    outcome = run(sdxl, layer_of(method, weight=weight), batch_size=2, steps=1)
    assert outcome.modes == ["RGB", "RGB"] and outcome.error is None and not sdxl.errors


@named("sd15_fg", "sd15_joint", "sd15_fg2bg", "sd15_bg2fg")
def test_forge_9_weight_has_an_effect_on_sd15(make_webui, method) -> None:
    webui, frames = make_webui("forge", "sd15"), len(method.frames)
    half, whole = (
        run(webui, layer_of(method, weight=weight), batch_size=frames, steps=1).samples for weight in (0.5, 1.0)
    )
    assert not torch.allclose(half, whole, atol=0.05)


def test_stop_at_ends_the_method_in_the_middle(sd15) -> None:
    stops = [run(sd15, {"method": "sd15_fg", "ending_step": stop}, steps=4).samples for stop in (0.0, 0.5, 1.0)]
    assert not torch.equal(stops[0], stops[1]) and not torch.equal(stops[1], stops[2])


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_samplers_of_sigmas_and_of_timesteps(sd15, sampler) -> None:
    plain = run(sd15, sampler_name=sampler)
    assert torch.equal(
        run(sd15, {"method": "sd15_fg", "ending_step": 0.0}, sampler_name=sampler).samples, plain.samples
    )
    whole = run(sd15, {"method": "sd15_fg"}, sampler_name=sampler)
    assert whole.modes == ["RGBA"] and not torch.equal(whole.samples, plain.samples) and not sd15.errors


@pytest.mark.parametrize("name", ["xl_fg_attn", "xl_fg_conv"])
def test_offsets_are_those_of_merged_weights(sdxl, layers, name) -> None:
    method = find_method(name)
    outcome = run(sdxl, layer_of(method, weight=0.7), steps=1)
    unet = networks_of(sdxl)["unet"]
    with merge_offsets(read_offsets(layers / f"{method.weights}.safetensors"), dict(unet.named_modules()), 0.7):
        merged = run(sdxl, steps=1)
    assert torch.equal(outcome.samples, merged.samples)


def test_concatenated_latents_are_the_means_of_the_images_in_their_order(make_webui, layers) -> None:
    webui = make_webui("a1111", "sdxl")
    method = find_method("xl_fgblend2bg")
    outcome = run(webui, layer_of(method), steps=1)
    vae, unet = webui.sd_model.first_stage_model, networks_of(webui)["unet"]
    seen = []
    for place in range(2):
        rgba = torch.from_numpy(np.array(picture(seed=place))).permute(2, 0, 1)[None].float() / 255
        grey = 0.5 + (rgba[:, :3] - 0.5) * rgba[:, 3:]
        seen.append(vae.encode(grey * 2 - 1).mean * webui.sd_model.scale_factor)
    offsets = read_offsets(layers / f"{method.weights}.safetensors")
    concat = ConcatLatents(torch.cat(seen, dim=1).detach())
    with merge_offsets(offsets, dict(unet.named_modules()), 1.0, concat):
        merged = run(webui, steps=1)
    assert torch.allclose(outcome.samples, merged.samples, rtol=1e-3, atol=1e-3)
