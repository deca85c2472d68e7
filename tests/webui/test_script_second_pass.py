"""Hires fix with pixel upscalers and the gallery's upscale button: the second pass starts from latents with alpha."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from fakes.jobs import encode
from fakes.processing import run_closing
from fakes.running import Snapshot, job, layer_of, networks_of, picture, plainly, run, same_pictures
from PIL import Image
from safetensors.torch import load_file

from lib_layerdiffuse.core.codec.codec import TransparencyCodec
from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.core.picture.alpha import to_tensor
from lib_layerdiffuse.webui.host.vae import adjusted_posterior
from lib_layerdiffuse.webui.jobs.init_images import flattened, resized

HIRES = {"enable_hr": True, "steps": 1, "hr_upscaler": "Lanczos"}
LAYER = {"method": "sd15_fg"}
FIRST = {"steps": 1}


@pytest.fixture(scope="module")
def encoder(layers) -> TransparencyCodec:
    """SD1.5's transparency encoder."""
    return TransparencyCodec.from_state_dicts(
        encoder=load_file(layers / "layer_sd15_vae_transparent_encoder.safetensors")
    )


def start_of(webui, encoder: TransparencyCodec, layer: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """The latent that img2img would start with from this layer, seen first and then brought to this size."""
    colours = resized_rgb(webui, flattened(layer, encoder), size)
    offset = encoder.offset(to_tensor(resized(layer, 0, *size)))
    pixels = torch.from_numpy(np.asarray(colours, np.float32).transpose(2, 0, 1)[None] / 255)
    with adjusted_posterior(networks_of(webui)["vae"], lambda mean, std: encoder.adjusted(mean, std, offset)):
        return encode(webui, pixels)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Apart by what rounding to 8 bits makes; transparency makes eight times that."""
    return one.shape == other.shape and bool((one - other).abs().max() < 0.08)


def resized_rgb(webui, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return webui.images.resize_image(0, image, *size)


def test_issue_71_119_88_the_second_pass_starts_with_the_layer(sd15, encoder) -> None:
    """Encoded again from opaque pixels, a latent would have no transparency left."""
    first, state = run(sd15, LAYER, **FIRST), Snapshot.of(sd15)
    outcome = run(sd15, LAYER, **HIRES)
    assert outcome.error is None and not sd15.errors and outcome.modes == ["RGBA"]
    wanted = start_of(sd15, encoder, first.pictures[0], (128, 128))
    assert close(sd15.second_start, wanted)
    state.check(sd15)
    weightless = run(sd15, LAYER | {"weight": 0.0}, **HIRES)
    assert weightless.error is None and not close(sd15.second_start, wanted)


def test_opaque_frames_and_other_batches(sd15, encoder) -> None:
    first = run(sd15, {"method": "sd15_joint"}, batch_size=3, n_iter=2, **FIRST)
    outcome = run(sd15, {"method": "sd15_joint"}, batch_size=3, n_iter=2, **HIRES)
    assert outcome.error is None and not sd15.errors and outcome.modes == ["RGBA", "RGB", "RGB"] * 2
    wanted = start_of(sd15, encoder, first.pictures[3], (128, 128))
    assert close(sd15.second_start[:1], wanted)
    opaque = resized_rgb(sd15, first.pictures[4], (128, 128))
    pixels = torch.from_numpy(np.asarray(opaque, np.float32).transpose(2, 0, 1)[None] / 255)
    with adjusted_posterior(networks_of(sd15)["vae"], lambda mean, _std: mean):
        assert close(sd15.second_start[1:2], encode(sd15, pixels))


def test_latent_upscalers_carry_it_themselves(sd15) -> None:
    run(sd15, LAYER, **HIRES | {"hr_upscaler": "Latent"})
    enlarged = torch.nn.functional.interpolate(sd15.first_pass, size=(16, 16), mode="bilinear")
    assert torch.equal(sd15.second_start, enlarged)


@pytest.mark.parametrize("upscaler", ["Lanczos", "Latent"])
def test_the_upscale_button_takes_a_layer(sd15, encoder, upscaler) -> None:
    """The WebUI itself would stop at the fourth channel."""
    before, given = plainly(sd15), picture(64)
    outcome = run(sd15, LAYER, firstpass_image=given, **HIRES | {"hr_upscaler": upscaler})
    assert outcome.error is None and not sd15.errors and outcome.modes == ["RGBA"]
    assert outcome.pictures[0].size == (128, 128)
    if upscaler == "Lanczos":
        wanted = start_of(sd15, encoder, given, (128, 128))
    else:
        wanted = start_of(sd15, encoder, given, (64, 64))
        wanted = torch.nn.functional.interpolate(wanted, size=(16, 16), mode="bilinear")
    assert close(sd15.second_start, wanted)
    assert same_pictures(run(sd15, steps=1), before)


def test_the_upscale_button_with_several_frames_is_refused(sd15) -> None:
    outcome = run(sd15, {"method": "sd15_joint"}, firstpass_image=picture(64), **HIRES)
    assert "one picture to upscale for 3 frames" in outcome.error and not outcome.pictures
    assert "Hires. fix" in outcome.error and not sd15.errors


@pytest.mark.parametrize("method", ["xl_fg_attn", "xl_bgblend2fg"])
def test_sdxl(make_webui, flavour, method) -> None:
    webui = make_webui(flavour, "sdxl")
    outcome = run(webui, layer_of(find_method(method)), **HIRES)
    assert outcome.error is None and not webui.errors and outcome.modes == ["RGBA"]


def test_an_approximating_encoder_is_told(sd15) -> None:
    sd15.opts.set("sd_vae_encode_method", "TAESD")
    outcome = run(sd15, LAYER, **HIRES)
    assert "VAE encode method must be Full" in outcome.note and outcome.modes == ["RGBA"]


def test_a_first_pass_that_cannot_be_decoded_is_told(sd15, monkeypatch) -> None:
    def broken(*_inputs) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("lib_layerdiffuse.webui.jobs.second_pass.decode_one", broken)
    state = Snapshot.of(sd15)
    outcome = run(sd15, LAYER, **HIRES)
    assert "starts without the first one's transparency: boom" in outcome.note
    assert outcome.modes == ["RGBA"] and outcome.error is None and not sd15.errors
    state.check(sd15)


def test_a_failed_first_pass_is_not_decoded(sd15, monkeypatch) -> None:
    decoded = []
    monkeypatch.setattr("lib_layerdiffuse.webui.jobs.second_pass.decode_one", lambda *inputs: decoded.append(inputs))
    monkeypatch.setattr("lib_layerdiffuse.webui.jobs.run.UnetPass", failing)
    outcome = run(sd15, LAYER, **HIRES)
    assert "no pass" in outcome.error and not outcome.pictures and not decoded


def failing(*_inputs) -> None:
    raise InputError("no pass", "a pass", "try again")


def test_nothing_stays_on_the_job(sd15) -> None:
    p = job(sd15, LAYER, **HIRES)
    run_closing(sd15, p)
    assert not {"sample", "sample_hr_pass"} & set(p.__dict__)
    gone = weakref.ref(p)
    del p
    gc.collect()
    assert gone() is None
