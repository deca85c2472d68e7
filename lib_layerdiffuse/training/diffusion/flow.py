"""Making Flux transparent: low-rank layers on its transformer, tuned by flow matching on adjusted latents.

Flow matching (arXiv 2210.02747, 2403.03206): x = (1 - level) * latent + level * noise, and the network, told the level,
is asked for noise - latent. Levels are logit-normal, shifted for the picture's size as the pipeline's sampler does it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from PIL import Image

from ...core.bases import TRANSFORMER
from ...core.errors import InputError
from ...core.files.flux_names import DIFFUSERS, TABLE, Named, find_layer, rows_of
from ...core.files.layer_files import METHOD, metadata_of
from ...core.files.weights import SUFFIX
from ...core.methods import choose_method
from ...core.offsets.lora_files import read_lora
from ...files.whole_files import save_tensors
from ...standalone.families import FAMILIES, PATCH, TEXT_TOKENS, is_guided, shifted
from ..codec.codec import Codec, latent_space
from ..engine import Modules, StepLoss, Task, train, training_device
from ..grids import image_grid
from ..settings import DiffusionOptions, RunConfig
from ..typed_modules import ModulesOf
from .denoising import LowRankLayer, WeightAverage
from .diffusion import CaptionedLatents, decode_pictures, spread_captions
from .latents import LatentSet
from .text_conditions import TextConditions

# endings of BFL's layer names that are tuned; all of a block's linear layers, or those of attention
TUNED = {
    "all": ("qkv", "proj", "mlp.0", "mlp.2", "mod.lin", "linear1", "linear2", "modulation.lin"),
    "attention": ("qkv", "proj", "linear1", "linear2"),
}


class RowsLowRank(LowRankLayer):
    """up @ down of a layer as BFL names it, which diffusers may have in several: each gets its rows."""

    def __init__(self, parts: list[tuple[torch.nn.Linear, slice]], rank: int):
        inputs, outputs = parts[0][0].in_features, max(rows.stop for _, rows in parts)
        super().__init__(torch.nn.Linear(inputs, outputs, device="meta"), rank)
        self.handles = [linear.register_forward_hook(partial(self.add_rows, rows)) for linear, rows in parts]

    def add_rows(self, rows: slice, module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        """Forward hook of a frozen layer that is these rows, output [...,rows]."""
        change = inputs[0].to(self.down.dtype) @ self.down.T @ self.up[rows].T
        return output + change.to(output.dtype)


class FlowLowRank(torch.nn.Module):
    """Low-rank layers on the blocks of diffusers' Flux transformer, one for each layer as BFL names them."""

    def __init__(self, transformer: FluxTransformer2DModel, rank: int, layers: str = "all"):
        super().__init__()
        named = tuned_layers(transformer, layers)
        self.names = list(named)
        self.layers = ModulesOf([RowsLowRank(parts_of(transformer, layer), rank) for layer in named.values()])

    def state(self) -> dict[str, torch.Tensor]:
        """The pairs under kohya's names, float16, with alpha = rank."""
        tensors = {}
        for name, layer in zip(self.names, self.layers, strict=True):
            start = f"lora_unet_{name.replace('.', '_')}"
            tensors[f"{start}.lora_down.weight"] = layer.down.detach().half()
            tensors[f"{start}.lora_up.weight"] = layer.up.detach().half()
            tensors[f"{start}.alpha"] = torch.tensor(float(len(layer.down)))
        return tensors

    def begin(self, path: str) -> None:
        """Begin with the nearest of their rank to what a LoRA file adds; WeightsError for one of other layers."""
        shapes = {f"{name}.weight": (len(layer.up), layer.down.shape[1]) for name, layer in self.named()}
        offsets = read_lora(path, shapes)
        for name, layer in self.named():
            shape = shapes[f"{name}.weight"]
            found = [offset.dense(shape) for offset in offsets.entries.get(f"{name}.weight", ())]
            if found:
                layer.begin(sum(found[1:], found[0]))

    def named(self) -> list[tuple[str, RowsLowRank]]:
        """Layers with their names."""
        return list(zip(self.names, self.layers, strict=True))

    def remove(self) -> None:
        """Take the hooks off."""
        for layer in self.layers:
            for handle in layer.handles:
                handle.remove()


def tuned_layers(transformer: FluxTransformer2DModel, layers: str) -> dict[str, Named]:
    """The layers of all blocks that are tuned, by BFL's name."""
    counts = {"double": len(transformer.transformer_blocks), "single": len(transformer.single_transformer_blocks)}
    rows = dict.fromkeys(row.bfl for row in TABLE if ".N." in row.bfl and row.bfl.endswith(TUNED[layers]))
    names = [row.replace(".N.", f".{number}.") for row in rows for number in range(counts[row.partition("_")[0]])]
    found = {name: find_layer(name) for name in names}
    return {name: layer for name, layer in found.items() if layer is not None}


def parts_of(transformer: FluxTransformer2DModel, layer: Named) -> list[tuple[torch.nn.Linear, slice]]:
    """diffusers' linear layers of a layer as BFL names it, and which of its rows each is."""
    places = layer.places(DIFFUSERS)
    linears = [cast("torch.nn.Linear", transformer.get_submodule(place.path)) for place in places]
    total, width = sum(linear.out_features for linear in linears), transformer.x_embedder.out_features
    spans = [rows_of(place.taken or (0, None), width, total) for place in places]
    return [(linear, slice(*span)) for linear, span in zip(linears, spans, strict=True)]


class TransparentFlow(torch.nn.Module):
    """The low-rank layers on a transformer and their loss in one forward, as distributed training wants it."""

    def __init__(self, pipeline: FluxPipeline, options: DiffusionOptions):
        super().__init__()
        self.frozen = (pipeline.transformer,)  # a tuple, so that it is neither registered nor saved here
        self.tuned = FlowLowRank(pipeline.transformer, options.rank, options.layers)
        if options.begin:
            self.tuned.begin(options.begin)
        self.guidance = options.trained_guidance if is_guided(pipeline) else None
        self.average = WeightAverage(self.tuned, options.average)

    def forward(
        self, latent: torch.Tensor, noise: torch.Tensor, level: torch.Tensor, condition: dict[str, torch.Tensor]
    ) -> StepLoss:
        """Loss and figures of `latent` [B,C,h,w], sampler's scale, at noise levels [B] in (0,1)."""
        share = level[:, None, None, None]
        noisy = (1 - share) * latent + share * noise
        error = self.velocity(noisy, level, condition).float() - (noise - latent)
        loss = error.square().mean()
        return loss, {"loss": loss.detach()}

    def velocity(self, noisy: torch.Tensor, level: torch.Tensor, condition: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the transformer says of noisy latents [B,C,h,w]."""
        transformer, (h, w) = self.frozen[0], noisy.shape[-2:]
        dtype = next(transformer.parameters()).dtype
        tokens = torch.nn.functional.pixel_unshuffle(noisy.to(dtype), PATCH).flatten(2).transpose(1, 2)
        guidance = None if self.guidance is None else torch.full_like(level, self.guidance)
        texts = condition["encoder_hidden_states"]
        result = transformer(
            hidden_states=tokens,
            timestep=level,
            guidance=guidance,
            encoder_hidden_states=texts.to(dtype),
            pooled_projections=condition["pooled_projections"].to(dtype),
            txt_ids=tokens.new_zeros(texts.shape[1], 3),
            img_ids=image_ids(h // PATCH, w // PATCH).to(tokens),
            return_dict=False,
        )[0]
        return torch.nn.functional.pixel_shuffle(result.transpose(1, 2).unflatten(2, (h // PATCH, w // PATCH)), PATCH)


def image_ids(rows: int, columns: int) -> torch.Tensor:
    """(0, row, column) of every token, [rows*columns,3]."""
    grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=-1)
    return torch.cat([torch.zeros_like(grid[..., :1]), grid], dim=-1).flatten(0, 1).float()


def draw_levels(count: int, tokens: int, pipeline: FluxPipeline, generator: torch.Generator) -> torch.Tensor:
    """Noise levels [count] in (0,1): logit-normal, shifted as the sampler shifts them for so many tokens."""
    even = torch.sigmoid(torch.randn(count, generator=generator))
    return torch.tensor([shifted(pipeline.scheduler, level, tokens) for level in even.tolist()])


@torch.no_grad()
def encode_captions(pipeline: FluxPipeline, captions: list[str]) -> dict[str, torch.Tensor]:
    """What the transformer is told of captions: tokens of T5 and CLIP's pooled text."""
    longest = TEXT_TOKENS[is_guided(pipeline)]
    tokens, pooled, _ids = pipeline.encode_prompt(captions, None, device=training_device(), max_sequence_length=longest)
    return {"encoder_hidden_states": tokens, "pooled_projections": pooled}


@dataclass(frozen=True)
class _FlowRun:
    """What a run draws from."""

    pipeline: FluxPipeline
    data: LatentSet
    options: DiffusionOptions
    trainer: TransparentFlow
    batches: CaptionedLatents
    conditions: TextConditions

    def loss(self, batch: int, modules: Modules, progress: float, generator: torch.Generator) -> StepLoss:
        latent, captions = self.batches.draw(batch, generator)
        tokens, device = latent.shape[-1] * latent.shape[-2] // PATCH**2, training_device()
        level = draw_levels(batch, tokens, self.pipeline, generator).to(device)
        noise = torch.randn(latent.shape, generator=generator).to(device)
        return modules["model"](latent.to(device), noise, level, self.conditions.of(captions))

    def export(self, out: Path) -> None:
        space = latent_space(self.pipeline.vae)
        method = choose_method(space.base).id if space.base else ""
        with self.trainer.average.applied():
            said = {"format": "pt", **metadata_of(METHOD, space, method)}
            save_tensors(self.trainer.tuned.state(), out / f"{self.options.name}{SUFFIX}", said)

    def samples(self, codec: Codec | None, average: WeightAverage | None = None) -> Image.Image:
        """A picture for each prompt, same seeds every time; with a codec, RGBA on a checkerboard."""
        pipeline, options, size = self.pipeline, self.options, self.data.image_size
        prompts = list(options.sample_prompts) or spread_captions(self.data, 16)
        pipeline.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
        arguments: dict[str, Any] = {"num_inference_steps": options.sample_steps, "guidance_scale": options.guidance}
        arguments["max_sequence_length"] = TEXT_TOKENS[is_guided(pipeline)]
        with average.applied() if average else nullcontext(), torch.no_grad():
            tokens = pipeline(
                prompts, height=size[0], width=size[1], generator=generators, output_type="latent", **arguments
            ).images
        latents = FAMILIES[TRANSFORMER].latents(pipeline, tokens.float(), size)
        return image_grid(decode_pictures(pipeline.vae, self.data.vae_space(latents), codec), 8)


def train_flow(
    pipeline: FluxPipeline,
    data: LatentSet,
    config: RunConfig,
    options: DiffusionOptions | None = None,
    codec: Codec | None = None,
) -> dict[str, float]:
    """Tune a Flux pipeline's transformer on adjusted latents; writes `config.out`/NAME.safetensors, kohya's names."""
    options = options or DiffusionOptions()
    check_flow(pipeline, data, options)
    config.extra.update(asdict(options))
    frozen = freeze(pipeline, options.checkpointing)
    torch.manual_seed(config.seed)
    trainer = TransparentFlow(pipeline, options)
    batches = CaptionedLatents(data, options.caption_dropout)
    conditions = TextConditions(partial(encode_captions, pipeline), batches.texts)
    run = _FlowRun(pipeline, data, options, trainer, batches, conditions)
    samples: Callable[[], Image.Image] = partial(run.samples, codec, trainer.average)
    return train(
        Task(
            {"model": trainer},
            partial(run.loss, config.batch),
            run.export,
            samples,
            after_step=trainer.average.update,
            frozen=(*frozen, *([codec] if codec else [])),
        ),
        config,
    )


def freeze(pipeline: FluxPipeline, checkpointing: bool) -> tuple[torch.nn.Module, ...]:
    """A pipeline's networks on the device and not to be trained; on an accelerator all but the VAE in bfloat16."""
    device = training_device()
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    for name, part in parts.items():
        part.requires_grad_(False).eval().to(device)
        if device.type == "cuda" and name != "vae":  # 12 billion numbers
            part.to(torch.bfloat16)
    if checkpointing:
        pipeline.transformer.enable_gradient_checkpointing()
        pipeline.transformer.train()
    return tuple(parts.values())


def check_flow(pipeline: FluxPipeline, data: LatentSet, options: DiffusionOptions) -> None:
    """InputError for latents of another VAE, opaque ones, and what a transformer of this size is not tuned by."""
    if not data.transparent:
        raise InputError("latents of opaque pictures", "adjusted latents", "make them with `train latents --codec`")
    if options.mode != "lora":
        raise InputError(f"--mode {options.mode} for Flux", "--mode lora", "leave --mode out")
    channels = pipeline.transformer.config.in_channels // PATCH**2
    found, space = data.latents.shape[1:], latent_space(pipeline.vae)
    if found[0] != channels or any(side % PATCH for side in found[1:]):
        raise InputError(
            f"latents {list(found)}",
            f"[{channels},h,w] with even sides",
            "make them with this model's VAE, from pictures of a multiple of 16 pixels",
        )
    if (data.scale_factor, data.shift_factor) != (space.scale_factor, space.shift_factor):
        raise InputError(
            f"latents of a VAE with scale {data.scale_factor} and shift {data.shift_factor}",
            f"{space.scale_factor} and {space.shift_factor}",
            "make the latents with this model's VAE",
        )
