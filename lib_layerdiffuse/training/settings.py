"""What a training run can be told, as dataclasses whose fields are command-line options too, with their ranges.

No torch here, so that the help comes up at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.bases import CHOICES
from ..core.errors import InputError
from ..form.ranges import Range, Stem
from .options import Checked, setting

TRACKERS = ("csv", "tensorboard")
UNITS = CHOICES["unit"]
FLOW_LAYERS = ("all", "attention")
CODEC_LAYOUTS = ("auto", "separate", "combined")
TUNED = ("lora", "full")
LAYER_METHODS = ("joint", "fg2bg", "bg2fg", "fg2blend", "bg2blend", "fgblend2bg", "bgblend2fg")
DEMO_LAYERS = ("joint", "fg2bg", "bg2fg")  # those that a demo model has

STEPS = Range(1, 10**9, whole=True)
COUNT = Range(0, 10**9, whole=True)
MINUTES = Range(0, 10**6)
SHARE = Range(0, 1)
WEIGHT = Range(0, 10**6)
LEVELS = Range(0, 16, whole=True)
BLOCKS = Range(1, 16, whole=True)
WIDTH = Range(1, 4096, whole=True)
GROUPED = Range(32, 4096, whole=True, multiple=32)  # Stable Diffusion's normalisation has 32 groups
EIGHTS = Range(8, 4096, whole=True, multiple=8)


@dataclass
class RunConfig(Checked):
    """How long, how fast and where to; one for each run, saved beside its checkpoints as `run.json`."""

    out: str
    steps: int = setting(10_000, "optimiser steps", STEPS)
    minutes: float = setting(
        0.0, "stop after so many minutes of training, over all resumes; 0: no limit by the clock", MINUTES
    )
    batch: int = setting(16, "images of a batch in each process", Range(1, 65_536, whole=True))
    learning_rate: float = setting(1e-3, "highest learning rate", Range(0, 10, above=True))
    warmup: int = setting(100, "steps of linear warm-up", COUNT)
    final_rate: float = setting(0.05, "share of the learning rate that is left at the end of the cosine", SHARE)
    weight_decay: float = setting(0.01, "AdamW's weight decay", Range(0, 10))
    gradient_clip: float = setting(1.0, "largest gradient norm", Range(0, 10**6, above=True))
    seed: int = setting(0, "seed of weights and batches", Range(0, 2**31 - 1, whole=True))
    log_every: int = setting(20, "steps between lines of the log", STEPS)
    save_minutes: float = setting(5.0, "minutes between checkpoints", MINUTES)
    sample_minutes: float = setting(5.0, "minutes between grids of samples", MINUTES)
    resume: bool = setting(True, "go on from the folder's checkpoint where there is one")
    tracker: str = setting("csv", "csv, or tensorboard as well", TRACKERS)
    extra: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Cropping(Checked):
    """What a trainer sees of its images: crops first, then whole images."""

    crop: int = setting(
        64,
        "side of training crops, 0 for none; four of half the side cost what one image does",
        Range(0, 4096, whole=True),
    )
    whole_share: float = setting(0.25, "last share of the run, on whole images", SHARE)

    def at(self, progress: float, batch: int, side: int) -> tuple[int, int | None]:
        """How many images of `side` pixels a batch has at this share of the run, and the side of their crops."""
        if not self.crop:
            return batch, None
        if self.crop >= side or progress >= 1 - self.whole_share:
            return max(1, batch * self.crop**2 // side**2), None
        return batch, self.crop


@dataclass(frozen=True)
class CodecOptions(Cropping):
    """Shapes, loss weights and augmentation of a codec run."""

    encoder_widths: tuple[int, ...] = setting(
        (16, 32, 64, 64), "encoder's channels by scale; published: 32 64 128 256", WIDTH
    )
    decoder_channels: tuple[int, ...] = setting(
        (16, 24, 32, 48, 64, 64),
        "decoder's channels by level, multiples of 8; published: 32 32 64 128 256 512 512",
        EIGHTS,
    )
    decoder_layers: int = setting(1, "residual blocks of a decoder's level on the way down; published: 2", BLOCKS)
    attention_levels: int = setting(3, "deepest levels of the decoder with self-attention", LEVELS)
    unit: str = setting("posterior", "what an offset is measured in: posterior (as published) or latent", UNITS)
    vae_input: str = setting(
        "padded", "what the VAE sees: the picture with padded colours, or on grey (as published)", CHOICES["vae_input"]
    )
    layout: str = setting(
        "auto",
        "the files: separate (as for SD1.5 and SDXL), combined (as for Flux, with its order of channels), or auto: as"
        " the base with this VAE has them",
        CODEC_LAYOUTS,
    )
    reconstruction: float = setting(1.0, "weight of the reconstruction of alpha and colour", WEIGHT)
    identity: float = setting(1.0, "weight of the frozen VAE's picture staying as it is (harmlessness)", WEIGHT)
    penalty: float = setting(0.03, "weight of the mean squared offset, in latent deviations", WEIGHT)
    discriminator: float = setting(0.01, "weight of the PatchGAN, 0 for none", WEIGHT)
    adversarial_from: float = setting(0.5, "share of the run after which the PatchGAN joins", SHARE)
    soft_share: float = setting(0.5, "share of images with alpha times a smooth random field", SHARE)
    noise_share: float = setting(
        0.5, "share of images with latent noise, so that alpha survives a diffusion model", SHARE
    )
    turned_share: float = setting(0.5, "share of batches decoded in a random one of inference's orientations", SHARE)
    noise_limit: float = setting(0.3, "strongest latent noise, in latent deviations", Range(0, 100))
    free_channels_only: bool = setting(
        False,
        "offset only in latent channels that the VAE's decoder ignores (see --latent-noise of `train vae`): nothing is"
        " harmed, and steps are quicker",
    )
    freeze_encoder: bool = setting(
        False, "train the decoder alone, so that latents made with the encoder stay good; with --start"
    )
    prefix: str = setting("", "put before the names of the two files", Stem(0))


@dataclass(frozen=True)
class VaeShape(Checked):
    """Channels of the levels and residual blocks a level; 64 channels keep two a group, one would erase brightness."""

    channels: tuple[int, ...] = setting(
        (64, 64, 64, 64), "channels by level; every further level halves once more", GROUPED
    )
    blocks: int = setting(0, "residual blocks of a level on the way down; one more on the way up", LEVELS)
    latent_channels: int = setting(4, "latent channels", Range(1, 64, whole=True))


@dataclass(frozen=True)
class VaeOptions(Cropping):
    """What else an autoencoder is trained for."""

    latent_noise: tuple[float, ...] = setting(
        (0.1, 0.1, 0.1, 2.0),
        "noise on each latent channel, in its deviations: a decoder that bears noise leaves room for a transparency"
        " codec, and a channel under much noise is nearly all room",
        Range(0, 100),
    )
    decoder_only: bool = setting(
        False, "train the decoder alone, so that latents, and what was trained on them, stay good; with --start"
    )
    encoder_only: bool = setting(
        False, "train the encoder alone: it learns latents that the decoder, as it is, makes better of; with --start"
    )
    grow: int = setting(
        0,
        "residual blocks to add to each level of the VAE at --start; they do nothing at first",
        Range(0, 8, whole=True),
    )

    def __post_init__(self) -> None:
        """InputError where nothing would be left to train."""
        super().__post_init__()
        if self.decoder_only and self.encoder_only:
            raise InputError("--decoder-only and --encoder-only", "one of them", "leave one away")


@dataclass(frozen=True)
class ComposeOptions(Checked):
    """How things are put into scenes."""

    pictures: int = setting(200, "painted pictures of each scene", Range(1, 10**6, whole=True))
    smallest: float = setting(0.4, "smallest scale of a thing's square, in shares of the side", Range(0.05, 1))
    largest: float = setting(0.8, "largest scale", Range(0.05, 1))
    several_share: float = setting(0.25, "share of foregrounds of two or three things", SHARE)
    shadow_share: float = setting(0.5, "share of foregrounds with a contact shadow in their soft alpha", SHARE)
    shadow: float = setting(0.4, "darkness of those shadows", SHARE)
    light: float = setting(0.5, "how much the scene's light colours things, in the foreground too", SHARE)
    seed: int = setting(0, "seed of what stands where", Range(0, 2**31 - 1, whole=True))

    def __post_init__(self) -> None:
        """InputError where the smallest is the largest."""
        super().__post_init__()
        if self.smallest > self.largest:
            raise InputError(
                f"--smallest {self.smallest} --largest {self.largest}", "the smallest first", "exchange them"
            )


@dataclass(frozen=True)
class DenoisingOptions(Checked):
    """Loss, averaging and sample grids of whatever learns to denoise latents."""

    caption_dropout: float = setting(0.1, "share of images, or sets, without their captions, for guidance", SHARE)
    snr_gamma: float = setting(5.0, "min-SNR weighting's gamma, 0 for none", WEIGHT)
    average: float = setting(
        0.999, "decay of the averaged weights, which are what is sampled and exported", Range(0, 0.999999)
    )
    guidance: float = setting(1.5, "guidance of the sample grids", Range(0, 100))
    sample_steps: int = setting(20, "steps of the sample grids", Range(1, 1000, whole=True))


@dataclass(frozen=True)
class DiffusionOptions(DenoisingOptions):
    """What is tuned of a diffusion model, and its sample grids."""

    sample_prompts: tuple[str, ...] = setting((), "prompts of the sample grids; none: captions spread over the set")
    mode: str = setting("lora", "what is tuned: lora (attention's projections) or full (all weights)", TUNED)
    rank: int = setting(32, "rank of the low-rank layers; published: 256", WIDTH)
    layers: str = setting("all", "of Flux: all linear layers of its blocks, or those of attention", FLOW_LAYERS)
    trained_guidance: float = setting(1.0, "guidance that Flux.1 dev is told while it is tuned", Range(0, 100))
    checkpointing: bool = setting(False, "recompute activations: less memory, more time")
    name: str = setting("layer_transparent", "name of the offset file", Stem())
    begin: str = setting("", "file of offsets for this model, of mode lora, or for Flux a LoRA, to go on from")

    def __post_init__(self) -> None:
        """InputError where all weights are tuned and a file is to begin with."""
        super().__post_init__()
        if self.begin and self.mode != "lora":
            raise InputError(f"--begin with --mode {self.mode}", "--mode lora", "leave one of them out")


@dataclass(frozen=True)
class ControlOptions(DenoisingOptions):
    """Lines that a ControlNet learns to follow, and its figures."""

    caption_dropout: float = setting(0.2, "share of pictures without their caption, so that the lines must do", SHARE)
    subject_share: float = setting(0.5, "share of pictures that are shown with the lines of their subject alone", SHARE)
    stray_share: float = setting(0.3, "share of backgrounds shown with lines of a thing that is not asked for", SHARE)
    thick_share: float = setting(0.3, "share of drawings with thick lines, as made by hand", SHARE)
    blank_share: float = setting(0.05, "share of pictures without any line", SHARE)
    measured: int = setting(64, "pictures that the figures at the end are taken from", Range(1, 10**4, whole=True))
    name: str = setting("control_lines", "name of the ControlNet's file", Stem())


@dataclass(frozen=True)
class LayerOptions(DenoisingOptions):
    """Units, captions and sample grids of a run of layers."""

    method: str = setting(
        "joint",
        "by attention sharing joint (foreground, background, blended), fg2bg (given foreground: background, blended)"
        " or bg2fg (given background: foreground, blended); for SDXL fg2blend, bg2blend, fgblend2bg or bgblend2fg",
        LAYER_METHODS,
    )
    rank: int = setting(48, "rank of the low-rank layers, of each frame; published: 256", WIDTH)
    mode: str = setting("lora", "what is tuned for SDXL: lora (attention's projections) or full (all weights)", TUNED)
    checkpointing: bool = setting(False, "recompute activations: less memory, more time")
    control_channels: int = setting(48, "channels of the control signals; published: 256", EIGHTS)
    foreground: str = setting(
        "",
        "file of offsets for single transparent pictures of this model, as which the foreground begins",
    )
    own_captions: float = setting(
        0.5, "share of sets whose frames are asked for by their own captions; the others by the whole picture's", SHARE
    )
    sample_sets: int = setting(8, "sets of a sample grid, a row each", Range(1, 64, whole=True))
    preload: bool = setting(True, "keep latents, given pictures and encoded captions on the device")
    compile: bool = setting(False, "compile the UNet: minutes at the start, then quicker steps")
    name: str = setting("", "name of the file; none: the method's usual one", Stem(0))
    begin: str = setting("", "file of this method for this model to go on from, of the same shape")


@dataclass(frozen=True)
class UNetShape(Checked):
    """Channels of the levels (multiples of `head`), residual blocks a level, and where attention is."""

    channels: tuple[int, ...] = setting((64, 128, 128), "UNet's channels by level", GROUPED)
    blocks: int = setting(1, "residual blocks of a UNet's level on the way down; one more on the way up", BLOCKS)
    head: int = setting(32, "channels of an attention head", Range(4, 512, whole=True))
    context: int = setting(128, "width of the text encoder", Range(4, 4096, whole=True, multiple=4))
    attention_at_first: bool = setting(False, "attention at the first, widest level too: layers follow finer shapes")

    def __post_init__(self) -> None:
        """InputError where a width does not hold whole heads."""
        super().__post_init__()
        if any(width % self.head for width in self.channels):
            raise InputError(
                f"--channels {' '.join(map(str, self.channels))} with --head {self.head}",
                "multiples of the width of a head",
                "choose another --head, or other --channels",
            )
