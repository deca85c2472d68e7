"""Losses of the codec."""

from __future__ import annotations

import torch

from lib_layerdiffuse.training.codec.losses import (
    DiscriminatorTrainer,
    PatchDiscriminator,
    adversarial_loss,
    identity_loss,
    offset_penalty,
    reconstruction_loss,
)


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def test_reconstruction_ignores_the_colour_of_invisible_pixels():
    target = images()
    target[:, 0] = 0
    other = target.clone()
    other[:, 1:] = 1 - other[:, 1:]
    assert reconstruction_loss(other, target) == 0
    target[:, 0] = other[:, 0] = 1
    assert reconstruction_loss(other, target) > 0.1
    assert reconstruction_loss(target, target) == 0


def test_identity_counts_clean_rows_only():
    image = torch.zeros(2, 3, 4, 4)
    decoded = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), 9.0)])
    assert identity_loss(decoded, image, torch.tensor([1.0, 0.0])) == 0.25
    assert identity_loss(decoded, image, torch.zeros(2)) == 0


def test_penalty_is_the_mean_square():
    assert offset_penalty(torch.full((1, 4, 2, 2), 0.5)) == 0.25


def test_the_generators_turn_leaves_the_discriminator_alone():
    discriminator, fake = PatchDiscriminator(8), images().requires_grad_()
    adversarial_loss(discriminator, fake).backward()
    assert fake.grad.abs().sum() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in discriminator.parameters())


def test_the_discriminator_learns_to_tell_real_from_fake():
    torch.manual_seed(0)
    trainer = DiscriminatorTrainer(PatchDiscriminator(8))
    optimizer = torch.optim.Adam(trainer.parameters(), 1e-3)
    real, fake = images(4), torch.full((4, 4, 16, 16), 0.5)
    before, _ = trainer(real, fake)
    for _ in range(20):
        loss, _ = trainer(real, fake)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5 * before
