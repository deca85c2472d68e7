"""The latent transparency codec: RGBA pictures into a VAE's latents, and latents with their decoded pixels into RGBA.

Latents here are always VAE-space. A sampler's latents are those shifted and scaled (`LatentSpace` of a base), and
decoding them as they are gives wrong alpha without any error; so `decode` takes a `VaeLatent` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from ..bases import CodecRule
from ..errors import InputError
from ..picture.alpha import composite_on_grey, pad_rgb
from .decoder import TransparencyUNet
from .decoding import OVERSHOOT, Progress, TransparencyDecoder, ordered, reflect
from .encoder import OffsetEncoder

# an image [B,3,H,W] in [-1,1] -> mean and standard deviation of the frozen VAE's posterior, both VAE-space [B,C,h,w]
Posterior = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

Part = TypeVar("Part")


@dataclass(frozen=True)
class VaeLatent:
    """A latent [B,C,h,w] as the VAE encodes and decodes it: the sampler's, freed of its scale and shift."""

    values: torch.Tensor

    def to_sampler_space(self, scale_factor: float, shift_factor: float = 0.0) -> torch.Tensor:
        """What a diffusion model works on."""
        return (self.values - shift_factor) * _positive(scale_factor)


def to_vae_space(sampler_latent: torch.Tensor, scale_factor: float, shift_factor: float = 0.0) -> VaeLatent:
    """A sampler's latent [B,C,h,w] -> VAE space; scale and shift are those of a base's LatentSpace, or the VAE's."""
    return VaeLatent(sampler_latent / _positive(scale_factor) + shift_factor)


def _positive(scale_factor: float) -> float:
    if not scale_factor > 0:
        raise InputError(
            f"a scale factor of {scale_factor}", "a number above 0", "take it from the VAE's configuration"
        )
    return scale_factor


# what the frozen VAE sees of RGBA [B,4,H,W], in [-1,1]
VAE_INPUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "grey": lambda rgba: composite_on_grey(rgba) * 2 - 1,
    "padded": lambda rgba: padded_rgb(rgba) * 2 - 1,
}
POINTWISE = ("grey",)  # those that look at each pixel alone
# what one unit of offset is worth, by the posterior's standard deviation
UNITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "posterior": lambda deviation: deviation,
    "latent": torch.ones_like,
}


class TransparencyCodec:
    """Encoder, decoder (either may be absent) and the rule that they were trained with; the decoder follows it too."""

    def __init__(
        self,
        encoder: OffsetEncoder | None = None,
        decoder: TransparencyDecoder | None = None,
        rule: CodecRule | None = None,
    ):
        self._encoder, self._decoder, self.rule = encoder, decoder, rule or CodecRule()

    @classmethod
    def from_state_dicts(
        cls,
        encoder: Mapping[str, torch.Tensor] | None = None,
        decoder: Mapping[str, torch.Tensor] | None = None,
        rule: CodecRule | Mapping[str, str] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> TransparencyCodec:
        """From the contents of the weight files and their rule, or the metadata that say it."""
        rule = rule if isinstance(rule, CodecRule) else CodecRule.from_metadata(rule)
        network = OffsetEncoder.from_state_dict(encoder).to(device) if encoder is not None else None
        level = network.factor.bit_length() - 1 if network is not None else None
        unet = TransparencyUNet.from_state_dict(decoder, level) if decoder is not None else None
        ready = TransparencyDecoder(unet, device, dtype, rule) if unet is not None else None
        return cls(network, ready, rule)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TransparencyCodec:
        """Moves its networks to `device`, the decoder also to `dtype`; the encoder stays as exact as it is."""
        if self._encoder is not None:
            self._encoder.to(device)
        if self._decoder is not None:
            self._decoder = TransparencyDecoder(self._decoder.network, device, dtype, self._decoder.rule)
        return self

    @property
    def encoder(self) -> OffsetEncoder:
        return _present(self._encoder, "encoder")

    @property
    def decoder(self) -> TransparencyDecoder:
        return _present(self._decoder, "decoder")

    @torch.no_grad()
    def offset(self, rgba: torch.Tensor) -> torch.Tensor:
        """RGBA [B,4,H,W] in [0,1] -> the encoder's raw offset [B,C,ceil(H/f),ceil(W/f)], in units."""
        _check_rgba(rgba)
        weight = next(self.encoder.parameters())
        padded = torch.cat([padded_rgb(rgba), rgba[:, 3:]], dim=1)
        return self.encoder(ordered(padded, self.rule.channel_order).to(weight)).float()

    @torch.no_grad()
    def encode(self, rgba: torch.Tensor, posterior: Posterior) -> VaeLatent:
        """RGBA [B,4,H,W] in [0,1] -> adjusted latent [B,C,ceil(H/f),ceil(W/f)] float32; any size.

        InputError where the VAE's latents are of another shape than the encoder's.
        """
        _check_rgba(rgba)
        factor = self.encoder.factor
        H, W = (-(-side // factor) * factor for side in rgba.shape[-2:])
        seen = reflect(self.seen(rgba), H, W)
        offset = self.offset(reflect(rgba, H, W))
        mean, deviation = (part.to(offset.device, torch.float32) for part in posterior(seen))
        if mean.shape != offset.shape:
            raise InputError(
                f"a VAE latent {list(mean.shape)}",
                f"{list(offset.shape)}, as the encoder gives",
                "use the transparency encoder made for this VAE",
            )
        return VaeLatent(self.adjusted(mean, deviation, offset))

    def adjusted(self, mean: torch.Tensor, deviation: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """A posterior's mean and deviation [B,C,h,w] and the encoder's raw offset -> the adjusted latent."""
        return mean + UNITS[self.rule.unit](deviation) * offset.to(mean) * self.rule.offset_scale

    def seen(self, rgba: torch.Tensor) -> torch.Tensor:
        """RGBA [B,4,H,W] in [0,1] -> what the VAE is given of it, [B,3,H,W] in [-1,1]."""
        return VAE_INPUTS[self.rule.vae_input](rgba)

    def seen_pixels(self, pixel: torch.Tensor) -> torch.Tensor:
        """A VAE's pixels [B,3,H,W], about [0,1], as the decoder may see them: clipped, or with what overshoots."""
        return pixel.clamp(0, 1) if self.rule.clip_pixels else pixel.clamp(-OVERSHOOT, 1 + OVERSHOOT)

    def decode(
        self,
        pixel: torch.Tensor,
        latent: VaeLatent,
        passes: int = 8,
        chunk: int | None = None,
        progress: Progress | None = None,
    ) -> torch.Tensor:
        """Decoded pixels [B,3,H,W], about [0,1], and their VaeLatent -> RGBA [B,4,H,W] float32 in [0,1].

        Options as in TransparencyDecoder.decode. InputError for a latent whose space is not said.
        """
        if not isinstance(latent, VaeLatent):
            raise InputError(
                f"a {type(latent).__name__} whose space nobody has named",
                "a VaeLatent",
                "wrap a VAE's latent in VaeLatent(...), a sampler's in to_vae_space(..., scale_factor)",
            )
        return self.decoder.decode(pixel, latent.values, passes, chunk, progress)


def padded_rgb(rgba: torch.Tensor) -> torch.Tensor:
    """`pad_rgb` of every picture: [B,4,H,W] in [0,1] -> float32 [B,3,H,W]; rounded to 8 bits first."""
    levels = rgba.detach().float().cpu().mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    padded = np.stack([pad_rgb(picture) for picture in levels])
    return torch.from_numpy(padded).permute(0, 3, 1, 2).to(rgba.device)


def _present(part: Part | None, name: str) -> Part:
    if part is None:
        raise InputError(f"a codec without {name}", f"one with {name}", f"load the transparency {name}'s weights too")
    return part


def _check_rgba(rgba: torch.Tensor) -> None:
    if rgba.ndim != 4 or rgba.shape[1] != 4 or 0 in rgba.shape:
        raise InputError(f"a tensor {list(rgba.shape)}", "RGBA [B,4,H,W]", "use to_tensor to read images")
    if not torch.isfinite(rgba).all() or rgba.min() < 0 or rgba.max() > 1:
        raise InputError("values outside of [0,1]", "RGBA in [0,1]", "divide 8-bit values by 255")
