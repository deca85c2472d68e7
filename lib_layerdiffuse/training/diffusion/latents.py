"""Latents of random views, made once, so that a diffusion model's training never waits for the VAE.

An ordinary model learns opaque pictures: the images on made-up backgrounds. A transparent one learns adjusted latents
of the same views. Latents are stored in VAE space; the file's header holds captions and the sampler's scale and shift.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from ...core.errors import InputError
from ..codec.codec import Codec, latent_space
from ..pictures.augment import random_backgrounds, zoom
from ..pictures.data import PreparedSet
from ..pictures.set_files import open_set, save_set

HEADER = ("captions", "scale_factor", "transparent", "image_size")
VIEW_AMOUNT = 0.4  # of the codec's zoom and shift: every view more costs a small model training time


@dataclass
class LatentSet:
    """`latents` float16 [M,C,h,w], VAE space; `image` [M] says which image each shows; captions by image."""

    latents: torch.Tensor
    image: torch.Tensor
    captions: list[list[str]]
    scale_factor: float = 1.0
    transparent: bool = False
    image_size: tuple[int, int] = field(default=(0, 0))  # pixels, height and width
    shift_factor: float = 0.0

    def __len__(self) -> int:
        return len(self.latents)

    def sampler_space(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of the set as a diffusion model has them."""
        return (latents - self.shift_factor) * self.scale_factor

    def vae_space(self, latents: torch.Tensor) -> torch.Tensor:
        """What a diffusion model painted, as the VAE has it."""
        return latents / self.scale_factor + self.shift_factor

    def save(self, path: str | Path) -> None:
        """Write tensors and captions into one safetensors file, under its name only when it is whole."""
        header = {name: getattr(self, name) for name in (*HEADER, "shift_factor")}
        save_set(path, {"latents": self.latents, "image": self.image}, header)

    @classmethod
    def load(cls, path: str | Path) -> LatentSet:
        """Read what `save` wrote; `InputError` when the file is something else."""
        with open_set(path, "`train latents`", HEADER) as (file, header):
            header["image_size"] = tuple(header["image_size"])
            header["shift_factor"] = float((file.metadata() or {}).get("shift_factor", 0))  # older files say nothing
            return cls(file.get_tensor("latents"), file.get_tensor("image"), **header)


@torch.no_grad()
def encode_views(
    vae: AutoencoderKL,
    data: PreparedSet,
    captions: list[list[str]],
    views: int,
    codec: Codec | None = None,
    progress: Callable = iter,
) -> LatentSet:
    """`views` flipped, zoomed and shifted views of each image; adjusted latents with `codec`, opaque ones without.

    Views are seeded by their batch, so opaque and adjusted latents of the same set show the same views. InputError for
    none.
    """
    if views < 1 or not len(data):
        raise InputError(f"{views} views of {len(data)} images", "at least one of each", "check set and --views")
    device = next(vae.parameters()).device
    data = data.to(device)
    rows = torch.arange(len(data)).repeat(views)
    parts = []
    for number, index in enumerate(progress(rows.split(32))):
        generator = torch.Generator().manual_seed(number)
        rgba = zoom(data.rgba[index].float().div(255), generator, VIEW_AMOUNT)
        latent = codec.encode(vae, rgba[:, [3, 0, 1, 2]].to(device)) if codec else _opaque(vae, rgba, generator, device)
        parts.append(latent.cpu().half())
    size = (data.rgba.shape[2], data.rgba.shape[3])
    space = latent_space(vae)
    return LatentSet(torch.cat(parts), rows, captions, space.scale_factor, codec is not None, size, space.shift_factor)


def _opaque(vae: AutoencoderKL, rgba: torch.Tensor, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    colour, alpha = rgba[:, :3], rgba[:, 3:]
    backgrounds = random_backgrounds(len(rgba), rgba.shape[-1], generator, rgba.device)
    image = colour * alpha + backgrounds * (1 - alpha)
    return vae.encode(image.to(device) * 2 - 1).latent_dist.mean
