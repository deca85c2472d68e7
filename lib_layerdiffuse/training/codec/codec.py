"""The transparency codec's trainer: an offset encoder and an RGBA decoder around a frozen AutoencoderKL.

arXiv 2402.17113. The encoder hides alpha in a small offset of the latent, `z = mean + unit * offset`; the frozen VAE
must decode `z` to nearly the same picture (harmlessness), the decoder finds colour and alpha in that picture and `z`.
`unit` is the posterior's deviation as in the published files, or 1 with `unit="latent"`. The VAE sees the padded
picture, or the picture composited on grey, as the published inference code has it. Any factor and any channel count.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image

from ...core.bases import ARGB, CodecFiles, CodecRule, LatentSpace
from ...core.codec.codec import UNITS
from ...core.codec.decoder import TransparencyUNet
from ...core.codec.decoding import ORIENTATIONS, Orientation, ordered
from ...core.codec.encoder import OffsetEncoder
from ...core.errors import InputError
from ...core.files.codec_parts import DECODER, ENCODER
from ..engine import Figures, Modules, StepLoss, Task, train, training_device
from ..grids import checkered, image_grid
from ..pictures.augment import draw_batch, soften
from ..pictures.data import PreparedSet
from ..settings import CodecOptions, RunConfig
from ..typed_modules import channels_last, spread_output
from .codec_files import layout_for, write_codec
from .losses import (
    DiscriminatorTrainer,
    PatchDiscriminator,
    adversarial_loss,
    identity_loss,
    offset_penalty,
    reconstruction_loss,
)
from .vae import QuantConvolutions

# what the frozen VAE sees of padded A,R,G,B [B,4,H,W] in [0,1]: [B,3,H,W] in [-1,1]
SEEN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "padded": lambda argb: argb[:, 1:] * 2 - 1,
    "grey": lambda argb: (argb[:, 1:] * 2 - 1) * argb[:, :1],
}


class Codec(torch.nn.Module):
    """Encoder, decoder and the rule that they are trained for.

    Pictures here are always A,R,G,B; the networks see and give the rule's order of channels. `deviation` [C] is the
    VAE-space latent's spread over the data; `scale` [C] times the encoder's output is the offset in units, so that a
    fresh network's outputs of about 0.3 are sensible. `scale`, over the rule's own scale, is folded into the exported
    file.
    """

    deviation: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, encoder: OffsetEncoder, decoder: TransparencyUNet, rule: CodecRule, statistics: LatentStatistics
    ):
        super().__init__()
        self.encoder, self.decoder, self.rule = encoder, decoder, rule
        self.register_buffer("deviation", statistics.deviation)
        self.register_buffer("scale", statistics.deviation / (statistics.posterior if rule.unit == "posterior" else 1))

    def offset(self, argb: torch.Tensor, posterior_deviation: torch.Tensor) -> torch.Tensor:
        """Latent offset [B,C,h,w] in VAE space of padded A,R,G,B [B,4,H,W] in [0,1]."""
        offset = self.encoder(ordered(argb, self.rule.channel_order, ARGB))
        return offset * self.scale[:, None, None] * UNITS[self.rule.unit](posterior_deviation)

    def seen(self, argb: torch.Tensor) -> torch.Tensor:
        """What the VAE is given of padded A,R,G,B [B,4,H,W] in [0,1]: [B,3,H,W] in [-1,1]."""
        return SEEN[self.rule.vae_input](argb)

    def encode(self, vae: AutoencoderKL, argb: torch.Tensor) -> torch.Tensor:
        """Adjusted latents [B,C,h,w] in VAE space of padded A,R,G,B [B,4,H,W] in [0,1], by the VAE and its offset."""
        posterior = vae.encode(self.seen(argb)).latent_dist
        return posterior.mean + self.offset(argb, posterior.std)

    def decode(self, decoded: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """A,R,G,B [B,4,H,W], unclipped, from the VAE's image in [-1,1] and the VAE-space latent."""
        pixel = decoded / 2 + 0.5
        output = self.decoder(pixel.clamp(0, 1) if self.rule.clip_pixels else pixel, latent)
        return ordered(output, ARGB, self.rule.channel_order)

    def export(
        self, folder: Path, prefix: str = "", space: LatentSpace | None = None, layout: CodecFiles | None = None
    ) -> None:
        """Write the files of a published layout, `scale` folded into the last convolution.

        `space` is that of the VAE's latents, by which a WebUI knows what the files are for.
        """
        space = space or LatentSpace(1.0, self.encoder.latent_channels, self.encoder.factor)
        state = {key: value.detach().cpu().clone() for key, value in self.encoder.state_dict().items()}
        weight = next(key for key in reversed(state) if key.endswith(".weight"))
        scale = self.scale.cpu() / self.rule.offset_scale
        state[weight] *= scale[:, None, None, None]
        state[weight.removesuffix("weight") + "bias"] *= scale
        states = {ENCODER: state, DECODER: self.decoder.state_dict()}
        write_codec(states, layout or layout_for(space), self.rule, space, folder, prefix)


def latent_space(vae: AutoencoderKL) -> LatentSpace:
    """The latents of a VAE."""
    config, factor = vae.config, 2 ** (len(vae.config.block_out_channels) - 1)
    shift = getattr(config, "shift_factor", None) or 0.0
    return LatentSpace(float(config.scaling_factor), config.latent_channels, factor, float(shift))


@dataclass(frozen=True)
class LatentStatistics:
    """Spread of a VAE's latents over images, by channel [C], and the mean posterior deviation [C]; VAE space."""

    deviation: torch.Tensor
    posterior: torch.Tensor


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, data: PreparedSet, count: int = 64, batch: int = 8) -> LatentStatistics:
    """Statistics of the padded pictures of up to `count` images, spread evenly over `data`."""
    index = torch.linspace(0, len(data) - 1, min(count, len(data))).long()
    device = next(vae.parameters()).device
    means, deviations = [], []
    for rows in index.split(batch):
        posterior = vae.encode(data.rgba[rows, :3].float().div(127.5).sub(1).to(device)).latent_dist
        means.append(posterior.mean.cpu())
        deviations.append(posterior.std.cpu())
    axes = (0, 2, 3)
    return LatentStatistics(torch.cat(means).std(dim=axes).clamp_min(1e-6), torch.cat(deviations).mean(dim=axes))


class CodecTrainer(torch.nn.Module):
    """Codec and its losses in one forward, as distributed training wants it; the frozen parts stay out of its state."""

    def __init__(self, codec: Codec, vae: AutoencoderKL, discriminator: PatchDiscriminator, options: CodecOptions):
        super().__init__()
        self.codec, self.options = codec, options
        self.outside = (vae, discriminator)  # a tuple, so that neither is registered, saved or trained here

    def forward(
        self, argb: torch.Tensor, noise: torch.Tensor, adversarial: bool, orientation: Orientation = ORIENTATIONS[0]
    ) -> tuple[torch.Tensor, Figures, torch.Tensor]:
        """`argb` [B,4,H,W] in [0,1], padded; `noise` [B,C,h,w] in deviations; returns loss, figures, prediction.

        The decoder is given everything in `orientation`, and its prediction is turned back.
        """
        vae, discriminator = self.outside
        codec, options = self.codec, self.options
        image = codec.seen(argb)
        with torch.no_grad():
            posterior = vae.encode(image).latent_dist
        offset = codec.offset(argb, posterior.std)
        latent = posterior.mean + offset + noise * codec.deviation[:, None, None]
        # what is ignored has no gradient
        with torch.no_grad() if options.free_channels_only else nullcontext():
            decoded = vae.decode(latent).sample
        prediction = orientation.undo(codec.decode(orientation.apply(decoded), orientation.apply(latent)))
        clean = (noise.abs().amax(dim=(1, 2, 3)) == 0).float()
        parts = {
            "reconstruction": reconstruction_loss(prediction, argb),
            "identity": identity_loss(decoded, image, clean),
            "penalty": offset_penalty(offset / codec.deviation[:, None, None]),
        }
        loss = torch.stack([getattr(options, name) * value for name, value in parts.items()]).sum()
        if adversarial:
            loss = loss + options.discriminator * adversarial_loss(discriminator, prediction)
        figures = {name: value.detach() for name, value in parts.items()}
        figures["alpha_mae"] = (prediction[:, :1].detach().clamp(0, 1) - argb[:, :1]).abs().mean()
        return loss, figures, prediction.detach()


def build_codec(vae: AutoencoderKL, statistics: LatentStatistics, options: CodecOptions) -> Codec:
    """Fresh networks that fit the VAE's factor and latent channels. InputError for widths of another factor."""
    halvings = len(vae.config.block_out_channels) - 1
    if len(options.encoder_widths) != halvings + 1:
        raise InputError(
            got=f"{len(options.encoder_widths)} encoder widths",
            expected=f"{halvings + 1} for a VAE of factor {2**halvings}",
            what_to_do="give one width for each scale, e.g. " + " ".join(["16", "32", "64", "64"][: halvings + 1]),
        )
    channels, layout = vae.config.latent_channels, layout_for(latent_space(vae), options.layout)
    encoder = OffsetEncoder(widths=options.encoder_widths, latent_channels=channels)
    decoder = TransparencyUNet(
        channels=options.decoder_channels,
        latent_channels=channels,
        latent_level=halvings,
        attention_levels=options.attention_levels,
        layers=options.decoder_layers,
    )
    rule = replace(layout.rule, vae_input=options.vae_input, unit=options.unit)
    codec = Codec(encoder, decoder, rule, statistics)
    return channels_last(codec)  # a tenth to a half quicker on CPUs, and what CUDA's convolutions like


def _fresh_codec(vae: AutoencoderKL, data: PreparedSet, options: CodecOptions) -> Codec:
    codec = build_codec(vae, latent_statistics(vae, data), options)
    seen = data.rgba[torch.linspace(0, len(data) - 1, min(32, len(data))).long()]
    seen = ordered(seen.float() / 255, codec.rule.channel_order)
    spread_features(codec.encoder, seen, 0.5 if options.free_channels_only else 0.0)
    return codec


@torch.no_grad()
def spread_features(encoder: OffsetEncoder, pictures: torch.Tensor, last: float = 0.0) -> None:
    """Give each convolution's output on `pictures` [B,4,H,W] mean 0 and deviation 1, the last one's deviation `last`.

    With `last` 0 the encoder still adds nothing; where it can harm nothing, a decoder learns sooner from something.
    """
    convolutions = [layer for layer in encoder.blocks if isinstance(layer, torch.nn.Conv2d)]
    if last:
        convolutions[-1].reset_parameters()
    hidden = pictures
    for layer in encoder.blocks:
        if isinstance(layer, torch.nn.Conv2d) and (last or layer is not convolutions[-1]):
            spread_output(layer, hidden, last if layer is convolutions[-1] else 1.0)
        hidden = layer(hidden)


def free_channels(vae: AutoencoderKL) -> torch.Tensor:
    """1 for each latent channel that the VAE's decoder ignores, 0 for the others [C]; InputError when it uses all."""
    weight = vae.decoder.conv_in.weight if vae.post_quant_conv is None else QuantConvolutions.of(vae).post_weight
    free = weight.detach().abs().amax(dim=(0, 2, 3)) == 0
    if not free.any():
        raise InputError(
            got="a VAE whose decoder uses all of its latent channels",
            expected="one that was trained with --latent-noise and whitened, for --free-channels-only",
            what_to_do="leave --free-channels-only out",
        )
    return free.float()


def train_codec(
    vae: AutoencoderKL,
    data: PreparedSet,
    config: RunConfig,
    options: CodecOptions | None = None,
    start: Codec | None = None,
) -> dict[str, float]:
    """Train encoder and decoder for a frozen `vae`; writes their files under `config.out` and returns the figures.

    `start` is a codec for this VAE to go on from, of whatever shapes; without it fresh networks as `options` say.
    InputError for a set without images, or sizes that do not fit.
    """
    options = options or CodecOptions()
    _check_size(data, options)
    config.extra.update(asdict(options))
    learn, held = data.part(held_out=False), data.part(held_out=True)
    if not len(learn):
        raise InputError("no image to train on", "at least one that is not held out", "prepare a larger set")
    torch.manual_seed(config.seed)
    codec = _fresh_codec(vae, learn, options) if start is None else start.requires_grad_(True).train()
    codec.encoder.requires_grad_(not options.freeze_encoder)
    if options.free_channels_only:
        codec.scale *= free_channels(vae)
    run = _CodecRun(codec, vae, learn, config, options)
    space = latent_space(vae)
    layout = layout_for(space, options.layout)
    return train(
        Task(
            modules={"codec": run.trainer},
            loss=run.loss,
            export=lambda out: codec.export(out, options.prefix, space, layout),
            samples=lambda: codec_grid(codec, vae, held if len(held) else learn),
            second=run.discriminate if options.discriminator else None,
            second_modules={"discriminator": run.second} if options.discriminator else {},
            frozen=(run.vae,),
        ),
        config,
    )


class _CodecRun:
    """Draws batches and keeps the last prediction for the discriminator's turn."""

    def __init__(self, codec: Codec, vae: AutoencoderKL, data: PreparedSet, config: RunConfig, options: CodecOptions):
        self.vae = channels_last(vae.requires_grad_(False).eval())
        self.data, self.config, self.options = data.to(training_device()), config, options
        discriminator = PatchDiscriminator()
        self.trainer = CodecTrainer(codec, vae, discriminator, options)
        self.second = DiscriminatorTrainer(discriminator)
        self.last: tuple[torch.Tensor, torch.Tensor] | None = None

    def loss(self, modules: Modules, progress: float, generator: torch.Generator) -> StepLoss:
        """One training batch's loss; crops first, whole images in the last share of the run."""
        options = self.options
        device = next(modules["codec"].parameters()).device
        argb = draw_codec_batch(self.data, self.config.batch, progress, options, generator)
        noise = self.draw_noise(argb, generator)
        adversarial = bool(options.discriminator) and progress >= options.adversarial_from
        orientation = draw_orientation(options.turned_share, generator)
        argb = argb.to(device, memory_format=torch.channels_last)
        loss, figures, prediction = modules["codec"](argb, noise.to(device), adversarial, orientation)
        self.last = (argb, prediction) if adversarial else None
        return loss, figures

    def draw_noise(self, argb: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Gaussian noise [B,C,h,w] in latent deviations, of a random strength for each image, none for most."""
        options, count = self.options, len(argb)
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        size = (self.vae.config.latent_channels, argb.shape[2] // factor, argb.shape[3] // factor)
        strength = torch.rand(count, generator=generator) * options.noise_limit
        strength *= torch.rand(count, generator=generator) < options.noise_share
        return torch.randn(count, *size, generator=generator) * strength[:, None, None, None]

    def discriminate(self, modules: Modules, progress: float, generator: torch.Generator) -> StepLoss | None:
        """The discriminator's loss on the last batch; nothing before its time."""
        return None if self.last is None else modules["discriminator"](*self.last)


def draw_orientation(share: float, generator: torch.Generator) -> Orientation:
    """A random orientation of those that inference votes over, for a `share` of the calls; else the upright one."""
    turned = torch.rand(1, generator=generator).item() < share
    return ORIENTATIONS[int(torch.randint(0, len(ORIENTATIONS), (1,), generator=generator)) if turned else 0]


def draw_codec_batch(
    data: PreparedSet, count: int, progress: float, options: CodecOptions, generator: torch.Generator
) -> torch.Tensor:
    """`count` crops, or as many whole images as cost the same, A,R,G,B [B,4,S,S] in [0,1], a share softened."""
    size = data.rgba.shape[-1]
    count, crop = options.at(progress, count, size)
    rgba = draw_batch(data.rgba, count, generator)
    colour, alpha = rgba[:, :3], rgba[:, 3:]
    soft = (torch.rand(count, 1, 1, 1, generator=generator) < options.soft_share).to(rgba.device)
    argb = torch.cat([torch.where(soft, soften(alpha, generator), alpha), colour], dim=1)
    if crop is None:
        return argb
    top, left = torch.randint(0, size - crop + 1, (2,), generator=generator).tolist()
    return argb[:, :, top : top + crop, left : left + crop]


@torch.no_grad()
def codec_grid(codec: Codec, vae: AutoencoderKL, data: PreparedSet, count: int = 8) -> Image.Image:
    """Rows of pictures on a checkerboard: truth, the VAE's view of the adjusted latent, decoded RGBA, decoded alpha."""
    device = next(codec.parameters()).device
    argb = data.rgba[:count, [3, 0, 1, 2]].float().div(255).to(device)
    soft = soften(argb[:, :1].cpu(), torch.Generator().manual_seed(0)).to(device)
    argb[count // 2 :, :1] = soft[count // 2 :]
    latent = codec.encode(vae, argb)
    decoded = vae.decode(latent).sample
    output = codec.decode(decoded, latent).clamp(0, 1)
    rows = [checkered(argb), decoded / 2 + 0.5, checkered(output), output[:, :1].expand(-1, 3, -1, -1)]
    return image_grid([image for row in rows for image in row], len(argb))


def _check_size(data: PreparedSet, options: CodecOptions) -> None:
    multiple = 2 ** (len(options.decoder_channels) - 1)
    sides = {"image size": data.rgba.shape[-1], "crop": options.crop}
    for name, side in sides.items():
        if side % multiple:
            raise InputError(f"{name} {side}", f"a multiple of {multiple}", "use fewer decoder levels or another size")
