"""Training of layer methods: attention sharing over the frames of a set of layers (arXiv 2402.17113).

The UNet is frozen; the units of `sharing_units` learn to paint a set's frames so that they fit together. All frames of
a set have the same timestep, noise of their own, and each its own caption or the whole picture's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.files.layer_files import METHOD, LatentSpace, metadata_of
from ..core.methods import BACKGROUND, BLENDED, FOREGROUND, METHODS, Method, find_method
from ..core.picture.alpha import composite_on_grey
from ..core.sharing.attention_sharing import AttentionSharing
from ..files.whole_files import save_tensors
from ..standalone.samplers import build_scheduler
from ..standalone.unet_method import method_on_unet
from ..unet.method_kinds import Conditions
from .codec import Codec
from .denoising import WeightAverage
from .diffusion import denoising_loss, encode_captions, use_quickest_attention
from .engine import RunConfig, Task, processes, train
from .grids import checkered, image_grid
from .layer_latents import LayerLatents
from .settings import LayerOptions
from .sharing_units import (
    TrainedUnits,
    attention_places,
    encoder_shape,
    shape_of,
    spread_signals,
)

FRAMES = (FOREGROUND, BACKGROUND, BLENDED)  # the order of a set's latents
FULL, OWN, BOTH = range(3)  # what a frame is asked for by: the whole picture's caption, its own, or own and whole
ENCODED = 256  # captions at a time
VARIANTS = 2  # of a set's captions: sets are many, and every text is kept encoded


def layer_method(name: str, base: str) -> Method:
    """The row of the method `name` for a base; for a base without one, what SD1.5 has."""
    model = find_method(f"sd15_{name}")
    rows = (m for m in METHODS if m.base == base and m.kind == model.kind)
    return next((m for m in rows if (m.frames, m.control) == (model.frames, model.control)), model)


def space_of(pipeline: DiffusionPipeline) -> LatentSpace:
    """The latents of a pipeline's VAE."""
    config = pipeline.vae.config
    return LatentSpace(config.scaling_factor, config.latent_channels, 2 ** (len(config.block_out_channels) - 1))


@dataclass(frozen=True)
class Batch:
    """Sets for a step: latents in sampler scale and noise [G,F,C,h,w], steps [G], captions [G*F,S,D], control images
    [G,3,H,W] in [-1,1] or None.
    """

    latent: Tensor
    noise: Tensor
    steps: Tensor
    context: Tensor
    control: Tensor | None


class Captions(nn.Module):
    """All texts that a set's frames may be asked for by, encoded once."""

    def __init__(self, data: LayerLatents, frames: Sequence[int], keep: bool):
        super().__init__()
        self.numbers: dict[str, int] = {"": 0}
        sets = [self._of_set(captions, frames) for captions in data.captions]
        self.counts = torch.tensor([len(variants[0]) for variants in sets])
        longest = int(self.counts.max())
        filled = [[variants + variants[:1] * (longest - len(variants)) for variants in one] for one in sets]
        self.index = torch.tensor(filled)  # [N,F,V,3] into the table
        self.keep, self.table = keep, torch.empty(0)

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

    def encode(self, pipeline: DiffusionPipeline) -> None:
        """Fill the table [U,S,D] float16, on the text encoder's device."""
        texts = list(self.numbers)
        parts = [texts[start : start + ENCODED] for start in range(0, len(texts), ENCODED)]
        encoded = [encode_captions(pipeline, part, (0, 0))["encoder_hidden_states"].half() for part in parts]
        table = torch.cat(encoded) if self.keep else torch.cat([part.cpu() for part in encoded])
        del self.table
        if self.keep:
            self.register_buffer("table", table, persistent=False)
        else:
            self.table = table

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


class LayerBatches(nn.Module):
    """Random batches of sets; as a module, so that what is kept on the device goes there with the others."""

    def __init__(self, data: LayerLatents, method: Method, options: LayerOptions):
        super().__init__()
        self.options = options
        frames = [FRAMES.index(frame) for frame in method.frames]
        self.learnt = _rows(data, held_out=False)
        self.captions = Captions(data, frames, options.preload)
        self.scale_factor = data.scale_factor
        given = None if method.control is None else given_of(data, method.control)
        for name, tensor in {"latents": data.latents[:, frames], "given": given}.items():
            if options.preload:
                self.register_buffer(name, tensor, persistent=False)
            else:
                setattr(self, name, tensor)

    def draw(self, count: int, timesteps: int, device: torch.device, generator: torch.Generator) -> Batch:
        """`count` sets; noise is drawn on the device, seeded from `generator`."""
        rows = self.learnt[torch.randint(0, len(self.learnt), (count,), generator=generator)]
        numbers = self.captions.draw(rows, self.options, generator).flatten()
        steps = torch.randint(0, timesteps, (count,), generator=generator)
        latent = _picked(self.latents, rows, device).float() * self.scale_factor
        own = torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        noise = torch.randn(latent.shape, generator=own, device=device)
        control = None if self.given is None else seen(_picked(self.given, rows, device))
        context = _picked(self.captions.table, numbers, device).float()
        return Batch(latent, noise, steps.to(device), context, control)


def given_of(data: LayerLatents, frame: str) -> Tensor:
    """The pictures of a set that a method is given: foreground uint8 [N,4,S,S], background uint8 [N,3,S,S]."""
    return data.pictures[:, :4] if frame == FOREGROUND else data.pictures[:, 4:]


def _picked(tensor: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    return tensor[rows.to(tensor.device)].to(device)


def seen(given: Tensor) -> Tensor:
    """Given pictures uint8 [G,3 or 4,H,W] as the networks see them at inference: on grey, [G,3,H,W] in [-1,1]."""
    pictures = given.float() / 255
    return (composite_on_grey(pictures) if given.shape[1] == 4 else pictures).clamp(0, 1) * 2 - 1


class LayerTrainer(nn.Module):
    """The units and their loss in one forward, as distributed training wants it; the frozen UNet stays outside."""

    def __init__(self, pipeline: DiffusionPipeline, units: TrainedUnits, options: LayerOptions):
        super().__init__()
        unet = pipeline.unet
        self.frozen = (torch.compile(unet) if options.compile else unet,)
        self.units = units
        self.denoising = denoising_loss(pipeline, options)
        self.average = WeightAverage(units, options.average)

    def forward(self, batch: Batch):
        """Loss and figures of a batch."""
        count = batch.latent.shape[1]
        self.units.see(batch.control)
        unet = lambda noisy, steps: self.frozen[0](noisy, steps, batch.context).sample  # noqa: E731
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
    """Train units for a frozen pipeline; writes `config.out`/NAME.safetensors in the published layout."""
    options = options or LayerOptions()
    space = space_of(pipeline)
    method = layer_method(options.method, space.base)
    check_layers_data(pipeline, data, method)
    config.extra.update(asdict(options))
    frozen = tuple(part for part in pipeline.components.values() if isinstance(part, nn.Module))
    for part in frozen:
        part.requires_grad_(False).to(processes().device)
    use_quickest_attention(pipeline.unet)
    torch.manual_seed(config.seed)
    run = LayerRun(pipeline, data, method, options)
    name = options.name or (method.weights if method.base == space.base else f"layer_{options.method}")
    said = {"format": "pt", **metadata_of(METHOD, space, method.id if method.base == space.base else "")}
    timesteps = pipeline.scheduler.config.num_train_timesteps

    def loss(modules: dict, progress: float, generator: torch.Generator):
        return modules["model"](run.batches.draw(config.batch, timesteps, pipeline.unet.device, generator))

    def export(out: Path) -> None:
        save_tensors(run.state(), out / f"{name}.safetensors", said)

    parts = (*frozen, run.batches, *([codec] if codec else []))
    task = Task(
        {"model": run.trainer},
        loss,
        export,
        partial(run.grid, data, codec),
        after_step=run.trainer.average.update,
        frozen=parts,
    )
    try:
        return train(task, config)
    finally:
        run.units.remove()


class LayerRun:
    """The units on their UNet, the batches, and the two ways in which the UNet is used: training and samples."""

    def __init__(self, pipeline: DiffusionPipeline, data: LayerLatents, method: Method, options: LayerOptions):
        self.pipeline, self.method, self.options = pipeline, method, options
        self.places = attention_places(pipeline.unet)
        factor = data.image_size[1] // data.latents.shape[-1]
        encoder = encoder_shape(pipeline.unet, options.control_channels, factor) if method.control else ()
        self.units = TrainedUnits(shape_of(pipeline.unet, len(method.frames), options.rank, encoder))
        self.batches = LayerBatches(data, method, options)
        if self.units.encoder is not None:
            shown = self.batches.learnt[:: max(1, len(self.batches.learnt) // 16)][:16]
            spread_signals(self.units.encoder, seen(self.batches.given[shown]))
        self.batches.captions.encode(pipeline)
        self.units.install(self.places)
        self.trainer = LayerTrainer(pipeline, self.units, options)

    def state(self) -> dict[str, Tensor]:
        """The averaged units in the published layout."""
        with self.trainer.average.applied():
            return self.units.published()

    @contextmanager
    def plain(self) -> Iterator[None]:
        """The UNet without the units inside."""
        self.units.remove()
        try:
            yield
        finally:
            self.units.install(self.places)

    @torch.no_grad()
    def grid(self, data: LayerLatents, codec: Codec | None) -> Image.Image:
        """A row for each of a few sets, held-out ones where there are any: foreground on a checkerboard, background,
        blended, foreground over background; what was given as it is.
        """
        rows = _rows(data, held_out=True)
        rows = rows if len(rows) else _rows(data, held_out=False)
        rows = rows[:: max(1, len(rows) // self.options.sample_sets)][: self.options.sample_sets]
        sharing = AttentionSharing.from_state_dict(self.state())
        with self.plain():
            frames = paint_sets(self.pipeline, self.method, sharing, data, rows, self.options)
        return sets_grid(frames_of(self.pipeline, self.method, frames, data, rows, codec))


def paint_sets(
    pipeline: DiffusionPipeline,
    method: Method,
    sharing: AttentionSharing,
    data: LayerLatents,
    rows: Tensor,
    options: LayerOptions,
) -> Tensor:
    """Latents [G,F,C,h,w], VAE space, of sets by the code that users run, with DDIM; same seeds every time."""
    device, count = pipeline.unet.device, len(method.frames)
    given = None if method.control is None else seen(given_of(data, method.control)[rows]).to(device)
    prompts = [data.captions[row][FRAMES.index(BLENDED)][0] for row in rows.tolist() for _ in range(count)]
    own = pipeline.scheduler
    pipeline.scheduler = build_scheduler("ddim", own.config)
    pipeline.set_progress_bar_config(disable=True)
    try:
        with method_on_unet(method, sharing, pipeline.unet, (1.0, 1.0), Conditions(control=given)):
            scaled = pipeline(
                prompts,
                height=data.image_size[0],
                width=data.image_size[1],
                num_inference_steps=options.sample_steps,
                guidance_scale=options.guidance,
                generator=[torch.Generator().manual_seed(number) for number in range(len(prompts))],
                output_type="latent",
            ).images
    finally:
        pipeline.scheduler = own
    return (scaled.float() / data.scale_factor).unflatten(0, (-1, count))


@torch.no_grad()
def frames_of(
    pipeline: DiffusionPipeline, method: Method, latents: Tensor, data: LayerLatents, rows: Tensor, codec: Codec | None
) -> dict[str, Tensor]:
    """Pictures in [0,1] by the frame's name: foreground A,R,G,B [G,4,H,W], the others [G,3,H,W]; given ones too."""
    vae, pictures = pipeline.vae, {}
    for place, frame in enumerate(method.frames):
        own = latents[:, place].to(vae.device, vae.dtype)
        decoded = torch.cat([vae.decode(part).sample.float() for part in own.split(8)])
        rgb = (decoded / 2 + 0.5).clamp(0, 1)
        if place >= method.transparent_frames:
            pictures[frame] = rgb.cpu()
        elif codec is None:
            pictures[frame] = torch.cat([torch.ones_like(rgb[:, :1]), rgb], 1).cpu()
        else:
            pictures[frame] = codec.decode(decoded, own.float()).clamp(0, 1).cpu()
    if method.control is not None:
        given = given_of(data, method.control)[rows].float().div(255)
        pictures[method.control] = given[:, [3, 0, 1, 2]] if given.shape[1] == 4 else given
    return pictures


def sets_grid(pictures: dict[str, Tensor]) -> Image.Image:
    """A row for each set: foreground on a checkerboard, background, blended, foreground over background."""
    foreground, background = pictures[FOREGROUND], pictures[BACKGROUND]
    over = foreground[:, 1:] * foreground[:, :1] + background * (1 - foreground[:, :1])
    columns = (checkered(foreground), background, pictures[BLENDED], over)
    return image_grid([picture for row in zip(*columns, strict=True) for picture in row], len(columns))


def _rows(data: LayerLatents, held_out: bool) -> Tensor:
    """Numbers of the sets that are held out, or of those that are not."""
    marks = torch.as_tensor(data.held_out, dtype=torch.bool)
    return torch.nonzero(marks if held_out else ~marks).flatten()


def check_layers_data(pipeline: DiffusionPipeline, data: LayerLatents, method: Method) -> None:
    """InputError where sets of layers do not fit a pipeline; the UNet's attention is looked at elsewhere."""
    space = space_of(pipeline)
    channels, size = data.latents.shape[2], tuple(data.latents.shape[-2:])
    wanted = tuple(side // space.factor for side in data.image_size)
    remedy = "make the latents with this model's VAE"
    if data.latents.ndim != 5 or data.latents.shape[1] != len(FRAMES):
        raise InputError(
            f"latents {list(data.latents.shape)}", f"{len(FRAMES)} frames: {', '.join(FRAMES)}", "make them anew"
        )
    if channels != pipeline.unet.config.in_channels:
        raise InputError(
            f"latents of {channels} channels", f"{pipeline.unet.config.in_channels}, as the UNet takes", remedy
        )
    if size != wanted:
        raise InputError(f"latents of {size}", f"{wanted} for these pictures and this VAE", remedy)
    if abs(data.scale_factor - space.scale_factor) > 1e-6:
        raise InputError(f"latents of a VAE with scale {data.scale_factor}", f"{space.scale_factor}", remedy)
    if not len(_rows(data, held_out=False)):
        raise InputError("no set to train on", "at least one that is not held out", "make a larger set")
    frames = {FRAMES.index(frame) for frame in (*method.frames, BLENDED)}
    bare = [
        row
        for row, texts in enumerate(data.captions)
        if not all(any(text.strip() for text in texts[frame]) for frame in frames)
    ]
    if bare:
        raise InputError(
            f"{len(bare)} sets without a caption of each frame (the first: {bare[0]})",
            f"captions of {', '.join(FRAMES[frame] for frame in sorted(frames))}",
            "make the latents from sets with captions",
        )
