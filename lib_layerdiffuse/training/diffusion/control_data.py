"""What a ControlNet learns from: pictures, the lines that are to be followed, captions; all on the training's device.

Lines come from the pictures themselves: all of a picture's, or those of the thing in it alone, so that one can draw a
thing and leave its scene to the prompt. A background is at times shown with the lines of a thing that its caption does
not ask for, and learns not to follow them: so it is with the background of a set of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL

from ...core.errors import InputError
from ...core.picture.edges import HIGH, edge_maps, thick_lines
from ..layer_sets.layer_sets import FRAMES, Captions
from ..pictures.augment import random_backgrounds, zoom
from ..pictures.captions import caption_variants
from ..pictures.data import PreparedSet
from ..settings import ControlOptions
from .latents import VIEW_AMOUNT

BATCH = 64  # pictures that are made, or encoded, at once
HIGHEST = 0.25  # strongest threshold of lines that are drawn in training


@dataclass
class ControlSet:
    """`pictures` uint8 [N,3,S,S] with captions; `subject` [N] is the row of `subjects` [K,4,S,S] seen in each, or -1.

    `asked` [N] tells whether the caption asks for that subject.
    """

    pictures: torch.Tensor
    captions: list[list[str]]
    subjects: torch.Tensor
    subject: torch.Tensor
    asked: torch.Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pictures.shape[-2], self.pictures.shape[-1]

    def to(self, device: torch.device) -> ControlSet:
        """The same on a device."""
        tensors = (self.pictures, self.subjects, self.subject, self.asked)
        pictures, subjects, subject, asked = (tensor.to(device) for tensor in tensors)
        return ControlSet(pictures, self.captions, subjects, subject, asked)


def from_prepared(data: PreparedSet, views: int) -> ControlSet:
    """`views` views of each picture of a prepared set, on made-up backgrounds; the subject is the picture cut out."""
    rows = torch.arange(len(data)).repeat(views)
    pictures, subjects = [], []
    for number, index in enumerate(rows.split(BATCH)):
        generator = torch.Generator().manual_seed(number)
        rgba = zoom(data.rgba[index].float().div(255), generator, VIEW_AMOUNT)
        colour, alpha = rgba[:, :3], rgba[:, 3:]
        backgrounds = random_backgrounds(len(rgba), rgba.shape[-1], generator)
        pictures.append(_bytes(colour * alpha + backgrounds * (1 - alpha)))
        subjects.append(_bytes(rgba))
    captions = [caption_variants(data.captions[image]) for image in rows.tolist()]
    every = torch.arange(len(rows))
    return ControlSet(
        torch.cat(pictures), captions, torch.cat(subjects), every, torch.ones(len(rows), dtype=torch.bool)
    )


def from_layers(
    foreground: torch.Tensor, background: torch.Tensor, blended: torch.Tensor, captions: Captions
) -> ControlSet:
    """The blended pictures and the backgrounds uint8 [N,3,S,S] of layer sets; the subject is the foreground."""
    count = len(foreground)
    texts = [frames[FRAMES.index(name)] for name in ("blended", "background") for frames in captions]
    asked = torch.arange(2 * count) < count
    return ControlSet(torch.cat([blended, background]), texts, foreground, torch.arange(count).repeat(2), asked)


def joined(parts: Sequence[ControlSet]) -> ControlSet:
    """Several sets as one; InputError where their pictures differ in size."""
    sizes = sorted({part.size for part in parts})
    if len(sizes) > 1:
        raise InputError(f"sets of pictures of {sizes}", "one size", "prepare them with the same --size")
    starts = [sum(len(part.subjects) for part in parts[:place]) for place in range(len(parts))]
    shifted = [
        torch.where(part.subject < 0, -1, part.subject + start) for part, start in zip(parts, starts, strict=True)
    ]
    return ControlSet(
        torch.cat([part.pictures for part in parts]),
        [texts for part in parts for texts in part.captions],
        torch.cat([part.subjects for part in parts]),
        torch.cat(shifted),
        torch.cat([part.asked for part in parts]),
    )


class ControlBatches:
    """Random batches: latents [N,C,h,w] in the sampler's scale, line drawings, and captions."""

    def __init__(self, data: ControlSet, latents: torch.Tensor, options: ControlOptions):
        self.data, self.latents, self.options = data, latents, options
        self.texts = sorted({"", *(text for texts in data.captions for text in texts)})

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Latents [count,C,h,w] float32, lines [count,3,H,W] in {0,1}, and captions, or none."""
        rows = torch.randint(0, len(self.data), (count,), generator=generator)
        chance = torch.rand(2, count, generator=generator).tolist()
        variants = [self.data.captions[row] for row in rows.tolist()]
        captions = [
            "" if drop < self.options.caption_dropout else texts[int(share * len(texts))]
            for texts, share, drop in zip(variants, *chance, strict=True)
        ]
        rows = rows.to(self.latents.device)
        return self.latents[rows].float(), self.lines(rows, generator), captions

    def lines(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Line drawings [B,3,H,W] for pictures: of the picture or its subject, thin or thick, few or many, or none."""
        options, chance = self.options, torch.rand(4, len(rows), generator=generator).to(rows.device)
        asked = self.data.asked[rows]
        share = torch.where(asked, options.subject_share, options.stray_share)
        seen = drawn_from(self.data, rows, chance[0] < share)
        low, high = (torch.tensor(bound).log() for bound in (HIGH, HIGHEST))
        lines = edge_maps(seen, high=(low + (high - low) * chance[1]).exp())
        thick = (chance[2] < options.thick_share)[:, None, None, None]
        none = (chance[3] < options.blank_share)[:, None, None, None]
        return torch.where(none, 0.0, torch.where(thick, thick_lines(lines), lines)).expand(-1, 3, -1, -1)


def drawn_from(data: ControlSet, rows: torch.Tensor, of_subject: torch.Tensor) -> torch.Tensor:
    """What lines are drawn from, [B,4,H,W] in [0,1]: the pictures `rows`, or their subjects where `of_subject`."""
    pictures = data.pictures[rows].float().div(255)
    opaque = torch.cat([pictures, torch.ones_like(pictures[:, :1])], dim=1)
    subject = data.subject[rows]
    cut_out = data.subjects[subject.clamp(min=0)].float().div(255)
    return torch.where((of_subject & (subject >= 0))[:, None, None, None], cut_out, opaque)


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pictures: torch.Tensor, progress: Callable = iter) -> torch.Tensor:
    """Latents float16 [N,C,h,w] in the sampler's scale of uint8 pictures [N,3,S,S], on the VAE's device."""
    scale, parts = vae.config.scaling_factor, []
    for part in progress(pictures.split(BATCH)):
        image = part.to(vae.device, vae.dtype).div(127.5).sub(1)
        parts.append((vae.encode(image).latent_dist.mean * scale).half())
    return torch.cat(parts)


def _bytes(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(0, 1).mul(255).round().byte()
