"""Training of layer methods for a frozen model (arXiv 2402.17113): layers that fit together, or fit what is given.

Attention sharing (`sharing_units`): the frames of a set are painted at once, with the same timestep, noise of their
own, and each by its own caption or the whole picture's. Wide offsets (`concat_units`): one frame is painted, the others
are given as latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from ...core.bases import BASES
from ...core.errors import BaseMismatchError, InputError
from ...core.files.layer_files import METHOD, metadata_of
from ...core.files.weights import WeightFile
from ...core.methods import ATTENTION_SHARING, FOREGROUND, METHODS, OFFSETS, Method
from ...core.offsets.offsets import read_offsets
from ...core.sharing.attention_sharing import AttentionSharing
from ...files.whole_files import save_tensors
from ...standalone.unet_method import method_on_unet
from ...unet.method_kinds import Conditions
from ..codec.codec import Codec
from ..diffusion.denoising import WeightAverage
from ..diffusion.diffusion import denoising_loss, freeze
from ..engine import Modules, StepLoss, Task, train
from ..settings import LAYER_METHODS, LayerOptions, RunConfig
from .concat_units import WideOffsets
from .layer_batches import Batch, Given, LayerBatches, check_layers_data, rows_of, space_of
from .layer_latents import LayerLatents
from .layer_samples import frames_of, paint_sets, sets_grid
from .sharing_units import TrainedUnits, attention_places, encoder_shape, shape_of, spread_signals


def layer_method(name: str, base: str) -> Method:
    """The row of the method `name` for a base; for an unknown base, "", the row that the name comes from.

    BaseMismatchError where the base has no such method.
    """
    model = next(row for row in METHODS if row.id in (f"sd15_{name}", f"xl_{name}"))
    own = [row for row in METHODS if row.base == base and _alike(row, model)]
    if base and not own:
        title, others = BASES[base].title, ", ".join(known for known in LAYER_METHODS if _has(base, known))
        raise BaseMismatchError(
            f"--method {name} for {title}", f"a method of {title}: {others}", "choose one, or another --model"
        )
    return own[0] if own else model


def _alike(row: Method, other: Method) -> bool:
    return all(getattr(row, part) == getattr(other, part) for part in ("kind", "frames", "control", "concat"))


def _has(base: str, name: str) -> bool:
    model = next(row for row in METHODS if row.id in (f"sd15_{name}", f"xl_{name}"))
    return any(row.base == base and _alike(row, model) for row in METHODS)


class LayerTrainer(nn.Module):
    """What is trained and its loss in one forward, as distributed training wants it; the UNet stays outside."""

    def __init__(self, pipeline: DiffusionPipeline, units: TrainedUnits | WideOffsets, options: LayerOptions):
        super().__init__()
        unet = pipeline.unet
        self.frozen = (torch.compile(unet) if options.compile else unet,)
        self.units = units
        self.denoising = denoising_loss(pipeline, options)
        self.average = WeightAverage(units, options.average)

    def forward(self, batch: Batch):
        """Loss and figures of a batch."""
        count = batch.latent.shape[1]
        self.units.see(batch.given)
        unet = lambda noisy, steps: self.frozen[0](noisy, steps, **batch.condition).sample  # noqa: E731
        steps = batch.steps.repeat_interleave(count)
        loss = self.denoising(unet, batch.latent.flatten(0, 1), batch.noise.flatten(0, 1), steps)
        return loss, {"loss": loss.detach()}


def train_layers(
    pipeline: DiffusionPipeline,
    data: LayerLatents,
    config: RunConfig,
    options: LayerOptions | None = None,
    codec: Codec | None = None,
) -> dict[str, float]:
    """Train a layer method for a frozen pipeline; writes `config.out`/NAME.safetensors in the published layout."""
    options = options or LayerOptions()
    space = space_of(pipeline)
    method = layer_method(options.method, space.base)
    check_layers_data(pipeline, data, method)
    config.extra.update(asdict(options))
    frozen = freeze(pipeline, options.checkpointing)
    torch.manual_seed(config.seed)
    run = LayerRun(pipeline, data, method, options)
    known = method.base == space.base
    name = options.name or (method.weights if known else f"layer_{options.method}")
    said = {"format": "pt", **metadata_of(METHOD, space, method.id if known else "")}
    timesteps = pipeline.scheduler.config.num_train_timesteps

    def loss(modules: Modules, progress: float, generator: torch.Generator) -> StepLoss:
        return modules["model"](run.batches.draw(config.batch, timesteps, pipeline.unet.device, generator))

    def export(out: Path) -> None:
        save_tensors(run.state(), out / f"{name}.safetensors", said)

    task = Task(
        {"model": run.trainer},
        loss,
        export,
        partial(run.grid, data, codec),
        after_step=run.trainer.average.update,
        frozen=(*frozen, *([codec] if codec else [])),
    )
    try:
        return train(task, config)
    finally:
        run.units.remove()


class LayerRun:
    """What is trained, on its UNet, the batches, and the two ways in which the UNet is used: training and samples."""

    def __init__(self, pipeline: DiffusionPipeline, data: LayerLatents, method: Method, options: LayerOptions):
        self.pipeline, self.method, self.options = pipeline, method, options
        self.kind = KINDS[method.kind]
        self.batches = LayerBatches(pipeline, data, method, options)
        self.units = self.kind.build(self)
        self.trainer = LayerTrainer(pipeline, self.units, options)

    def state(self) -> dict[str, Tensor]:
        """What is averaged, in the published layout."""
        with self.trainer.average.applied():
            return self.units.published()

    @torch.no_grad()
    def grid(self, data: LayerLatents, codec: Codec | None) -> Image.Image:
        """A row for each of a few sets, held-out ones where there are any."""
        rows = rows_of(data, held_out=True)
        rows = rows if len(rows) else rows_of(data, held_out=False)
        rows = rows[:: max(1, len(rows) // self.options.sample_sets)][: self.options.sample_sets]
        with self.kind.painting(self, self.units, self.batches.given_to(rows, self.pipeline.unet.device)):
            latents = paint_sets(self.pipeline, self.method, data, rows, self.options)
        return sets_grid(frames_of(self.pipeline, self.method, latents, data, rows, codec))


def _build_units(run: LayerRun) -> TrainedUnits:
    unet, method, options = run.pipeline.unet, run.method, run.options
    encoder = encoder_shape(unet, options.control_channels, space_of(run.pipeline).factor) if method.control else ()
    units = TrainedUnits(shape_of(unet, len(method.frames), options.rank, encoder))
    if units.encoder is not None:
        learnt = run.batches.learnt
        shown = run.batches.given_to(learnt[:: max(1, len(learnt) // 16)][:16], torch.device("cpu"))
        if shown["control"] is not None:
            spread_signals(units.encoder, shown["control"])
    places = attention_places(unet)
    if options.foreground and FOREGROUND in method.frames:
        units.begin(method.frames.index(FOREGROUND), read_offsets(options.foreground), places)
    if options.begin:
        with WeightFile(options.begin) as file:
            units.take(file.tensors(), options.begin)
    units.install(places)
    return units


@contextmanager
def _painting_units(run: LayerRun, units: TrainedUnits, given: Given) -> Iterator[None]:
    """By the code that users run, from what their file will hold."""
    sharing, conditions = AttentionSharing.from_state_dict(run.state()), Conditions(control=given["control"])
    units.remove()
    try:
        with method_on_unet(run.method, sharing, run.pipeline.unet, (1.0, 1.0), conditions):
            yield
    finally:
        units.install(attention_places(run.pipeline.unet))


def _build_offsets(run: LayerRun) -> WideOffsets:
    if run.options.begin:
        raise InputError(
            f"--begin with --method {run.options.method}", "a method by attention sharing", "leave --begin out"
        )
    extra = len(run.method.concat) * run.batches.latents.shape[2]
    return WideOffsets(run.pipeline.unet, extra, run.options)


@contextmanager
def _painting_offsets(run: LayerRun, units: WideOffsets, given: Given) -> Iterator[None]:
    unet = run.pipeline.unet
    was_training = unet.training
    unet.eval()
    units.see(given)
    try:
        with run.trainer.average.applied():
            yield
    finally:
        unet.train(was_training)


@dataclass(frozen=True)
class Kind:
    """How methods of a kind are put on a UNet to be trained, and how samples are painted meanwhile."""

    build: Callable[[LayerRun], TrainedUnits | WideOffsets]
    painting: Callable[[LayerRun, Any, Given], AbstractContextManager]  # its units are those that `build` made


KINDS = {
    ATTENTION_SHARING: Kind(_build_units, _painting_units),
    OFFSETS: Kind(_build_offsets, _painting_offsets),
}
