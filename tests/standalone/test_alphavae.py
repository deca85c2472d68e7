"""AlphaVAE: a LoRA and an autoencoder of four channels, which the user puts there, on a small Flux of diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from fakes.flux import peft_state
from fakes.flux_pipeline import SHAPE, flux_pipeline, flux_transformer, flux_vae
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import lively

from lib_layerdiffuse.api import generate, load
from lib_layerdiffuse.core.codec.codec import VaeLatent
from lib_layerdiffuse.core.errors import WeightsError
from lib_layerdiffuse.standalone.settings import ModelSettings
from lib_layerdiffuse.standalone.transparency import RgbaVae, read_rgba_vae
from lib_layerdiffuse.unet.images import with_alpha

VAE, LORA = "alphavae_flux_vae.safetensors", "alphavae_flux_lora.safetensors"
SMALL = {"width": 64, "height": 64, "steps": 2, "count": 2, "seed": 3, "method": "flux_alphavae"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline's folder, and one of layer files."""
    root = tmp_path_factory.mktemp("alphavae")
    flux_pipeline(root / "parts").save_pretrained(root / "pipeline")
    (root / "layers").mkdir()
    torch.manual_seed(5)
    config = {key: value for key, value in flux_vae().config.items() if not key.startswith("_")}
    vae = lively(AutoencoderKL(**config | {"in_channels": 4, "out_channels": 4}))
    save_file(vae.state_dict(), root / "layers" / VAE)
    save_file(peft_state(flux_transformer(SHAPE)), root / "layers" / LORA)
    return root


@pytest.fixture(scope="module")
def host(folder):
    choice = {"precision": "float32", "offline": True, "device": "cpu"}
    return load(ModelSettings(checkpoint=folder / "pipeline", models=folder / "layers", **choice))


def test_pictures_are_what_its_own_vae_decodes(host, folder, monkeypatch) -> None:
    seen = []
    decode = RgbaVae.decode

    def watched(self, latent, *more):
        seen.append((self, latent))
        return decode(self, latent, *more)

    monkeypatch.setattr(RgbaVae, "decode", watched)
    monkeypatch.setattr(host.pipeline.vae, "decode", None)  # there is one pass, by the other
    bits = {name: tensor.clone() for name, tensor in host.pipeline.transformer.state_dict().items()}
    made = generate("a bottle", pipeline=host, hidden_colours="as-decoded", clear_haze=False, **SMALL)
    ((vae, latent),) = seen
    expected = vae.vae.decode(latent.values).sample.div(2).add(0.5).clamp(0, 1).mul(255).round()
    for picture, rgba in zip(made, expected, strict=True):
        assert picture.image.mode == "RGBA" and picture.image.size == (64, 64)
        difference = np.asarray(picture.image).astype(int) - rgba.permute(1, 2, 0).numpy().astype(int)
        assert np.abs(difference).max() <= 1
    assert torch.equal(vae.vae.encoder.conv_in.weight, load_file(folder / "layers" / VAE)["encoder.conv_in.weight"])
    assert all(torch.equal(tensor, bits[name]) for name, tensor in host.pipeline.transformer.state_dict().items())
    assert "AlphaVAE" in made[0].parameters


def test_it_is_not_the_other_method(host) -> None:
    made = generate("a bottle", pipeline=host, **SMALL)
    weak = generate("a bottle", pipeline=host, weight=0.0, **SMALL)
    assert not np.array_equal(np.asarray(made[0].image), np.asarray(weak[0].image))


def test_a_transparent_picture_goes_in_with_its_alpha(host, folder) -> None:
    """Image to image without denoising is the round trip through its VAE."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8), "RGBA")
    choice = {"hidden_colours": "as-decoded", "clear_haze": False, **SMALL, "count": 1}
    made = generate("a bottle", pipeline=host, init=picture, denoise=0.0, **choice)
    vae = read_rgba_vae(folder / "layers" / VAE, host.pipeline.vae)
    rgba = with_alpha(np.asarray(picture), 64, 64, "crop-and-resize")  # straight, its colours padded
    expected = vae.decode(vae.encode(rgba))[0].mul(255).round().permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(made[0].image).astype(int) - expected.astype(int)).max() <= 1
    assert isinstance(vae.encode(rgba), VaeLatent)


@pytest.mark.parametrize("name", [VAE, LORA])
def test_its_files_are_asked_for_and_never_fetched(host, folder, name, monkeypatch) -> None:
    monkeypatch.setattr("lib_layerdiffuse.files.downloads.fetch_file", None)
    monkeypatch.setattr(host.files, "offline", False)
    away = (folder / "layers" / name).rename(folder / "layers" / "away")
    try:
        with pytest.raises(WeightsError, match="those who made it") as caught:
            generate("a bottle", pipeline=host, **SMALL)
    finally:
        away.rename(folder / "layers" / name)
    assert name in str(caught.value) and "hub" not in str(caught.value).lower()


@pytest.mark.parametrize("fault", ["three channels", "half", "foreign"])
def test_another_vae_is_refused_before_sampling(host, folder, fault, monkeypatch) -> None:
    path = folder / "layers" / VAE
    whole = load_file(path)
    states = {
        "three channels": flux_vae().state_dict(),
        "half": dict(list(whole.items())[::2]),
        "foreign": {"x": torch.zeros(1)},
    }
    save_file({key: value.contiguous() for key, value in states[fault].items()}, path)
    monkeypatch.setattr(type(host.pipeline), "__call__", None)
    try:
        with pytest.raises(WeightsError, match="four channels in and out"):
            generate("a bottle", pipeline=host, **SMALL)
    finally:
        save_file(whole, path)
