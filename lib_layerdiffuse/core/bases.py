"""The bases as rows: the latents of each, the files and the rule of its transparency codec, where files come from.

A new base is a row of `BASES` here and rows of `METHODS`; CONTRIBUTING.md, "Add a base", says what else asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import InputError, WeightsError

ARGB, RGBA = "argb", "rgba"
# what each part of a rule may be; codec.py has a function for each name
CHOICES = {"vae_input": ("grey", "padded"), "unit": ("posterior", "latent"), "channel_order": (ARGB, RGBA)}
SWITCHES = {"true": True, "false": False}
UNET, TRANSFORMER = "UNet", "transformer"
# kinds of transparency: networks beside the VAE, or a VAE of four channels in the place of its own
NETWORKS, RGBA_VAE = "networks", "RGBA VAE"


@dataclass(frozen=True)
class LatentSpace:
    """Latents [B,channels,H/factor,W/factor]; the sampler's are (the VAE's - shift_factor) * scale_factor."""

    scale_factor: float
    channels: int = 4
    factor: int = 8
    shift_factor: float = 0.0

    @property
    def base(self) -> str:
        """The base that has such latents; empty where none has."""
        return next((row.id for row in BASES.values() if row.latents.is_close(self)), "")

    def is_close(self, other: LatentSpace) -> bool:
        """Whether both are the same but for rounding."""
        sizes, scales = (self.channels, self.factor), (self.scale_factor, self.shift_factor)
        return sizes == (other.channels, other.factor) and all(
            map(math.isclose, scales, (other.scale_factor, other.shift_factor))
        )


@dataclass(frozen=True)
class CodecRule:
    """How transparency networks are used: what they see, in which order, and z = mean + unit * offset * offset_scale.

    `channel_order` is that of the encoder's input and the decoder's output; `clip_pixels`: whether decoded pixels are
    clipped to [0,1] before the decoder sees them.
    """

    vae_input: str = "grey"
    unit: str = "posterior"
    offset_scale: float = 1.0
    channel_order: str = ARGB
    clip_pixels: bool = True

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{getattr(self, name)!r}", "one of " + ", ".join(known), "choose one of them")
        if not math.isfinite(self.offset_scale):  # it would make every place of a latent one
            raise InputError(f"an offset_scale of {self.offset_scale}", "a finite number", "choose one, such as 1")

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None, default: CodecRule | None = None) -> CodecRule:
        """From a weight file's safetensors metadata; what it does not say is as in `default`, a base's own rule.

        WeightsError for what is not known.
        """
        metadata, default = metadata or {}, default or cls()
        said: dict[str, Any] = {name: metadata.get(name, getattr(default, name)) for name in CHOICES}
        try:
            return cls(
                **said,
                offset_scale=float(metadata.get("offset_scale", default.offset_scale)),
                clip_pixels=_switch(metadata.get("clip_pixels", default.clip_pixels)),
            )
        except ValueError as error:  # InputError is one too
            raise WeightsError(
                f"metadata that this version does not know ({error})",
                f"{', '.join(CHOICES)}, offset_scale and clip_pixels of a transparency network",
                "update this program, or download the file again",
            ) from error

    def metadata(self) -> dict[str, str]:
        """What a weight file should say of itself, `from_metadata` the other way round."""
        said = {name: getattr(self, name) for name in CHOICES}
        return {**said, "offset_scale": f"{self.offset_scale:g}", "clip_pixels": str(self.clip_pixels).lower()}


def _switch(value: str | bool) -> bool:
    if str(value).lower() not in SWITCHES:
        raise InputError(f"{value!r}", "true or false", "choose one of them")
    return SWITCHES[str(value).lower()]


@dataclass(frozen=True)
class CodecFiles:
    """The stems of a decoder's and an encoder's file, one where both are in it, and the rule that they follow.

    Metadata in a file itself go before the rule. An RGBA VAE follows none.
    """

    decoder: str
    encoder: str
    rule: CodecRule = field(default_factory=CodecRule)
    kind: str = NETWORKS


@dataclass(frozen=True)
class Hub:
    """A hub repository and the licence of its files; `names` are those that are called otherwise there."""

    repository: str
    licence: str
    names: Mapping[str, str] = field(default_factory=dict)

    def name_of(self, file_name: str) -> str:
        """What the repository calls the file that is `<stem>.safetensors` here."""
        return self.names.get(file_name, file_name)


@dataclass(frozen=True)
class Base:
    """A base model family.

    `orientations` is how many of the decoder's orientations are worth a vote: the demo model's decoder is best upright.
    `network` is what denoises. `hub` has the files that this program may fetch; `shipped`: they come with this package.
    """

    id: str
    title: str
    latents: LatentSpace
    codec: CodecFiles
    network: str = UNET
    orientations: int = 8
    hub: Hub | None = None
    shipped: bool = False

    @property
    def decoder(self) -> str:
        """File stem of the transparency decoder."""
        return self.codec.decoder

    @property
    def encoder(self) -> str:
        """File stem of the transparency encoder."""
        return self.codec.encoder

    @property
    def is_flow_matching(self) -> bool:
        """Whether it was trained by flow matching, which few samplers are made for."""
        return self.network == TRANSFORMER

    @property
    def scale_factor(self) -> float:
        """Factor between the VAE's latents and the sampler's."""
        return self.latents.scale_factor


SD_HUB = Hub("LayerDiffusion/layerdiffusion-v1", "creativeml-openrail-m")
FLUX_HUB = Hub("RedAIGC/Flux-version-LayerDiffuse", "afl-3.0", {"TransparentVAE.safetensors": "TransparentVAE.pth"})
# of the files for Flux; their offsets are counted in three hundredths
FLUX_RULE = CodecRule(offset_scale=300.0, channel_order=RGBA, clip_pixels=False)
ALPHAVAE = CodecFiles("alphavae_flux_vae", "alphavae_flux_vae", kind=RGBA_VAE)

BASES = {
    base.id: base
    for base in (
        Base(
            "sd15",
            "SD1.5",
            LatentSpace(0.18215),
            CodecFiles("layer_sd15_vae_transparent_decoder", "layer_sd15_vae_transparent_encoder"),
            hub=SD_HUB,
        ),
        Base(
            "sdxl",
            "SDXL",
            LatentSpace(0.13025),
            CodecFiles("vae_transparent_decoder", "vae_transparent_encoder"),
            hub=SD_HUB,
        ),
        Base(
            "flux",
            "Flux",
            LatentSpace(0.3611, channels=16, shift_factor=0.1159),
            CodecFiles("TransparentVAE", "TransparentVAE", FLUX_RULE),
            network=TRANSFORMER,
            hub=FLUX_HUB,
        ),
        Base(
            "demo",
            "the demo model",
            LatentSpace(1.0),
            CodecFiles("demo_vae_transparent_decoder", "demo_vae_transparent_encoder"),
            orientations=1,
            shipped=True,
        ),
    )
}
