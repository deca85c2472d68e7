"""Diffusion on precomputed latents: a small text-to-image model from nothing, and making any model transparent.

`train_text2image` trains UNet and text encoder together on opaque pictures. `train_diffusion` then tunes a frozen
pipeline's UNet on adjusted latents (arXiv 2402.17113): low-rank layers on attention, or all weights, written as offsets
in the published key layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from transformers import CLIPTokenizer

from ...core.errors import InputError
from ...core.files.layer_files import METHOD, metadata_of
from ...core.methods import choose_method
from ...core.offsets.offsets import OffsetSet, make_diff, make_lora, read_offsets, write_offsets
from ...standalone.demo import demo_scheduler
from ...unet.ldm_keys import unet_table, unet_to_ldm
from ..codec.codec import Codec, latent_space
from ..engine import Modules, StepLoss, Task, train, training_device, without_accelerator
from ..grids import checkered, image_grid
from ..pictures.data import on_device
from ..settings import DenoisingOptions, DiffusionOptions, RunConfig, UNetShape
from .convert import BETAS
from .denoising import AttentionLowRank, DenoisingLoss, WeightAverage, begin_with
from .latents import LatentSet
from .text import build_text_encoder, encode_tokens, write_clip_files
from .text_conditions import TextConditions


def build_unet(shape: UNetShape, latent_channels: int, size: int) -> UNet2DConditionModel:
    """A fresh UNet of `shape` for latents [B,latent_channels,size,size], in LDM's block layout."""
    more = len(shape.channels) - 1
    first = shape.attention_at_first
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=shape.channels,
        layers_per_block=shape.blocks,
        down_block_types=["CrossAttnDownBlock2D" if first else "DownBlock2D"] + ["CrossAttnDownBlock2D"] * more,
        up_block_types=["CrossAttnUpBlock2D"] * more + ["CrossAttnUpBlock2D" if first else "UpBlock2D"],
        cross_attention_dim=shape.context,
        attention_head_dim=[width // shape.head for width in shape.channels],  # diffusers' name for the heads' number
    )


def build_pipeline(
    vae: AutoencoderKL, tokenizer: CLIPTokenizer, latents: LatentSet, shape: UNetShape
) -> StableDiffusionPipeline:
    """A pipeline with a fresh UNet and text encoder around a trained VAE; v-prediction.

    InputError for latents of another VAE.
    """
    if latents.latents.shape[1] != vae.config.latent_channels:
        raise InputError(
            got=f"latents of {latents.latents.shape[1]} channels and a VAE of {vae.config.latent_channels}",
            expected="latents of this VAE",
            what_to_do="make them with the same --vae",
        )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=build_text_encoder(tokenizer, width=shape.context),
        tokenizer=tokenizer,
        unet=build_unet(shape, vae.config.latent_channels, latents.latents.shape[-1]),
        scheduler=demo_scheduler({**BETAS, "parameterization": "v"}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def started_pipeline(pipeline: DiffusionPipeline, vae: AutoencoderKL, latents: LatentSet) -> DiffusionPipeline:
    """A trained pipeline around `vae`, to go on from; InputError where it paints other latents."""
    channels, found = pipeline.unet.config.in_channels, latents.latents.shape[1]
    if channels != found:
        raise InputError(
            f"latents of {found} channels and a model for {channels}",
            "latents that this model paints",
            "make them with its own VAE, or name another --start",
        )
    pipeline.vae = vae
    pipeline.unet.requires_grad_(True).train()
    pipeline.text_encoder.requires_grad_(True).train()
    return pipeline


class CaptionedLatents:
    """Random batches of latents in the sampler's scale, each with one of its image's captions or none."""

    def __init__(self, data: LatentSet, dropout: float):
        self.data, self.dropout = data, dropout
        self.latents = on_device(data.latents, training_device())

    @property
    def texts(self) -> list[str]:
        """Every text that `draw` may give, sorted."""
        return sorted({"", *(text for variants in self.data.captions for text in variants)})

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
        """Latents [count,C,h,w] float32 and their captions."""
        rows = torch.randint(0, len(self.data), (count,), generator=generator)
        chance = torch.rand(2, count, generator=generator)
        variants = [self.data.captions[image] for image in self.data.image[rows].tolist()]
        dropped = (chance[1] < self.dropout).tolist()
        captions = [
            "" if drop else texts[int(share * len(texts))]
            for texts, share, drop in zip(variants, chance[0].tolist(), dropped, strict=True)
        ]
        return self.data.sampler_space(self.latents[rows.to(self.latents.device)].float()), captions


class TextToImage(torch.nn.Module):
    """UNet, text encoder and loss in one forward, as distributed training wants it."""

    def __init__(self, pipeline: DiffusionPipeline, options: DiffusionOptions):
        super().__init__()
        self.unet, self.text_encoder = pipeline.unet, pipeline.text_encoder
        self.denoising = denoising_loss(pipeline, options)
        self.average = WeightAverage(self, options.average)

    def forward(self, latent: torch.Tensor, noise: torch.Tensor, steps: torch.Tensor, tokens: torch.Tensor) -> StepLoss:
        """Loss and figures of `latent` [B,C,h,w] with captions `tokens` [B,77]."""
        hidden = self.text_encoder(tokens).last_hidden_state
        unet = lambda noisy, steps: self.unet(noisy, steps, hidden).sample  # noqa: E731
        loss = self.denoising(unet, latent, noise, steps)
        return loss, {"loss": loss.detach()}


class TransparentUNet(torch.nn.Module):
    """The trainable part of a UNet (low-rank layers, or all of it) and its loss in one forward."""

    def __init__(self, pipeline: DiffusionPipeline, options: DiffusionOptions):
        super().__init__()
        self.frozen = (pipeline.unet,)  # a tuple, so that it is neither registered nor saved here
        self.tuned = TUNINGS[options.mode](pipeline.unet, options)
        self.denoising = denoising_loss(pipeline, options)
        self.average = WeightAverage(self.tuned, options.average)

    def forward(self, latent: torch.Tensor, noise: torch.Tensor, steps: torch.Tensor, condition: dict) -> StepLoss:
        """Loss and figures of `latent` [B,C,h,w] under `condition`, the UNet's keyword arguments."""
        unet = lambda noisy, steps: self.frozen[0](noisy, steps, **condition).sample  # noqa: E731
        loss = self.denoising(unet, latent, noise, steps)
        return loss, {"loss": loss.detach()}


def _tune_low_rank(unet: UNet2DConditionModel, options: DiffusionOptions) -> torch.nn.Module:
    unet.requires_grad_(False)
    tuned = AttentionLowRank(unet, options.rank)
    if options.begin:
        _begin(tuned, unet, read_offsets(options.begin))
    return tuned


def _begin(tuned: AttentionLowRank, unet: UNet2DConditionModel, offsets: OffsetSet) -> None:
    """Let low-rank layers begin with the nearest of their rank to a file's offsets; InputError where none fits."""
    table, named = unet_table(unet.config), zip(tuned.names, tuned.layers, strict=True)
    layers = (
        (f"{table.ldm_name(name)}.weight", (layer.up.shape[0], layer.down.shape[1]), layer.begin)
        for name, layer in named
    )
    begin_with(offsets, layers, "--begin")


def _tune_all(unet: UNet2DConditionModel, options: DiffusionOptions) -> torch.nn.Module:
    return unet.requires_grad_(True)


TUNINGS: dict[str, Callable] = {"lora": _tune_low_rank, "full": _tune_all}


def use_quickest_attention(unet: UNet2DConditionModel | ControlNetModel) -> None:
    """On CPUs plain matrix products: the backward pass of torch's fused attention takes 1.2 to 1.4 times the step."""
    if without_accelerator():
        unet.set_attn_processor(AttnProcessor())


def freeze(pipeline: DiffusionPipeline, checkpointing: bool) -> tuple[torch.nn.Module, ...]:
    """A pipeline's networks, on the device and not to be trained, the UNet with the quickest attention there is."""
    frozen = tuple(part for part in pipeline.components.values() if isinstance(part, torch.nn.Module))
    for part in frozen:
        part.requires_grad_(False).to(training_device())
    if checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
        pipeline.unet.train()
    use_quickest_attention(pipeline.unet)
    return frozen


def denoising_loss(pipeline: DiffusionPipeline, options: DenoisingOptions) -> DenoisingLoss:
    """The loss for a pipeline's own noise schedule and prediction type."""
    scheduler = pipeline.scheduler
    return DenoisingLoss(scheduler.alphas_cumprod, scheduler.config.prediction_type, options.snr_gamma)


def train_text2image(
    pipeline: DiffusionPipeline, data: LatentSet, config: RunConfig, options: DiffusionOptions | None = None
) -> dict[str, float]:
    """Train `pipeline`'s UNet and text encoder; writes `config.out`/pipeline, which diffusers and `convert` read."""
    options = options or DiffusionOptions()
    config.extra.update(asdict(options))
    pipeline.vae.requires_grad_(False)
    use_quickest_attention(pipeline.unet)
    trainer = TextToImage(pipeline, options)
    batches = CaptionedLatents(data, options.caption_dropout)
    device = training_device()
    tokens = TextConditions(
        lambda texts: {"tokens": encode_tokens(pipeline.tokenizer, texts).to(device)}, batches.texts
    )

    def loss(modules: Modules, progress: float, generator: torch.Generator) -> StepLoss:
        latent, captions = batches.draw(config.batch, generator)
        return modules["model"](*draw_noise(latent, pipeline, generator), **tokens.of(captions))

    def export(out: Path) -> None:
        with trainer.average.applied():
            pipeline.save_pretrained(out / "pipeline")
        # transformers 5 saves tokenizer.json alone; older hosts read CLIP's two files
        write_clip_files(pipeline.tokenizer, out / "pipeline" / "tokenizer")

    samples = partial(sample_grid, pipeline, data, trainer.average, options)
    return train(
        Task({"model": trainer}, loss, export, samples, after_step=trainer.average.update, frozen=(pipeline.vae,)),
        config,
    )


def train_diffusion(
    pipeline: DiffusionPipeline,
    data: LatentSet,
    config: RunConfig,
    options: DiffusionOptions | None = None,
    codec: Codec | None = None,
) -> dict[str, float]:
    """Tune `pipeline`'s UNet on adjusted latents; writes `config.out`/NAME.safetensors, offsets in the LDM layout."""
    options = options or DiffusionOptions()
    _check_diffusion(pipeline, data)
    config.extra.update(asdict(options))
    unet = pipeline.unet
    base = {} if options.mode == "lora" else {name: tensor.cpu().clone() for name, tensor in unet.state_dict().items()}
    frozen = freeze(pipeline, options.checkpointing)
    torch.manual_seed(config.seed)
    trainer = TransparentUNet(pipeline, options)
    batches = CaptionedLatents(data, options.caption_dropout)
    conditions = TextConditions(lambda texts: encode_captions(pipeline, texts, data.image_size), batches.texts)

    def loss(modules: Modules, progress: float, generator: torch.Generator) -> StepLoss:
        latent, captions = batches.draw(config.batch, generator)
        return modules["model"](*draw_noise(latent, pipeline, generator), conditions.of(captions))

    def export(out: Path) -> None:
        with trainer.average.applied():
            write_offsets(out / f"{options.name}.safetensors", _offsets(trainer.tuned, unet, base), said_of(pipeline))

    samples = partial(sample_grid, pipeline, data, trainer.average, options, codec)
    return train(
        Task(
            {"model": trainer},
            loss,
            export,
            samples,
            after_step=trainer.average.update,
            frozen=(*frozen, *([codec] if codec else [])),
        ),
        config,
    )


def said_of(pipeline: DiffusionPipeline) -> dict[str, str]:
    """The metadata of offsets for this pipeline: what a WebUI knows them by."""
    space = latent_space(pipeline.vae)
    method = choose_method(space.base).id if space.base else ""
    return {"format": "pt", **metadata_of(METHOD, space, method)}


def _offsets(
    tuned: torch.nn.Module, unet: UNet2DConditionModel, base: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    if isinstance(tuned, AttentionLowRank):
        table = unet_table(unet.config)
        return make_lora({f"{table.ldm_name(name)}.weight": pair for name, pair in tuned.pairs().items()})
    return make_diff(unet_to_ldm(base, unet.config), unet_to_ldm(unet.state_dict(), unet.config))


def draw_noise(
    latent: torch.Tensor, pipeline: DiffusionPipeline, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(latent, noise, steps [B]) on the UNet's device; on an accelerator the noise is drawn by its own generator."""
    if pipeline.unet.device.type == "cpu":
        noise = torch.randn(latent.shape, generator=generator)
    else:
        noise = torch.randn(latent.shape, device=pipeline.unet.device)
    steps = torch.randint(0, pipeline.scheduler.config.num_train_timesteps, (len(latent),), generator=generator)
    return latent.to(pipeline.unet.device), noise.to(pipeline.unet.device), steps.to(pipeline.unet.device)


@torch.no_grad()
def encode_captions(pipeline: DiffusionPipeline, captions: list[str], size: tuple[int, int]) -> dict:
    """The UNet's keyword arguments for `captions`: SD1.5's hidden states; SDXL's also pooled text and sizes."""
    device = pipeline.unet.device
    encoded = pipeline.encode_prompt(
        captions, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if getattr(pipeline, "text_encoder_2", None) is None:
        return {"encoder_hidden_states": encoded[0]}
    sizes = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=device).expand(len(captions), -1)
    return {
        "encoder_hidden_states": encoded[0],
        "added_cond_kwargs": {"text_embeds": encoded[2], "time_ids": sizes},
    }


@torch.no_grad()
def paint_latents(
    pipeline: DiffusionPipeline, prompts: list[str], size: tuple[int, int], options: DenoisingOptions
) -> torch.Tensor:
    """Latents [B,C,h,w] of prompts at `size` (height, width), sampler's scale; same seeds every time."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompts,
        height=size[0],
        width=size[1],
        num_inference_steps=options.sample_steps,
        guidance_scale=options.guidance,
        generator=[torch.Generator().manual_seed(number) for number in range(len(prompts))],
        output_type="latent",
    ).images


@torch.no_grad()
def sample_grid(
    pipeline: DiffusionPipeline,
    data: LatentSet,
    average: WeightAverage | None,
    options: DiffusionOptions,
    codec: Codec | None = None,
    columns: int = 8,
) -> Image.Image:
    """A picture for each prompt, same seeds every time; with a codec, RGBA on a checkerboard."""
    prompts = list(options.sample_prompts) or spread_captions(data, 16)
    with average.applied() if average is not None else nullcontext():
        scaled = paint_latents(pipeline, prompts, data.image_size, options)
    return image_grid(decode_pictures(pipeline.vae, data.vae_space(scaled), codec), columns)


@torch.no_grad()
def decode_pictures(
    vae: AutoencoderKL, latents: torch.Tensor, codec: Codec | None, batch: int = 8
) -> list[torch.Tensor]:
    """VAE-space latents as tensors [3,H,W] in [0,1]; with a codec, RGBA on a checkerboard."""
    pictures = []
    for part in latents.to(vae.device, vae.dtype).split(batch):
        decoded = vae.decode(part).sample
        pictures += list(checkered(codec.decode(decoded, part).clamp(0, 1)) if codec else decoded / 2 + 0.5)
    return pictures


def spread_captions(data: LatentSet, count: int) -> list[str]:
    """Up to `count` different first captions, evenly spread over the set."""
    distinct: Sequence[str] = list(dict.fromkeys(texts[0] for texts in data.captions))
    step = max(1, len(distinct) // count)
    return list(distinct[::step][:count])


def _check_diffusion(pipeline: DiffusionPipeline, data: LatentSet) -> None:
    if not data.transparent:
        raise InputError("latents of opaque pictures", "adjusted latents", "make them with `train latents --codec`")
    channels = pipeline.unet.config.in_channels
    if data.latents.shape[1] != channels:
        raise InputError(
            got=f"latents of {data.latents.shape[1]} channels",
            expected=f"{channels}, as the UNet takes",
            what_to_do="make the latents with this model's VAE",
        )
