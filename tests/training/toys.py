"""Toy sets and models for the training tests: 32 x 32 pixels, factor 4."""

from __future__ import annotations

import copy
import functools
import io
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image

from lib_layerdiffuse.training.codec.codec import CodecOptions
from lib_layerdiffuse.training.codec.vae import VaeShape, build_vae
from lib_layerdiffuse.training.engine import RunConfig
from lib_layerdiffuse.training.pictures.data import PreparedSet, prepare

SIDE = 32
CODEC = CodecOptions(encoder_widths=(8, 8, 16), decoder_channels=(8, 8, 16), attention_levels=1, crop=16)


def disc(number: int, side: int = SIDE) -> Image.Image:
    """A coloured disc with a soft rim on nothing, another one for each number."""
    axis = torch.linspace(-1, 1, side)
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    alpha = ((0.5 + 0.05 * (number % 5) - radius) * 4).clamp(0, 1)
    colour = torch.rand(3, generator=torch.Generator().manual_seed(number))[:, None, None].expand(3, side, side)
    pixels = torch.cat([colour, alpha[None]]).mul(255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.numpy(), "RGBA")


@functools.cache
def png(number: int) -> bytes:
    """`disc` as a PNG file's content."""
    buffer = io.BytesIO()
    disc(number).save(buffer, "PNG")
    return buffer.getvalue()


def write_discs(folder: Path, count: int = 12) -> Path:
    """A folder `discs` of `count` PNG files."""
    folder = folder / "discs"
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{chr(97 + number)}.png").write_bytes(png(number))
    return folder


def toy_set(count: int = 12) -> PreparedSet:
    """A prepared set with the last two images held out."""
    return copy.deepcopy(prepared_discs(count))


@functools.cache
def prepared_discs(count: int) -> PreparedSet:
    """`toy_set`, made once."""
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(write_discs(Path(folder), count), SIDE)
    data.held_out = [number >= count - 2 for number in range(count)]
    return data


def toy_vae(channels: tuple[int, ...] = (32, 32, 32), latent_channels: int = 4) -> AutoencoderKL:
    """An untrained autoencoder, a factor of two for each level but the first."""
    torch.manual_seed(0)
    return build_vae(VaeShape(channels, 0, latent_channels)).requires_grad_(False).eval()


def short_run(out: Path, steps: int = 3, **more) -> RunConfig:
    """A run of a few steps."""
    defaults = {"batch": 4, "log_every": 1, "warmup": 1, "sample_minutes": 99.0, "save_minutes": 99.0}
    return RunConfig(str(out), steps=steps, **{**defaults, **more})


def flux_vae() -> AutoencoderKL:
    """An untrained autoencoder as Flux has it: 16 channels, factor 8, scale and shift, no quant convolutions."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(32, 32, 32, 32),
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    with torch.no_grad():  # fresh ones have wide posteriors
        vae.encoder.conv_out.bias[16:] = -3.0
    return vae.requires_grad_(False).eval()
