"""What puts transparency into latents of a diffusers pipeline and finds it: a codec's networks, or an RGBA autoencoder.

An RGBA autoencoder has four channels in and out, red, green, blue and alpha, straight and all in [-1,1]; it needs no
network beside it and one pass (arXiv 2507.09308).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..core.bases import BASES
from ..core.codec.codec import TransparencyCodec, VaeLatent
from ..core.codec.decoding import Progress
from ..core.codec.reading import read_codec
from ..core.errors import WeightsError
from ..core.files.codec_parts import DECODER, ENCODER, prefix_of
from ..core.files.state_check import state_differences
from ..core.files.weights import WeightFile, keep_latest, read_header, stamp
from ..files.layer_choice import Files

RGBA_PARTS = "rgba"
CHANNELS = 4


class RgbaVae:
    """A diffusers AutoencoderKL of four channels."""

    def __init__(self, vae: Any):
        self.vae = vae

    def encode(self, rgba: torch.Tensor) -> VaeLatent:
        """RGBA [B,4,H,W] in [0,1] -> the posterior's mean [B,C,h,w] float32."""
        picture = (rgba * 2 - 1).to(self.vae.device, self.vae.dtype)
        return VaeLatent(self.vae.encode(picture).latent_dist.mean.float())

    def decode(self, latent: VaeLatent, progress: Progress = lambda done, total: None) -> torch.Tensor:
        """Latents [B,C,h,w] -> RGBA [B,4,H,W] float32 in [0,1], one picture at a time to save memory."""
        rows = latent.values.to(self.vae.device, self.vae.dtype).split(1)
        pictures = []
        for row in rows:
            pictures.append(self.vae.decode(row, return_dict=False)[0].float().div(2).add(0.5).clamp(0, 1))
            progress(len(pictures), len(rows))
        return torch.cat(pictures)


class Codecs:
    """What a pipeline of a base has read, the last of each kind; `dtype` tells the numbers of its network."""

    def __init__(self, pipeline: Any, base: str, dtype: Callable[[], torch.dtype]):
        self.pipeline, self.base, self.dtype = pipeline, base, dtype
        self._kept: dict[str, tuple[tuple, Any]] = {}

    def decoder(self, files: Files) -> TransparencyCodec:
        """The transparency decoder among files, kept until another is wanted."""
        path, rule = files.find(BASES[self.base].decoder), BASES[self.base].codec.rule

        def read() -> TransparencyCodec:
            check_decoder(path, self.pipeline.vae.config.latent_channels)
            return read_codec(path, DECODER, rule, self.pipeline.device, self.dtype())

        return keep_latest(self._kept, DECODER, stamp(path), read)

    def encoder(self, files: Files) -> TransparencyCodec:
        """The transparency encoder among files with its rule, kept until another is wanted; float32."""
        path, rule = files.find(BASES[self.base].encoder), BASES[self.base].codec.rule
        device = self.pipeline.device
        return keep_latest(self._kept, ENCODER, stamp(path), lambda: read_codec(path, ENCODER, rule, device))

    def rgba_vae(self, files: Files, stem: str) -> RgbaVae:
        """The RGBA autoencoder of a stem, kept until another is wanted."""
        path = files.find(stem)
        return keep_latest(self._kept, RGBA_PARTS, stamp(path), lambda: read_rgba_vae(path, self.pipeline.vae))


def read_rgba_vae(path: Path, vae: Any) -> RgbaVae:
    """The autoencoder of a file, like a pipeline's own but for its channels; WeightsError where it is another one."""
    import diffusers

    config = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    config |= {"in_channels": CHANNELS, "out_channels": CHANNELS}
    with WeightFile(path) as file:
        with torch.device("meta"):
            network = diffusers.AutoencoderKL(**config)
        check_shapes(path, {key: tuple(value.shape) for key, value in network.state_dict().items()}, file.shapes)
        network.load_state_dict(file.tensors(), assign=True)
    return RgbaVae(network.to(vae.device, vae.dtype).eval().requires_grad_(False))


def check_shapes(path: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """WeightsError unless a file has the tensors of an RGBA autoencoder."""
    differences = state_differences(wanted, found)
    if differences:
        raise WeightsError(
            f"{path}, which is something else ({differences})",
            "an autoencoder like this model's with four channels in and out, under diffusers' names",
            "put the vae/diffusion_pytorch_model.safetensors of AlphaVAE for this base in its place",
        )


def check_decoder(path: Path, channels: int) -> None:
    """WeightsError when a decoder is made for another number of latent channels; other faults its reader names."""
    shapes = read_header(path)[1]
    shape = shapes.get(f"{prefix_of(shapes, DECODER)}latent_conv_in.weight", (0, channels))
    if shape[1:2] != (channels,):
        raise WeightsError(
            f"{path}, a decoder for {shape[1]} latent channels",
            f"one for the {channels} of this model's VAE",
            "put the decoder of this base in its place",
        )
