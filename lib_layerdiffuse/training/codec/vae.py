"""A small AutoencoderKL for the demo model: L1, gradient and a light KL on padded RGB and opaque composites.

The block layout is that of Stable Diffusion (factor 8, four latent channels, 32 groups), so that a WebUI loads it.
Afterwards `whiten` folds each latent channel's mean and deviation into the quant convolutions: the pipelines know only
one scalar scale factor.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL
from PIL import Image

from ...core.errors import InputError, WeightsError
from ..engine import Modules, StepLoss, Task, train, training_device
from ..grids import image_grid
from ..pictures.augment import draw_batch, random_backgrounds
from ..pictures.data import PreparedSet, on_device
from ..settings import RunConfig, VaeOptions, VaeShape
from ..typed_modules import channels_last

SCENE_SHARE = 0.4


def build_vae(shape: VaeShape) -> AutoencoderKL:
    """A fresh autoencoder of `shape`, in Stable Diffusion's block layout."""
    levels = len(shape.channels)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=list(shape.channels),
        layers_per_block=shape.blocks,
        latent_channels=shape.latent_channels,
        norm_num_groups=32,
        sample_size=128,
    )
    quiet_posterior(vae)
    return vae


class QuantConvolutions(NamedTuple):
    """Weights [out,in,1,1] and biases [out] of those that latents come out of, and go into (`post`)."""

    weight: torch.Tensor
    bias: torch.Tensor
    post_weight: torch.Tensor
    post_bias: torch.Tensor

    @classmethod
    def of(cls, vae: AutoencoderKL) -> QuantConvolutions:
        """Those of a VAE; InputError for one without them, as Flux's."""
        quant, post = vae.quant_conv, vae.post_quant_conv
        if quant is None or post is None or quant.bias is None or post.bias is None:
            raise InputError("a VAE without quant convolutions", "one in Stable Diffusion's layout", "name another")
        return cls(quant.weight, quant.bias, post.weight, post.bias)


@torch.no_grad()
def quiet_posterior(vae: AutoencoderKL, log_variance: float = -6.0) -> None:
    """Start with little posterior noise: at the usual unit noise the decoder learns nothing for thousands of steps."""
    channels = vae.config.latent_channels
    quant = QuantConvolutions.of(vae)
    quant.weight[channels:] *= 0.1
    quant.bias[channels:] = log_variance


def shape_of(vae: AutoencoderKL) -> VaeShape:
    """The shape of an autoencoder in Stable Diffusion's block layout."""
    config = vae.config
    return VaeShape(tuple(config.block_out_channels), config.layers_per_block, config.latent_channels)


class VaeTrainer(torch.nn.Module):
    """Autoencoder and its loss in one forward, as distributed training wants it."""

    strength: torch.Tensor

    def __init__(self, vae: AutoencoderKL, options: VaeOptions, kl_weight: float = 1e-6):
        super().__init__()
        self.vae, self.kl_weight = vae, kl_weight
        self.register_buffer("strength", torch.tensor(options.latent_noise), persistent=False)

    def forward(self, image: torch.Tensor, noise: torch.Tensor, sharpness: torch.Tensor) -> StepLoss:
        """`image` [B,3,H,W] in [-1,1], `noise` like the latent; the loss and its figures.

        `sharpness`, a number in [0,1], weighs absolute and gradient errors: squared error finds the colours first.
        """
        posterior = self.vae.encode(image).latent_dist
        # by the batch's own spread, with its gradient: growing latents would buy the encoder nothing
        spread = posterior.mean.std(dim=(0, 2, 3)) * self.strength
        output = self.vae.decode(posterior.mean + (posterior.std + spread[:, None, None]) * noise).sample
        error = output - image
        gradient = sum(d.abs().mean() for d in (error.diff(dim=-1), error.diff(dim=-2)))
        squared = error.square().mean()
        sharp = error.abs().mean() + gradient
        loss = 4 * squared + sharpness * sharp + self.kl_weight * posterior.kl().mean()
        psnr = -10 * (squared.detach() / 4).log10()
        return loss, {"l1": error.detach().abs().mean(), "psnr": psnr}


def train_vae(
    data: PreparedSet,
    config: RunConfig,
    start: VaeShape | AutoencoderKL,
    options: VaeOptions | None = None,
    scenes: torch.Tensor | None = None,
) -> dict[str, float]:
    """Train on crops first (four of half the side cost what one image does), then on whole images.

    `start` is the shape of a fresh autoencoder, or one to go on from. `scenes` are opaque pictures, uint8 [M,3,S,S] of
    the same size, to learn beside those of `data`. InputError for a set without images, or sizes and noise that do not
    fit.
    """
    shape = start if isinstance(start, VaeShape) else shape_of(start)
    options = options or VaeOptions(latent_noise=(0.0,) * shape.latent_channels)
    _check_noise(options, shape)
    _check_size(data, shape, options.crop)
    config.extra.update(asdict(options))
    learn, held = data.part(held_out=False), data.part(held_out=True)
    if not len(learn):
        raise InputError("no image to train on", "at least one that is not held out", "prepare a larger set")
    torch.manual_seed(config.seed)
    vae = build_vae(start) if isinstance(start, VaeShape) else _to_go_on(start, options)
    channels_last(vae)
    trainer = VaeTrainer(vae, options)
    shown = held if len(held) else learn
    factor = 2 ** (len(shape.channels) - 1)
    device = training_device()
    learn = learn.to(device)
    scenes = None if scenes is None else on_device(scenes, device)

    def loss(modules: Modules, progress: float, generator: torch.Generator) -> StepLoss:
        count, crop = options.at(progress, config.batch, learn.rgba.shape[-1])
        image = draw_images(learn, count, crop, generator, scenes)
        height, width = image.shape[2] // factor, image.shape[3] // factor
        noise = torch.randn(len(image), shape.latent_channels, height, width, generator=generator)
        image = image.to(device, memory_format=torch.channels_last)
        sharpness = torch.tensor(min(1.0, 10 * progress), device=device)
        return modules["vae"](image, noise.to(device), sharpness)

    def samples() -> Image.Image:
        device = next(vae.parameters()).device
        image = shown.rgba[:8, :3].float().div(127.5).sub(1).to(device)
        return image_grid([*(image + 1) / 2, *(vae.decode(vae.encode(image).latent_dist.mean).sample + 1) / 2], 8)

    return train(Task({"vae": trainer}, loss, lambda out: vae.save_pretrained(out / "vae"), samples), config)


def _to_go_on(start: AutoencoderKL, options: VaeOptions) -> AutoencoderKL:
    vae = grown_vae(start, options.grow).requires_grad_(True).train()
    if options.decoder_only:
        keep_latents(vae)
    if options.encoder_only:
        keep_decoder(vae)
    return vae


def keep_latents(vae: AutoencoderKL) -> None:
    """Freeze the encoder and both quant convolutions: latents and ignored channels stay as they are."""
    for part in filter(None, (vae.encoder, vae.quant_conv, vae.post_quant_conv)):
        part.requires_grad_(False)


def keep_decoder(vae: AutoencoderKL) -> None:
    """Freeze the decoder and its quant convolution: what latents mean stays as it is."""
    for part in filter(None, (vae.decoder, vae.post_quant_conv)):
        part.requires_grad_(False)


@torch.no_grad()
def grown_vae(vae: AutoencoderKL, blocks: int) -> AutoencoderKL:
    """`vae` with so many residual blocks more on each level, on the way down and up; pictures are the same at first.

    A new block's second convolution is zero, so that the block passes on what it gets until it has learned something.
    """
    if not blocks:
        return vae
    grown = AutoencoderKL.from_config({**vae.config, "layers_per_block": vae.config.layers_per_block + blocks})
    state = grown.state_dict()
    for name in state.keys() - vae.state_dict().keys():
        if ".conv2." in name:
            state[name].zero_()
    grown.load_state_dict({**state, **vae.state_dict()})
    return grown


def _check_noise(options: VaeOptions, shape: VaeShape) -> None:
    if len(options.latent_noise) != shape.latent_channels or min(options.latent_noise) < 0:
        raise InputError(
            got=f"latent noise {' '.join(map(str, options.latent_noise))}",
            expected=f"{shape.latent_channels} numbers, one for each latent channel, none below 0",
            what_to_do="correct --latent-noise",
        )


def _check_size(data: PreparedSet, shape: VaeShape, crop: int) -> None:
    factor, side = 2 ** (len(shape.channels) - 1), data.rgba.shape[-1]
    if side % factor or crop % factor:
        raise InputError(
            f"images of {side}x{side}, crops of {crop}x{crop} and {len(shape.channels)} levels",
            f"sides that are multiples of {factor}",
            "give --channels fewer values, prepare the set with another --size, or choose another --crop",
        )


def draw_images(
    data: PreparedSet,
    count: int,
    crop: int | None,
    generator: torch.Generator,
    scenes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Images [count,3,S,S] in [-1,1]: half padded RGB, half composited on made-up backgrounds; random crops.

    Of `scenes`, opaque pictures uint8 [M,3,S,S], there is a share of `SCENE_SHARE` among them.
    """
    rgba = draw_batch(data.rgba, count, generator)
    colour, alpha = rgba[:, :3], rgba[:, 3:]
    opaque = _chosen(count, 0.5, generator, rgba)
    backgrounds = random_backgrounds(count, rgba.shape[-1], generator, rgba.device)
    image = torch.where(opaque, colour * alpha + backgrounds * (1 - alpha), colour)
    if scenes is not None:
        image = torch.where(_chosen(count, SCENE_SHARE, generator, image), _drawn(scenes, count, generator), image)
    if crop:
        top, left = torch.randint(0, rgba.shape[-1] - crop + 1, (2,), generator=generator).tolist()
        image = image[:, :, top : top + crop, left : left + crop]
    return image * 2 - 1


def _chosen(count: int, share: float, generator: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    return (torch.rand(count, 1, 1, 1, generator=generator) < share).to(like.device)


def _drawn(scenes: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` of the scenes, half of them mirrored, [count,3,S,S] in [0,1]."""
    index = torch.randint(0, len(scenes), (count,), generator=generator).to(scenes.device)
    image = scenes[index].float() / 255
    return torch.where(_chosen(count, 0.5, generator, image), image.flip(-1), image)


@torch.no_grad()
def evaluate_vae(vae: AutoencoderKL, data: PreparedSet, batch: int = 16) -> float:
    """PSNR in dB of padded RGB through the autoencoder (posterior mean), pixels in [0,1], mean error over the set."""
    error, device = 0.0, next(vae.parameters()).device
    for start in range(0, len(data), batch):
        image = data.rgba[start : start + batch, :3].float().to(device) / 255
        output = vae.decode(vae.encode(image * 2 - 1).latent_dist.mean).sample.div(2).add(0.5).clamp(0, 1)
        error += (output - image).square().mean(dim=(1, 2, 3)).sum().item()
    return -10 * torch.tensor(error / len(data)).log10().item()


@torch.no_grad()
def whiten(vae: AutoencoderKL, images: torch.Tensor, batch: int = 16) -> AutoencoderKL:
    """Fold the latent channels' mean and deviation into the quant convolutions, in place; scale factor becomes 1.

    The posterior gets the same width everywhere, its mean one and at most 0.05 deviations: transparency encoders
    measure their offsets in it, their decoders cannot see it, and hosts that sample it must not drown an offset.
    Channels that the decoder ignores are handled as `free_unused` says. `images` [N,3,H,W] in [-1,1] are what the
    statistics are taken of.
    """
    images = images.to(next(vae.parameters()).device)
    posteriors = [vae.encode(part).latent_dist for part in images.split(batch)]
    means, widths = (torch.cat([getattr(p, name) for p in posteriors]) for name in ("mean", "logvar"))
    mean, deviation, width = means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3)), widths.mean(dim=(0, 2, 3))
    channels = len(mean)
    quant = QuantConvolutions.of(vae)
    quant.weight[:channels] /= deviation[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / deviation
    quant.weight[channels:] = 0
    quant.bias[channels:] = (width - 2 * deviation.log()).clamp(max=2 * math.log(0.05))
    quant.post_bias.add_(torch.einsum("oi,i->o", quant.post_weight[:, :, 0, 0], mean))
    quant.post_weight.mul_(deviation[None, :, None, None])
    vae.register_to_config(scaling_factor=1.0)
    free_unused(vae, images[:batch])
    return vae


@torch.no_grad()
def free_unused(vae: AutoencoderKL, images: torch.Tensor, threshold: float = 1e-3) -> list[int]:
    """Let channels that the decoder ignores repeat the first that it uses, in place; gives their numbers.

    Such a channel (one under much noise while training) holds accidental values, which a diffusion model would have to
    learn for nothing and a transparency codec could not tell from its offset. Ignored is a channel whose mean in place
    of its values changes the decoded `images` [N,3,H,W] in [-1,1] by less than `threshold` of what the channel that
    matters most does (both squared); its weights become zero.
    """
    latent = vae.encode(images).latent_dist.mean
    usual = vae.decode(latent).sample
    influence = []
    for channel in range(latent.shape[1]):
        without = latent.clone()
        without[:, channel] = latent[:, channel].mean()
        influence.append((vae.decode(without).sample - usual).square().mean().item())
    least = threshold * max(influence)
    unused = [channel for channel, change in enumerate(influence) if change < least]
    used = [channel for channel in range(latent.shape[1]) if channel not in unused]
    if unused:
        quant = QuantConvolutions.of(vae)
        for part in (quant.weight, quant.bias):
            part[unused] = part[used[0]].clone()
        quant.post_weight[:, unused] = 0
    return unused


def load_vae(path: str | Path) -> AutoencoderKL:
    """An autoencoder saved by `train_vae` (or any diffusers AutoencoderKL folder), frozen, in evaluation mode.

    WeightsError for anything else.
    """
    folder = next((folder for folder in (Path(path), Path(path) / "vae") if (folder / "config.json").is_file()), None)
    advice = "name a folder in diffusers' layout, such as the one `train vae` wrote"
    if folder is None:
        raise WeightsError(f"{path} without config.json", "the folder of an AutoencoderKL", advice)
    try:
        vae = AutoencoderKL.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # diffusers raises a dozen types for a foreign or truncated folder
        raise WeightsError(f"{folder}: {error}", "a whole AutoencoderKL", advice) from error
    return vae.requires_grad_(False).eval()
