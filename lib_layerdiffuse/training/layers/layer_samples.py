"""Samples of layer methods while they are trained: sets painted by DDIM, and a grid with a row for each."""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from ...core.methods import BACKGROUND, BLENDED, FOREGROUND, Method
from ...standalone.samplers import build_scheduler
from ..codec.codec import Codec
from ..diffusion.diffusion import paint_latents
from ..grids import checkered, image_grid
from ..settings import LayerOptions
from .layer_batches import FRAMES, given_of
from .layer_latents import LayerLatents


def paint_sets(
    pipeline: DiffusionPipeline, method: Method, data: LayerLatents, rows: Tensor, options: LayerOptions
) -> Tensor:
    """Latents [G,F,C,h,w], VAE space, of sets by the whole picture's caption, with DDIM; same seeds every time."""
    count = len(method.frames)
    prompts = [data.captions[row][FRAMES.index(BLENDED)][0] for row in rows.tolist() for _ in range(count)]
    own = pipeline.scheduler
    pipeline.scheduler = build_scheduler("ddim", own.config)
    try:
        scaled = paint_latents(pipeline, prompts, data.image_size, options)
    finally:
        pipeline.scheduler = own
    return (scaled.float() / data.scale_factor).unflatten(0, (-1, count))


@torch.no_grad()
def frames_of(
    pipeline: DiffusionPipeline, method: Method, latents: Tensor, data: LayerLatents, rows: Tensor, codec: Codec | None
) -> dict[str, Tensor]:
    """Pictures in [0,1] by the frame's name: foreground A,R,G,B [G,4,H,W], the others [G,3,H,W]; given ones too."""
    pictures = {frame: _given(pipeline, data, rows, frame) for frame in method.images}
    for place, frame in enumerate(method.frames):
        decoded = _decoded(pipeline, latents[:, place])
        rgb = (decoded / 2 + 0.5).clamp(0, 1).cpu()
        if place >= method.transparent_frames:
            pictures[frame] = rgb
        elif codec is None:
            pictures[frame] = torch.cat([torch.ones_like(rgb[:, :1]), rgb], 1)
        else:
            pictures[frame] = codec.decode(decoded, latents[:, place].to(decoded)).clamp(0, 1).cpu()
    return pictures


def _decoded(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """The VAE's pictures [G,3,H,W] in [-1,1] of VAE-space latents."""
    vae = pipeline.vae
    parts = latents.to(vae.device, vae.dtype).split(8)
    return torch.cat([vae.decode(part).sample.float() for part in parts])


def _given(pipeline: DiffusionPipeline, data: LayerLatents, rows: Tensor, frame: str) -> Tensor:
    if frame == BLENDED:  # is kept as a latent only
        return (_decoded(pipeline, data.latents[rows, FRAMES.index(frame)]) / 2 + 0.5).clamp(0, 1).cpu()
    given = given_of(data, frame)[rows].float().div(255)
    return given[:, [3, 0, 1, 2]] if given.shape[1] == 4 else given


def sets_grid(pictures: dict[str, Tensor]) -> Image.Image:
    """A row for each set: foreground on a checkerboard, background, blended, foreground over background; as far as a
    method has them.
    """
    foreground, background = pictures.get(FOREGROUND), pictures.get(BACKGROUND)
    columns = [] if foreground is None else [checkered(foreground)]
    columns += [pictures[frame] for frame in (BACKGROUND, BLENDED) if frame in pictures]
    if foreground is not None and background is not None:
        columns.append(foreground[:, 1:] * foreground[:, :1] + background * (1 - foreground[:, :1]))
    return image_grid([picture for row in zip(*columns, strict=True) for picture in row], len(columns))
