"""The small autoencoder's training: noise on its latents."""

from __future__ import annotations

import math

import pytest
import torch

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.training.codec.vae import (
    VaeOptions,
    VaeShape,
    VaeTrainer,
    free_unused,
    grown_vae,
    load_vae,
    train_vae,
    whiten,
)

from .toys import short_run, toy_set, toy_vae


class Seen(torch.nn.Module):
    """An autoencoder's own encoder; notes the latents that its decoder is given."""

    def __init__(self, vae):
        super().__init__()
        self.vae, self.encode, self.latents = vae, vae.encode, []

    def decode(self, latent):
        """Note `latent` and decode it."""
        self.latents.append(latent)
        return self.vae.decode(latent)


def test_noise_is_measured_in_each_channels_own_deviation():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    noise = torch.randn(2, 4, 4, 4, generator=generator)
    model = Seen(toy_vae())
    for strength in ((0.0,) * 4, (0.1, 0.2, 0.0, 2.0)):
        VaeTrainer(model, VaeOptions(latent_noise=strength))(image, noise, torch.tensor(1.0))
    plain, noisy = model.latents
    deviation = model.encode(image).latent_dist.mean.std(dim=(0, 2, 3))
    wanted = torch.tensor([0.1, 0.2, 0.0, 2.0])[:, None, None] * deviation[:, None, None] * noise
    torch.testing.assert_close(noisy - plain, wanted)
    assert wanted[:, 3].abs().max() > 0


@pytest.mark.parametrize("noise", [(0.1,), (0.1, 0.1, 0.1, -1.0)])
def test_noise_that_does_not_fit_is_refused(tmp_path, noise):
    with pytest.raises(InputError, match=r"latent.noise"):
        train_vae(toy_set(), short_run(tmp_path / "run", 1), VaeShape((32, 32)), VaeOptions(latent_noise=noise))


@torch.no_grad()
def test_whitening_changes_the_latents_and_no_picture():
    vae = toy_vae()
    torch.nn.init.normal_(vae.quant_conv.weight, std=0.3)
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = vae.decode(vae.encode(images).latent_dist.mean).sample
    widths = vae.encode(images).latent_dist.logvar
    deviations = vae.encode(images).latent_dist.mean.std(dim=(0, 2, 3))
    whiten(vae, images, batch=4)
    posterior = vae.encode(images).latent_dist
    torch.testing.assert_close(vae.decode(posterior.mean).sample, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(posterior.mean.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(posterior.mean.std(dim=(0, 2, 3)), torch.ones(4), rtol=0, atol=1e-4)
    assert widths.std() > 0 and vae.config.scaling_factor == 1
    wanted = (widths.mean(dim=(0, 2, 3)) - 2 * deviations.log()).clamp(max=2 * math.log(0.05))
    torch.testing.assert_close(posterior.logvar[0], wanted[:, None, None].expand_as(posterior.logvar[0]))


@torch.no_grad()
def test_a_channel_that_the_decoder_ignores_repeats_the_first():
    vae = toy_vae()
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert free_unused(vae, images) == []
    vae.post_quant_conv.weight[:, 3] = 0
    before = vae.decode(vae.encode(images).latent_dist.mean).sample
    assert free_unused(vae, images) == [3]
    latent = vae.encode(images).latent_dist.mean
    assert torch.equal(latent[:, 3], latent[:, 0])
    assert torch.equal(vae.decode(latent).sample, before)


def test_training_goes_on_from_an_autoencoder_in_its_own_shape(tmp_path):
    start = toy_vae()
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    config = short_run(tmp_path / "run", 1)
    config.learning_rate = 1e-6
    train_vae(toy_set(), config, start, VaeOptions(latent_noise=(0.0,) * start.config.latent_channels, crop=0))
    after = load_vae(tmp_path / "run" / "vae").state_dict()
    assert after.keys() == before.keys()
    moved = torch.cat([(after[name] - tensor).abs().flatten() for name, tensor in before.items()])
    assert 0 < moved.max() < 1e-4


def moved_parts(start, options, folder):
    """Which parts of an autoencoder two steps of training change."""
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    train_vae(toy_set(), short_run(folder / "run", 2), start, options)
    after = load_vae(folder / "run" / "vae").state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(after[name], before[name])}, after


def test_the_decoder_alone_learns_and_latents_stay(tmp_path):
    start = toy_vae()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    latents = start.encode(images).latent_dist.mean.detach()
    options = VaeOptions(latent_noise=(0.0,) * start.config.latent_channels, crop=0, decoder_only=True)
    assert moved_parts(start, options, tmp_path)[0] == {"decoder"}
    assert torch.equal(load_vae(tmp_path / "run" / "vae").encode(images).latent_dist.mean, latents)


def test_the_encoder_alone_learns_and_what_latents_mean_stays(tmp_path):
    start = toy_vae()
    options = VaeOptions(latent_noise=(0.0,) * start.config.latent_channels, crop=0, encoder_only=True)
    assert moved_parts(start, options, tmp_path)[0] == {"encoder", "quant_conv"}


@torch.no_grad()
def test_a_grown_autoencoder_gives_the_same_latents_and_pictures():
    vae = toy_vae()
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent = vae.encode(image).latent_dist.mean
    grown = grown_vae(vae, 2).eval()
    assert grown.config.layers_per_block == vae.config.layers_per_block + 2
    assert len(grown.state_dict()) > len(vae.state_dict())
    assert torch.equal(grown.encode(image).latent_dist.mean, latent)
    assert torch.equal(grown.decode(latent).sample, vae.decode(latent).sample)
    assert grown_vae(vae, 0) is vae


def test_a_grown_encoders_new_blocks_learn(tmp_path):
    start = toy_vae()
    options = VaeOptions(latent_noise=(0.0,) * start.config.latent_channels, crop=0, encoder_only=True, grow=1)
    moved, after = moved_parts(start, options, tmp_path)
    assert moved == {"encoder", "quant_conv"}
    added = [after[f"encoder.down_blocks.{level}.resnets.0.conv2.weight"] for level in range(2)]
    assert all(weight.abs().max() > 0 for weight in added)
    assert not after["decoder.up_blocks.0.resnets.1.conv2.weight"].abs().max()


def test_something_is_left_to_train():
    with pytest.raises(InputError, match="leave one away"):
        VaeOptions(latent_noise=(0.0,) * 4, decoder_only=True, encoder_only=True)
