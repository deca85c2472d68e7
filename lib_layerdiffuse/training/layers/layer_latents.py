"""Latents of layer sets, made once: what a trainer of layer methods reads, in one safetensors file.

`latents` float16 [N,3,C,h,w] in VAE space: foreground (adjusted by the transparency codec), background, blended (both
the posterior's mean). `pictures` uint8 [N,7,S,S]: the foreground's R,G,B,A, then the background's R,G,B, for control
images. `captions[i][frame]` lists the ways to ask for a frame; in the file they are `caption` int32 [N,3] and a table
in the header, as in `layer_sets`. The header also holds `names`, `held_out`, and the sampler's `scale_factor`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from ...core.errors import InputError
from ..codec.codec import Codec
from ..diffusion.latents import LatentSet, encode_views
from ..layer_sets.layer_sets import Captions, LayerSet, captions_of, table_of
from ..pictures.data import PreparedSet
from ..pictures.set_files import open_set, save_set

HEADER = ("captions", "names", "held_out", "scale_factor")


@dataclass
class LayerLatents:
    """N sets of three frames (foreground, background, blended); see the top of the file."""

    latents: torch.Tensor
    pictures: torch.Tensor
    captions: Captions
    names: list[str]
    held_out: list[bool]
    scale_factor: float = 1.0

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pictures.shape[2], self.pictures.shape[3]

    def part(self, held_out: bool) -> LayerLatents:
        """The held-out or the training part, in the same order."""
        index = [i for i in range(len(self)) if self.held_out[i] == held_out]
        return replace(
            self,
            latents=self.latents[index],
            pictures=self.pictures[index],
            captions=[self.captions[i] for i in index],
            names=[self.names[i] for i in index],
            held_out=[self.held_out[i] for i in index],
        )

    def save(self, path: str | Path) -> None:
        """Write tensors and captions into one safetensors file, under its name only when it is whole."""
        texts, caption = table_of(self.captions)
        tensors = {"latents": self.latents, "pictures": self.pictures, "caption": caption}
        save_set(path, tensors, {name: getattr(self, name) for name in HEADER} | {"captions": texts})

    @classmethod
    def load(cls, path: str | Path) -> LayerLatents:
        """Read what `save` wrote; `InputError` when the file is something else."""
        with open_set(path, "`train layer-latents`", HEADER) as (file, header):
            header["captions"] = captions_of(header["captions"], file.get_tensor("caption"))
            return cls(file.get_tensor("latents"), file.get_tensor("pictures"), **header)


@torch.no_grad()
def encode_layers(
    vae: AutoencoderKL, codec: Codec, data: LayerSet, progress: Callable[[Iterable], Iterable] = iter
) -> LayerLatents:
    """Latents of every set, on the VAE's device. InputError for an empty set."""
    if not len(data):
        raise InputError("no layer set", "one or more", "look at what was skipped")
    rows = torch.arange(len(data)).split(batch_of(vae))
    latents = torch.cat([_encoded(vae, codec, data, index) for index in progress(rows)])
    pictures = torch.cat([data.foreground, data.background], dim=1)
    scale = float(vae.config.scaling_factor)
    return LayerLatents(latents, pictures, data.captions, data.names, data.held_out, scale)


def batch_of(vae: AutoencoderKL) -> int:
    """Pictures that are encoded at once."""
    return 32 if next(vae.parameters()).device.type == "cpu" else 256


def _encoded(vae: AutoencoderKL, codec: Codec, data: LayerSet, index: torch.Tensor) -> torch.Tensor:
    """float16 [B,3,C,h,w] on the CPU."""
    foreground = _pixels(vae, data.foreground[index])
    adjusted = codec.encode(vae, foreground[:, [3, 0, 1, 2]])
    others = [encode_opaque(vae, layer[index]) for layer in (data.background, data.blended)]
    return torch.stack([adjusted.cpu().half(), *others], dim=1)


def encode_opaque(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Means of uint8 pictures [B,3,S,S], float16 [B,C,h,w] on the CPU."""
    return vae.encode(_pixels(vae, pictures) * 2 - 1).latent_dist.mean.cpu().half()


def _pixels(vae: AutoencoderKL, layer: torch.Tensor) -> torch.Tensor:
    return layer.to(next(vae.parameters()).device).float() / 255


@dataclass
class Mixture:
    """What an ordinary model learns: shares of blended pictures and of scenes alone; the rest are things alone."""

    blended_share: float = 0.5
    scene_share: float = 0.15

    def counts(self, things: int) -> tuple[int, int]:
        """Blended pictures and scenes that go with so many pictures of things alone.

        InputError where nothing is left for these.
        """
        rest = 1 - self.blended_share - self.scene_share
        if rest <= 0:
            raise InputError(
                f"shares of {self.blended_share} and {self.scene_share}",
                "less than 1 together, so that things alone have a share too",
                "lower one of them",
            )
        return round(things * self.blended_share / rest), round(things * self.scene_share / rest)


@torch.no_grad()
def encode_mixture(
    vae: AutoencoderKL,
    things: tuple[PreparedSet, list[list[str]], int],
    layers: LayerSet,
    mixture: Mixture,
    progress: Callable[[Iterable], Iterable] = iter,
) -> LatentSet:
    """Opaque latents of things alone (set, captions, views of each), of scenes alone and of things in scenes.

    Blended pictures and backgrounds are those of the sets that are not held out, half of them mirrored; where there are
    fewer than wanted, some come again. InputError for sets of another size, or none.
    """
    data, captions, views = things
    alone = encode_views(vae, data, captions, views, progress=progress)
    layers = layers.part(held_out=False)
    if not len(layers) or layers.blended.shape[2:] != data.rgba.shape[2:]:
        raise InputError(
            f"{len(layers)} layer sets of {layers.blended.shape[-1]} pixels to train on",
            f"some, of {data.rgba.shape[-1]} pixels",
            "compose them of this set",
        )
    generator = torch.Generator().manual_seed(len(layers))
    parts, rows, texts = [alone.latents], [alone.image], list(captions)
    for frame, count in zip((2, 1), mixture.counts(len(alone)), strict=True):
        if not count:
            continue
        again = count // len(layers) + 1
        chosen = torch.cat([torch.randperm(len(layers), generator=generator) for _ in range(again)])[:count]
        table, number = table_of(layers.captions)
        rows.append(len(texts) + number[chosen, frame].long())
        texts += table
        pictures = layers.blended if frame == 2 else layers.background
        parts += [_mirrored(vae, pictures[index], generator) for index in progress(chosen.split(batch_of(vae)))]
    alone.latents, alone.image, alone.captions = torch.cat(parts), torch.cat(rows), texts
    return alone


def _mirrored(vae: AutoencoderKL, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """`encode_opaque`, half of the pictures mirrored."""
    turned = torch.rand(len(pictures), 1, 1, 1, generator=generator) < 0.5
    return encode_opaque(vae, torch.where(turned, pictures.flip(-1), pictures))
