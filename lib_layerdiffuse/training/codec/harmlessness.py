"""What a transparency codec does to its VAE, and what comes back of alpha and colour, on unseen images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from ...core.codec.decoder import TransparencyUNet
from ...core.codec.decoding import ORIENTATIONS, RANKS, median
from ...core.codec.encoder import OffsetEncoder
from ...core.errors import InputError, WeightsError
from ...core.files.codec_parts import DECODER, ENCODER
from ..pictures.augment import soften
from ..pictures.data import PreparedSet
from .codec import Codec, LatentStatistics, latent_statistics
from .codec_files import read_codec_files
from .losses import premultiplied

NOISE = 0.2  # latent deviations


class _Mean:
    """Means of named figures over all images."""

    def __init__(self):
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, figures: dict[str, torch.Tensor]) -> None:
        """Add figures given for each image, [B] each."""
        for name, values in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + values.double().sum().item()
        self.count += len(next(iter(figures.values())))

    def means(self) -> dict[str, float]:
        """The means so far."""
        return {name: total / self.count for name, total in self.sums.items()}


@torch.no_grad()
def evaluate_codec(
    vae: AutoencoderKL,
    codec: Codec,
    data: PreparedSet,
    batch: int = 8,
    progress: Callable = iter,
    passes: int = 1,
) -> dict[str, float]:
    """Figures of `codec` over `data`: plain images, and the same with alpha softened by fields seeded by image number.

    Decibels are of the mean squared error over the set, pixels in [0,1]. `passes` orientations (1, 2, 4 or 8) vote, as
    in inference. InputError for other numbers, or no images.
    """
    if passes not in RANKS:
        raise InputError(f"{passes} passes", "1, 2, 4 or 8", "choose one of them")
    if not len(data):
        raise InputError("no image to evaluate on", "at least one", "use a set with held-out concepts, or --all")
    device = next(codec.parameters()).device
    vae.to(device)
    mean, voting = _Mean(), _Voting(codec, passes)
    for start in progress(range(0, len(data), batch)):
        numbers = range(start, min(start + batch, len(data)))
        argb = data.rgba[list(numbers)][:, [3, 0, 1, 2]].float().div(255)
        soft = argb.clone()
        soft[:, :1] = torch.cat([_softened(argb[i : i + 1, :1], number) for i, number in enumerate(numbers)])
        noise = torch.cat([_noise(vae, argb, number) for number in numbers])
        figures = _plain_figures(vae, voting, argb.to(device), noise.to(device))
        mean.add({**figures, **_soft_figures(vae, voting, soft.to(device))})
    return _report(mean.means(), len(data))


def _softened(alpha: torch.Tensor, number: int) -> torch.Tensor:
    return soften(alpha, torch.Generator().manual_seed(number))


def _noise(vae: AutoencoderKL, argb: torch.Tensor, number: int) -> torch.Tensor:
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    size = (1, vae.config.latent_channels, argb.shape[2] // factor, argb.shape[3] // factor)
    return torch.randn(size, generator=torch.Generator().manual_seed(number))


class _Voting:
    """A codec whose decoder votes over orientations, as inference does."""

    def __init__(self, codec: Codec, passes: int):
        self.offset, self.encode, self.seen, self.deviation = codec.offset, codec.encode, codec.seen, codec.deviation
        self.codec, self.orientations = codec, ORIENTATIONS[:passes]

    def decode(self, decoded: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """A,R,G,B [B,4,H,W] in [0,1] from the VAE's image in [-1,1] and the VAE-space latent."""
        return median([turn.undo(self._turned(turn.apply(decoded), turn.apply(latent))) for turn in self.orientations])

    def _turned(self, decoded: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        return self.codec.decode(decoded, latent).clamp(0, 1)


def _plain_figures(vae: AutoencoderKL, codec: _Voting, argb: torch.Tensor, noise: torch.Tensor) -> dict:
    seen = codec.seen(argb)
    image, posterior = seen / 2 + 0.5, vae.encode(seen).latent_dist
    offset = codec.offset(argb, posterior.std)
    deviation = codec.deviation[:, None, None]
    bare = vae.decode(posterior.mean).sample
    adjusted = posterior.mean + offset
    decoded = vae.decode(adjusted).sample
    output = codec.decode(decoded, adjusted)
    noisy = adjusted + NOISE * noise * deviation
    noisy_output = codec.decode(vae.decode(noisy).sample, noisy)
    without = codec.decode(bare, posterior.mean)
    return {
        "vae_error": _squared(bare.div(2).add(0.5).clamp(0, 1), image),
        "adjusted_error": _squared(decoded.div(2).add(0.5).clamp(0, 1), image),
        "offset_square": (offset / deviation).square().mean(dim=(1, 2, 3)),
        "alpha_mae": _alpha_error(output, argb),
        "alpha_mae_noise": _alpha_error(noisy_output, argb),
        "alpha_mae_without_offset": _alpha_error(without, argb),
        "rgba_error": _squared(premultiplied(output), premultiplied(argb)),
    }


def _soft_figures(vae: AutoencoderKL, codec: _Voting, argb: torch.Tensor) -> dict:
    latent = codec.encode(vae, argb)
    output = codec.decode(vae.decode(latent).sample, latent)
    return {
        "alpha_mae_soft": _alpha_error(output, argb),
        "rgba_error_soft": _squared(premultiplied(output), premultiplied(argb)),
    }


def _squared(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean(dim=(1, 2, 3))


def _alpha_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output[:, 0] - target[:, 0]).abs().mean(dim=(1, 2))


def _report(means: dict[str, float], images: int) -> dict[str, float]:
    decibel = {name: -10 * torch.tensor(max(value, 1e-12)).log10().item() for name, value in means.items()}
    return {
        "images": images,
        "alpha_mae": means["alpha_mae"],
        "alpha_mae_soft": means["alpha_mae_soft"],
        "alpha_mae_at_0.2_sigma_noise": means["alpha_mae_noise"],
        "alpha_mae_without_offset": means["alpha_mae_without_offset"],
        "rgba_psnr": decibel["rgba_error"],
        "rgba_psnr_soft": decibel["rgba_error_soft"],
        "vae_psnr": decibel["vae_error"],
        "adjusted_psnr": decibel["adjusted_error"],
        "harmlessness_loss_db": decibel["vae_error"] - decibel["adjusted_error"],
        "offset_rms_sigma": means["offset_square"] ** 0.5,
    }


def load_codec(folder: str | Path, vae: AutoencoderKL, data: PreparedSet | None = None) -> Codec:
    """The codec whose files lie in `folder` (any prefix), frozen; `deviation` is measured on `data`, else 1.

    WeightsError for a codec of another VAE.
    """
    states, rule = read_codec_files(folder)
    encoder = OffsetEncoder.from_state_dict(states[ENCODER])
    level = len(vae.config.block_out_channels) - 1
    if encoder.latent_channels != vae.config.latent_channels or encoder.factor != 2**level:
        raise WeightsError(
            got=f"an encoder for factor {encoder.factor} and {encoder.latent_channels} latent channels",
            expected=f"factor {2**level} and {vae.config.latent_channels} channels, as the VAE has",
            what_to_do="name the VAE that the codec was trained for",
        )
    decoder = TransparencyUNet.from_state_dict(states[DECODER], latent_level=level)
    ones = torch.ones(encoder.latent_channels)
    statistics = latent_statistics(vae, data) if data is not None else LatentStatistics(ones, ones)
    codec = Codec(encoder, decoder, rule, statistics)
    codec.scale.fill_(rule.offset_scale)  # files hold the rest already
    return codec.requires_grad_(False).eval()
