"""From final latents and decoded pixels to RGBA pictures, and their alpha put on what other scripts made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...core.bases import BASES
from ...core.codec.codec import TransparencyCodec
from ...core.errors import InputError, LayerDiffuseError
from ...core.memory import is_out_of_memory
from ...core.picture.alpha import from_tensor
from ...core.picture.alpha_care import care_for
from ..host.modules import host_module
from .networks import default_dtype
from .run import Run


@dataclass(frozen=True)
class Layer:
    """One finished picture of a job: its frame, the pixels as the VAE decoded them, and RGBA where it has alpha."""

    frame: str
    opaque: Image.Image
    rgba: Image.Image | None


@dataclass(frozen=True)
class ClearLayer(Layer):
    """A layer that has alpha."""

    rgba: Image.Image


def clear(layer: Layer | None) -> ClearLayer | None:
    """The layer where it has alpha; None for any other."""
    return None if layer is None or layer.rgba is None else ClearLayer(layer.frame, layer.opaque, layer.rgba)


def decode_batch(run: Run, pixels: list[torch.Tensor], latents: torch.Tensor) -> list[Layer]:
    """The layers of a batch: pixels as [3,H,W] in [0,1], latents [B,4,h,w] in the sampler's scale."""
    codec = ready_decoder(run) if run.method.transparent_frames else None
    layers = []
    for place, picture in enumerate(pixels):
        opaque = Image.fromarray((picture.float().cpu().numpy().transpose(1, 2, 0) * 255).astype(np.uint8))
        rgba = None
        if codec is not None and run.method.is_transparent(place):
            rgba = decode_one(run, codec, (picture[None], latents[place : place + 1]))
        layers.append(Layer(run.method.frame_of(place), opaque, rgba))
    return layers


def ready_decoder(run: Run) -> TransparencyCodec:
    """The transparency decoder where the WebUI computes."""
    codec = run.request.networks.decoder(run.files, run.method.base)
    device = run.host.device
    size = sum(weight.nbytes for weight in codec.decoder.network.parameters())
    run.host.make_room(2 * size)
    precision = None if run.request.options.precision == "auto" else getattr(torch, run.request.options.precision)
    return codec.to(device, precision or default_dtype(device))


def decode_one(run: Run, codec: TransparencyCodec, picture: tuple[torch.Tensor, torch.Tensor]) -> Image.Image | None:
    """RGBA of one picture (pixels [1,3,H,W], latent [1,4,h,w]); None, and a note, where memory does not suffice."""
    pixels, latent = picture
    state = host_module("shared").state

    def progress(done: int, total: int) -> None:
        state.textinfo = f"Decoding transparency: {done} of {total}"

    try:
        device = codec.decoder.device
        space = run.host.vae_space(latent.to(device), run.method.base)
        rgba = codec.decode(pixels.float().to(device), space, passes_of(run), progress=progress)
    except (LayerDiffuseError, RuntimeError) as error:
        if not isinstance(error, LayerDiffuseError) and not is_out_of_memory(error):
            raise
        run.request.note(f"the transparency could not be decoded, and the picture is the opaque one: {error}")
        return None
    return from_tensor(with_care(run, rgba, pixels))[0]


def with_care(run: Run, rgba: torch.Tensor, opaque: torch.Tensor) -> torch.Tensor:
    """RGBA [1,4,H,W] with the repairs of the settings page; as it was, and a note, where one of them fails."""
    care = run.request.options.care
    if not care:
        return rgba
    try:
        return care_for(rgba, opaque.to(rgba), care)
    except (LayerDiffuseError, RuntimeError) as error:
        run.request.note(f"alpha care was left out: {error}")
        return rgba


def passes_of(run: Run) -> int:
    """Orientations to decode: the settings' choice goes before the job's, and the base has a most useful number."""
    return min(run.request.options.passes or run.arguments.passes, BASES[run.method.base].orientations)


def check_latents(latents: Any, count: int) -> torch.Tensor:
    """The latents as a tensor [count,C,h,w]; InputError where a script took or changed them."""
    if not isinstance(latents, torch.Tensor) or len(latents) != count:
        have = len(latents) if isinstance(latents, torch.Tensor) else "no"
        raise InputError(
            f"{have} latents for {count} pictures",
            "one latent for each picture",
            "switch off scripts that add pictures to a batch or skip the sampling",
        )
    return latents
