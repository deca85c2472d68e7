"""Losses of the transparency codec (arXiv 2402.17113): reconstruction, identity, offset penalty and a PatchGAN.

Images are [B,4,H,W], channels A,R,G,B in [0,1], straight alpha; only what is visible counts in the colour terms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def premultiplied(argb: torch.Tensor) -> torch.Tensor:
    """A,R,G,B [B,4,H,W] with the colour multiplied by alpha: what an image adds to any background."""
    return torch.cat([argb[:, :1], argb[:, 1:] * argb[:, :1]], dim=1)


def reconstruction_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 + L2 of alpha, L1 of straight colour weighted by the true alpha, and L1 of premultiplied colour; a scalar."""
    alpha = prediction[:, :1] - target[:, :1]
    colour = (prediction[:, 1:] - target[:, 1:]) * target[:, :1]
    composite = premultiplied(prediction)[:, 1:] - premultiplied(target)[:, 1:]
    return alpha.abs().mean() + alpha.square().mean() + colour.abs().mean() + composite.abs().mean()


def identity_loss(decoded: torch.Tensor, image: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Harmlessness: squared error of the frozen decoder's image [B,3,H,W] in [-1,1], over the `clean` [B] rows.

    Rows with added latent noise are left out: their error is the noise's, not the offset's.
    """
    error = (decoded - image).square().mean(dim=(1, 2, 3))
    return (error * clean).sum() / clean.sum().clamp_min(1)


def offset_penalty(relative_offset: torch.Tensor) -> torch.Tensor:
    """Mean square of the offset in latent deviations: unpenalised offsets grow past one and strain diffusion models."""
    return relative_offset.square().mean()


class PatchDiscriminator(torch.nn.Module):
    """PatchGAN (arXiv 1611.07004) on premultiplied A,R,G,B [B,4,H,W]: a score for each patch, [B,1,H/8,W/8]."""

    def __init__(self, width: int = 32):
        super().__init__()
        layers, channels = [], 4
        for level in range(3):
            wide = width * 2**level
            layers += [torch.nn.Conv2d(channels, wide, 4, stride=2, padding=1)]
            layers += [torch.nn.GroupNorm(4, wide)] if level else []
            layers += [torch.nn.LeakyReLU(0.2)]
            channels = wide
        self.layers = torch.nn.Sequential(*layers, torch.nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, argb: torch.Tensor) -> torch.Tensor:
        """Scores of straight-alpha images [B,4,H,W]; high means real."""
        return self.layers(premultiplied(argb))


class DiscriminatorTrainer(torch.nn.Module):
    """Discriminator and its hinge loss in one forward, as distributed training wants it."""

    def __init__(self, discriminator: PatchDiscriminator):
        super().__init__()
        self.discriminator = discriminator

    def forward(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Hinge loss on equal numbers of real and reconstructed images [B,4,H,W], both straight alpha."""
        scores = self.discriminator(torch.cat([real, fake]))
        of_real, of_fake = scores.chunk(2)
        loss = F.relu(1 - of_real).mean() + F.relu(1 + of_fake).mean()
        return loss, {"discriminator": loss.detach()}


def adversarial_loss(discriminator: PatchDiscriminator, fake: torch.Tensor) -> torch.Tensor:
    """The generator's side of the hinge; the discriminator itself gets no gradient from it."""
    parameters = list(discriminator.parameters())
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        return -discriminator(fake).mean()
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
