"""Encoding and decoding by the loaded checkpoint's VAE and the layer files of its base."""

from __future__ import annotations

import base64
import binascii
import io
import math

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save

from ...core.bases import BASES
from ...core.codec.codec import TransparencyCodec
from ...core.codec.decoding import RANKS, reflect
from ...core.errors import InputError
from ...core.picture.alpha import from_tensor, to_tensor
from ...core.picture.alpha_care import care_for
from ...form.arguments import BY_NAME
from ..host.host import WebuiHost
from ..jobs.init_images import flattened
from ..page.options import read_options

VAE_FACTOR = 8
MOST_PIXELS = 4096 * 4096
MOST_PICTURES = 16
RANGE = 1000.0  # what no latent's number comes near


def picture_of(text: str) -> Image.Image:
    """RGBA of a base64 text; InputError where it is none, or larger than MOST_PIXELS, before it is unpacked."""
    head = text.partition(",")[2] if text.startswith("data:") else text
    try:
        with Image.open(io.BytesIO(base64.b64decode(head))) as image:
            size = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        size = (1, 1)  # the argument's own parser says what is wrong with it
    if math.prod(size) > MOST_PIXELS:
        raise InputError(f"a picture of {size[0]}x{size[1]}", f"at most {MOST_PIXELS} pixels", "scale it down first")
    picture = BY_NAME["fg_image"].parse(text)
    if picture is None:
        raise InputError("no picture", "a base64 text of one", "give the picture")
    return picture


def latents_of(text: str, base: str) -> torch.Tensor:
    """The one tensor [B,C,h,w] of a base64 text of a safetensors file, float32; C as a base has it.

    InputError for anything else, or too much.
    """
    try:
        tensors = list(load(base64.b64decode(text, validate=True)).values())
    except (binascii.Error, ValueError, SafetensorError, KeyError) as error:
        raise InputError(f"no latent ({str(error)[:100]})", "base64 of a safetensors file", "send one") from error
    shapes = [list(tensor.shape) for tensor in tensors]
    channels = BASES[base].latents.channels
    large = [tensor for tensor in tensors if tensor.ndim == 4 and tensor.shape[1] == channels and tensor.numel()]
    if len(large) != 1:
        raise InputError(f"tensors {str(shapes)[:200]}", f"one of [B,{channels},h,w]", "send the latent alone")
    latents = large[0].float()
    B, _, h, w = latents.shape
    if B > MOST_PICTURES or h * w * VAE_FACTOR**2 > MOST_PIXELS:
        most = f"at most {MOST_PICTURES} pictures of {MOST_PIXELS} pixels"
        raise InputError(f"latents {list(latents.shape)}", most, "send fewer, or smaller ones")
    if not torch.isfinite(latents).all() or latents.abs().max() > RANGE:
        raise InputError("numbers that no sampler gives", "finite latents in the sampler's scale", "check the latent")
    return latents


def encode(host: WebuiHost, codec: TransparencyCodec, picture: Image.Image) -> tuple[torch.Tensor, Image.Image]:
    """RGBA -> latent [1,C,h,w] float32 with its transparency, in the sampler's scale; and what the VAE saw."""
    codec.to(host.device)
    rgba = to_tensor(picture)
    height, width = (-(-side // VAE_FACTOR) * VAE_FACTOR for side in rgba.shape[-2:])
    whole = reflect(rgba, height, width)
    offset, seen = codec.offset(whole), codec.seen(whole)

    def adjust(mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
        return codec.adjusted(mean, deviation, offset.to(mean.device))

    latent = host.encode(seen, adjust)
    return latent.cpu(), flattened(picture, codec)


def decode(host: WebuiHost, codec: TransparencyCodec, latents: torch.Tensor, passes: int | None) -> list[Image.Image]:
    """Latents [B,C,h,w] in the sampler's scale -> RGBA pictures, with the alpha care of the settings.

    InputError for another number of passes.
    """
    base = host.base
    passes = BASES[base].orientations if passes is None else passes
    if passes not in RANKS:
        raise InputError(f"{passes} passes", "1, 2, 4 or 8", "choose one of them")
    codec.to(host.device)
    care = read_options().care
    pictures = []
    for latent in latents.split(1):
        pixels = host.decode(latent)
        rgba = codec.decode(pixels.float().to(host.device), host.vae_space(latent.to(host.device), base), passes)
        pictures += from_tensor(care_for(rgba, pixels.to(rgba), care))
    return pictures


def as_safetensors(latent: torch.Tensor, base: str) -> str:
    """Base64 of a safetensors file with this latent [1,C,h,w]."""
    return base64.b64encode(save({"latent": latent.contiguous()}, {"base": base, "space": "sampler"})).decode("ascii")
