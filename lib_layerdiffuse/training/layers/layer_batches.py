"""Batches of layer sets for the trainers of layer methods: latents, captions, and what a method is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ...core.bases import LatentSpace
from ...core.errors import InputError
from ...core.methods import BACKGROUND, BLENDED, FOREGROUND, Method
from ...core.picture.alpha import composite_on_grey
from ..diffusion.diffusion import encode_captions
from ..diffusion.text_conditions import each_tensor, encoded_table
from ..engine import training_device
from ..settings import LayerOptions
from .layer_latents import LayerLatents, batch_of

FRAMES = (FOREGROUND, BACKGROUND, BLENDED)  # the order of a set's latents
FULL, OWN, BOTH = range(3)  # what a frame is asked for by: the whole picture's caption, its own, or own and whole
VARIANTS = 2  # of a set's captions: sets are many, and every text is kept encoded


Given = dict[str, "Tensor | None"]


@dataclass(frozen=True)
class Batch:
    """Sets for a step: latents in sampler scale and noise [G,F,C,h,w], steps [G], the UNet's keyword arguments for
    rows (groups, frames), and what is given, by `LayerBatches.given_to`.
    """

    latent: Tensor
    noise: Tensor
    steps: Tensor
    condition: dict
    given: Given


class Captions:
    """All texts that a set's frames may be asked for by, encoded once."""

    def __init__(self, data: LayerLatents, frames: Sequence[int]):
        self.numbers: dict[str, int] = {"": 0}
        sets = [self._of_set(captions, frames) for captions in data.captions]
        self.counts = torch.tensor([len(variants[0]) for variants in sets])
        longest = int(self.counts.max())
        filled = [[variants + variants[:1] * (longest - len(variants)) for variants in one] for one in sets]
        self.index = torch.tensor(filled)  # [N,F,V,3] into the table
        self.table: dict = {}

    def _of_set(self, captions: Sequence[Sequence[str]], frames: Sequence[int]) -> list[list[list[int]]]:
        """Numbers of the texts [F][V][3], as many variants as the frame with the most has, up to a few."""
        whole = captions[FRAMES.index(BLENDED)]
        count = min(VARIANTS, max(len(captions[frame]) for frame in (*frames, FRAMES.index(BLENDED))))
        result = []
        for frame in frames:
            own = captions[frame]
            pairs = [(own[v % len(own)], whole[v % len(whole)]) for v in range(count)]
            result.append([[self._number(text) for text in (full, one, f"{one}, {full}")] for one, full in pairs])
        return result

    def _number(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))

    def encode(self, pipeline: DiffusionPipeline, size: tuple[int, int], device: torch.device) -> None:
        """Fill the table of the UNet's keyword arguments, tensors [U,...] float16 on `device`."""
        encode = partial(encode_captions, pipeline, size=size)
        self.table = encoded_table(encode, list(self.numbers), lambda tensor: tensor.half().to(device))

    def of(self, numbers: Tensor, device: torch.device) -> dict:
        """The UNet's keyword arguments for texts by their numbers [N], float32."""
        return each_tensor(lambda tensor: _picked(tensor, numbers, device).float(), self.table)

    def draw(self, rows: Tensor, options: LayerOptions, generator: torch.Generator) -> Tensor:
        """Numbers [G,F] of texts for the sets `rows`: half of them by the whole caption, some by none at all."""
        groups, frames = len(rows), self.index.shape[1]
        chance = torch.rand(3, groups, generator=generator)
        variant = (chance[0] * self.counts[rows]).long()
        form = torch.randint(OWN, BOTH + 1, (groups, frames), generator=generator)
        form[chance[1] >= options.own_captions] = FULL
        chosen = self.index[rows[:, None], torch.arange(frames), variant[:, None], form]
        chosen[chance[2] < options.caption_dropout] = 0
        return chosen


class LayerBatches:
    """Random batches of sets, from tensors that are on the device as far as `options` allow."""

    def __init__(self, pipeline: DiffusionPipeline, data: LayerLatents, method: Method, options: LayerOptions):
        self.options, self.scale_factor = options, data.scale_factor
        frames = [FRAMES.index(frame) for frame in method.frames]
        device = training_device() if options.preload else torch.device("cpu")
        self.learnt = rows_of(data, held_out=False)
        self.captions = Captions(data, frames)
        self.captions.encode(pipeline, data.image_size, device)
        self.latents = data.latents[:, frames].to(device)
        self.given = None if method.control is None else given_of(data, method.control).to(device)
        self.concat = concat_latents(pipeline, data, method).to(device) if method.concat else None

    def draw(self, count: int, timesteps: int, device: torch.device, generator: torch.Generator) -> Batch:
        """`count` sets; noise is drawn on the device, seeded from `generator`."""
        rows = self.learnt[torch.randint(0, len(self.learnt), (count,), generator=generator)]
        numbers = self.captions.draw(rows, self.options, generator).flatten()
        steps = torch.randint(0, timesteps, (count,), generator=generator)
        latent = _picked(self.latents, rows, device).float() * self.scale_factor
        own = torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        noise = torch.randn(latent.shape, generator=own, device=device)
        condition = self.captions.of(numbers, device)
        return Batch(latent, noise, steps.to(device), condition, self.given_to(rows, device))

    def given_to(self, rows: Tensor, device: torch.device) -> Given:
        """Of the sets `rows`, "control": images [G,3,H,W] in [-1,1], "concat": latents [G,K,h,w] in sampler scale."""
        control = None if self.given is None else seen(_picked(self.given, rows, device))
        concat = None if self.concat is None else _picked(self.concat, rows, device).float() * self.scale_factor
        return {"control": control, "concat": concat}


def given_of(data: LayerLatents, frame: str) -> Tensor:
    """The pictures of a set that a method is given: foreground uint8 [N,4,S,S], background uint8 [N,3,S,S]."""
    return data.pictures[:, :4] if frame == FOREGROUND else data.pictures[:, 4:]


def _picked(tensor: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    return tensor[rows.to(tensor.device)].to(device)


def seen(given: Tensor) -> Tensor:
    """Given pictures uint8 [G,3 or 4,H,W] as the networks see them at inference: on grey, [G,3,H,W] in [-1,1]."""
    pictures = given.float() / 255
    return (composite_on_grey(pictures) if given.shape[1] == 4 else pictures).clamp(0, 1) * 2 - 1


@torch.no_grad()
def concat_latents(pipeline: DiffusionPipeline, data: LayerLatents, method: Method) -> Tensor:
    """What the UNet sees beside its input, float16 [N,K,h,w] in VAE space: a given foreground is seen on grey."""
    vae, parts = pipeline.vae, []
    for frame in method.concat:
        if frame != FOREGROUND:
            parts.append(data.latents[:, FRAMES.index(frame)])
            continue
        pictures = given_of(data, frame).split(batch_of(vae))
        means = [vae.encode(seen(part).to(vae.device, vae.dtype)).latent_dist.mean for part in pictures]
        parts.append(torch.cat([mean.half().cpu() for mean in means]))
    return torch.cat(parts, dim=1)


def rows_of(data: LayerLatents, held_out: bool) -> Tensor:
    """Numbers [N] of the sets that are held out, or of those that are not."""
    marks = torch.as_tensor(data.held_out, dtype=torch.bool)
    return torch.nonzero(marks if held_out else ~marks).flatten()


def space_of(pipeline: DiffusionPipeline) -> LatentSpace:
    """The latents of a pipeline's VAE."""
    config = pipeline.vae.config
    return LatentSpace(config.scaling_factor, config.latent_channels, 2 ** (len(config.block_out_channels) - 1))


def check_layers_data(pipeline: DiffusionPipeline, data: LayerLatents, method: Method) -> None:
    """InputError where sets of layers do not fit a pipeline; the UNet's attention is looked at elsewhere."""
    if data.latents.ndim != 5 or data.latents.shape[1] != len(FRAMES):
        raise InputError(
            f"latents {list(data.latents.shape)}", f"{len(FRAMES)} frames: {', '.join(FRAMES)}", "make them anew"
        )
    if not len(rows_of(data, held_out=False)):
        raise InputError("no set to train on", "at least one that is not held out", "make a larger set")
    _check_space(pipeline, data)
    _check_captions(data, method)


def _check_space(pipeline: DiffusionPipeline, data: LayerLatents) -> None:
    space, size = space_of(pipeline), tuple(data.latents.shape[-2:])
    channels, wanted = pipeline.unet.config.in_channels, tuple(side // space.factor for side in data.image_size)
    remedy = "make the latents with this model's VAE"
    if data.latents.shape[2] != channels:
        raise InputError(f"latents of {data.latents.shape[2]} channels", f"{channels}, as the UNet takes", remedy)
    if size != wanted:
        raise InputError(f"latents of {size}", f"{wanted} for these pictures and this VAE", remedy)
    if abs(data.scale_factor - space.scale_factor) > 1e-6:
        raise InputError(f"latents of a VAE with scale {data.scale_factor}", f"{space.scale_factor}", remedy)


def _check_captions(data: LayerLatents, method: Method) -> None:
    frames = sorted({FRAMES.index(frame) for frame in (*method.frames, BLENDED)})
    bare = [
        row
        for row, texts in enumerate(data.captions)
        if not all(any(text.strip() for text in texts[frame]) for frame in frames)
    ]
    if bare:
        raise InputError(
            f"{len(bare)} sets without a caption of each frame (the first: {bare[0]})",
            f"captions of {', '.join(FRAMES[frame] for frame in frames)}",
            "make the latents from sets with captions",
        )
