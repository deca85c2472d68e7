"""Latents of layer sets, and the mixture that an ordinary model learns."""

from __future__ import annotations

import json

import pytest
import torch

from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.training.codec.codec import train_codec
from lib_layerdiffuse.training.codec.harmlessness import load_codec
from lib_layerdiffuse.training.diffusion.latents import LatentSet
from lib_layerdiffuse.training.layer_sets.layer_sets import LayerSet
from lib_layerdiffuse.training.layers.layer_latents import LayerLatents, Mixture, encode_layers, encode_mixture

from .toys import CODEC, SIDE, short_run, toy_set, toy_vae


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared set, a VAE, a codec, and layer sets that the command composed of the set."""
    folder = tmp_path_factory.mktemp("layers")
    data, vae = toy_set(), toy_vae()
    data.save(folder / "set.safetensors")
    vae.save_pretrained(folder / "vae")
    train_codec(vae, data, short_run(folder / "codec", steps=1), CODEC)
    words = [str(folder / "set.safetensors"), "--scenes", "beach", "room", "--pictures", "3", "--count", "20"]
    assert main(["train", "compose", *words, "--held-out", "4", "--out", str(folder / "layers.safetensors")]) == 0
    return folder


@pytest.fixture(scope="module")
def layers(folder):
    return LayerSet.load(folder / "layers.safetensors")


def test_the_command_composes_and_shows_a_grid(folder, layers, capsys):
    assert sum(layers.held_out) in (0, 4) and len(layers.part(held_out=False)) == 20
    assert layers.foreground.shape[1:] == (4, SIDE, SIDE) and (folder / "layers_samples.png").stat().st_size > 1000


def test_frames_are_encoded_as_they_are_to_be_painted(folder, layers):
    vae = toy_vae()
    codec = load_codec(folder / "codec", vae)
    made = encode_layers(vae, codec, layers)
    assert made.latents.shape == (len(layers), 3, 4, SIDE // 4, SIDE // 4) and made.latents.dtype == torch.float16
    rgba, background = layers.foreground.float() / 255, layers.background.float() / 255
    with torch.no_grad():
        posterior = vae.encode(rgba[:, :3] * 2 - 1).latent_dist
        offset = codec.offset(rgba[:, [3, 0, 1, 2]], posterior.std)
        plain = vae.encode(background * 2 - 1).latent_dist.mean
    assert offset.abs().max() > 1e-4, "a test that cannot see the codec"
    assert torch.allclose(made.latents[:, 0].float(), posterior.mean + offset, atol=2e-3)
    assert torch.allclose(made.latents[:, 1].float(), plain, atol=2e-3)
    assert torch.equal(made.pictures, torch.cat([layers.foreground, layers.background], dim=1))
    assert made.captions == layers.captions and made.image_size == (SIDE, SIDE)


def test_the_command_writes_what_load_reads(folder, layers):
    parts = ["--vae", str(folder / "vae"), "--codec", str(folder / "codec"), "--out", str(folder / "latents")]
    assert main(["train", "layer-latents", str(folder / "layers.safetensors"), *parts]) == 0
    again = LayerLatents.load(folder / "latents")
    assert again.captions == layers.captions and again.held_out == layers.held_out and again.names == layers.names
    assert len(again.part(held_out=False)) == 20 and again.scale_factor == pytest.approx(1.0, abs=1)
    with pytest.raises(InputError, match="layer-latents"):
        LayerLatents.load(folder / "layers.safetensors")


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="layer-latents"):
        LayerLatents.load(tmp_path / "file")


def test_an_ordinary_model_learns_things_scenes_and_both_in_their_shares(layers):
    data = toy_set()
    captions = [[name] for name in data.captions]
    made = encode_mixture(toy_vae(), (data, captions, 5), layers, Mixture(0.5, 0.2))
    assert len(made) == 60 + 100 + 40 and len(made.latents) == len(made.image)
    texts = [made.captions[number][0] for number in made.image.tolist()]
    assert set(texts[:60]) == set(data.captions)
    train = layers.part(held_out=False)
    assert set(texts[60:160]) == {texts[2][0] for texts in train.captions}
    assert set(texts[160:]) == {texts[1][0] for texts in train.captions}
    assert not made.transparent


def test_a_mixture_shows_the_pictures_that_its_captions_name(layers):
    """Without mirroring by chance, each latent is that of a set with that caption."""
    data, vae = toy_set(), toy_vae()
    made = encode_mixture(vae, (data, [[name] for name in data.captions], 1), layers, Mixture(0.5, 0.0))
    train = layers.part(held_out=False)
    with torch.no_grad():
        both = [vae.encode(p.float() / 127.5 - 1).latent_dist.mean for p in (train.blended, train.blended.flip(-1))]
    known = torch.cat(both).flatten(1)
    for latent, number in zip(made.latents[len(data) :], made.image[len(data) :].tolist(), strict=True):
        nearest = (known - latent.float().flatten()).abs().amax(dim=1).argmin().item() % len(train)
        assert train.captions[nearest][2] == made.captions[number]


def test_shares_that_leave_nothing_for_things_are_refused(layers):
    with pytest.raises(InputError, match="less than 1 together"):
        Mixture(0.8, 0.2).counts(10)
    small = layers.select([i for i, held in enumerate(layers.held_out) if held])
    data = toy_set()
    with pytest.raises(InputError, match="0 layer sets"):
        encode_mixture(toy_vae(), (data, [[name] for name in data.captions], 1), small, Mixture())


def test_mixed_latents_by_command(folder, capsys):
    words = [str(folder / "set.safetensors"), "--vae", str(folder / "vae"), "--views", "2"]
    words += ["--layers", str(folder / "layers.safetensors"), "--out", str(folder / "mixed")]
    assert main(["train", "latents", *words]) == 0
    assert json.loads(capsys.readouterr().out)["latents"] == len(LatentSet.load(folder / "mixed")) > 40
    assert main(["train", "latents", *words, "--codec", str(folder / "codec")]) == 2
    assert "--layers with --codec" in capsys.readouterr().err


def test_a_vae_learns_the_pictures_of_layer_sets_too(folder, capsys):
    words = ["--layers", str(folder / "layers.safetensors"), "--steps", "1", "--batch", "4", "--channels", "32", "32"]
    run = ["train", "vae", str(folder / "set.safetensors"), *words, "--out", str(folder / "trained")]
    assert main(run) == 0, capsys.readouterr().err
