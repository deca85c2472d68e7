"""A ControlNet for any model (L. Zhang and others, arXiv 2302.05543): lines in, a picture that follows them out.

The model stays as it is. What is trained is diffusers' own ControlNetModel, begun as a copy of the UNet's encoder; it
is written in the layout of the published ControlNets.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, DiffusionPipeline
from PIL import Image

from ...core.errors import InputError
from ...core.picture.edges import edge_maps, followed
from ...standalone.controlnet_files import write_controlnet
from ...standalone.controlnet_run import control_on_unet
from ..engine import Modules, StepLoss, Task, processes, train, training_device
from ..grids import image_grid
from ..settings import ControlOptions, RunConfig
from .control_data import ControlBatches, ControlSet, drawn_from, encode_pictures
from .denoising import WeightAverage
from .diffusion import (
    decode_pictures,
    denoising_loss,
    draw_noise,
    encode_captions,
    freeze,
    paint_latents,
    use_quickest_attention,
)
from .text_conditions import TextConditions

SHOWN = 8  # pictures of a grid of samples


class ControlledUNet(torch.nn.Module):
    """A trainable ControlNet beside a frozen UNet, and its loss in one forward."""

    def __init__(self, pipeline: DiffusionPipeline, options: ControlOptions):
        super().__init__()
        self.frozen = (pipeline.unet,)  # a tuple, so that it is neither registered nor saved here
        self.control = ControlNetModel.from_unet(pipeline.unet)
        self.denoising = denoising_loss(pipeline, options)
        self.average = WeightAverage(self.control, options.average)

    def forward(self, latent: torch.Tensor, noise: torch.Tensor, steps: torch.Tensor, lines: torch.Tensor, seen: dict):
        """Loss and figures of `latent` [B,C,h,w] with `lines` [B,3,H,W] and the UNet's keyword arguments `seen`."""

        def predict(noisy: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
            down, middle = self.control(noisy, steps, controlnet_cond=lines, return_dict=False, **seen)
            more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            return self.frozen[0](noisy, steps, **seen, **more).sample

        loss = self.denoising(predict, latent, noise, steps)
        return loss, {"loss": loss.detach()}


def train_controlnet(
    pipeline: DiffusionPipeline,
    sets: tuple[ControlSet, ControlSet],
    config: RunConfig,
    options: ControlOptions | None = None,
    progress: Callable = iter,
) -> dict[str, float]:
    """Train a ControlNet for `pipeline`; writes `config.out`/NAME.safetensors in LDM names and `controlnet/`.

    `sets` are what is learned, and what samples and figures are taken from.
    """
    options = options or ControlOptions()
    data, measured = sets
    check_control(pipeline, data)
    config.extra.update(asdict(options))
    device = training_device()
    frozen = freeze(pipeline, checkpointing=False)
    torch.manual_seed(config.seed)
    trainer = ControlledUNet(pipeline, options)
    use_quickest_attention(trainer.control)
    data = data.to(device)
    batches = ControlBatches(data, encode_pictures(pipeline.vae, data.pictures, progress), options)
    conditions = TextConditions(lambda texts: encode_captions(pipeline, texts, data.size), batches.texts)

    def loss(modules: Modules, progress: float, generator: torch.Generator) -> StepLoss:
        latent, lines, captions = batches.draw(config.batch, generator)
        return modules["model"](*draw_noise(latent, pipeline, generator), lines, conditions.of(captions))

    def export(out: Path) -> None:
        with trainer.average.applied():
            write_controlnet(trainer.control, out / f"{options.name}.safetensors")
            trainer.control.save_pretrained(out / "controlnet")

    samples = partial(control_grid, pipeline, trainer, measured.to(device), options)
    task = Task({"model": trainer}, loss, export, samples, after_step=trainer.average.update, frozen=frozen)
    figures = train(task, config)
    return figures | (
        control_figures(pipeline, trainer, measured.to(device), options) if processes().is_main_process else {}
    )


def check_control(pipeline: DiffusionPipeline, data: ControlSet) -> None:
    """InputError for a set that is empty or of another size than the model can take."""
    factor = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    if not len(data) or any(side % factor for side in data.size):
        raise InputError(
            f"{len(data)} pictures of {data.size}",
            f"pictures with sides of multiples of {factor}",
            "prepare the set anew",
        )


def _spread(data: ControlSet, count: int) -> torch.Tensor:
    """Up to `count` rows of pictures whose caption asks for a subject, or of any where there is none."""
    rows = torch.nonzero(data.asked).flatten() if data.asked.any() else torch.arange(len(data))
    return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long().to(rows.device)]


@torch.no_grad()
def paint(
    pipeline: DiffusionPipeline, prompts: list[str], size: tuple[int, int], options: Any, around: Any
) -> torch.Tensor:
    """Pictures [B,3,H,W] in [0,1] of prompts, same seeds every time, inside the context `around`."""
    with around:
        latents = paint_latents(pipeline, prompts, size, options)
    return torch.stack(decode_pictures(pipeline.vae, latents / pipeline.vae.config.scaling_factor, None)).clamp(0, 1)


def _both_ways(
    pipeline: DiffusionPipeline, trainer: ControlledUNet, data: ControlSet, options: Any, count: int
) -> tuple:
    """(what the lines were drawn from, lines, pictures without and with the ControlNet) for spread rows."""
    rows = _spread(data, count)
    seen = drawn_from(data, rows, torch.arange(len(rows), device=rows.device) % 2 == 1)
    lines = edge_maps(seen).expand(-1, 3, -1, -1)
    prompts = [data.captions[row][0] for row in rows.tolist()]
    plain = paint(pipeline, prompts, data.size, options, nullcontext())
    with trainer.average.applied():
        controlled = paint(
            pipeline, prompts, data.size, options, control_on_unet(trainer.control, pipeline.unet, lines)
        )
    return seen[:, :3] * seen[:, 3:] + 0.5 * (1 - seen[:, 3:]), lines, plain, controlled


def control_grid(
    pipeline: DiffusionPipeline, trainer: ControlledUNet, data: ControlSet, options: ControlOptions
) -> Image.Image:
    """Columns: what the lines were drawn from, lines, the model's own picture, and the one that follows the lines."""
    columns = _both_ways(pipeline, trainer, data, options, SHOWN)
    return image_grid([picture.cpu() for row in zip(*columns, strict=True) for picture in row], len(columns))


def control_figures(
    pipeline: DiffusionPipeline, trainer: ControlledUNet, data: ControlSet, options: ControlOptions
) -> dict[str, float]:
    """Share of the asked lines that pictures have, with the ControlNet and without it."""
    _, lines, plain, controlled = _both_ways(pipeline, trainer, data, options, options.measured)
    found = {"with": controlled, "without": plain}
    return {f"lines_followed_{name}": followed(lines[:, :1], pictures) for name, pictures in found.items()}
