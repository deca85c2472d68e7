"""Rule R1: made-up weights that depend on nothing but a tensor's key, so that two implementations can be compared.

The golden numbers under data/golden are what the original modules give with weights and inputs made this way.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import torch

# (part of the file's name, part of the key, scale of weights with two dimensions or more): the first that fits
SCALES = (
    ("vae_transparent_encoder", "", 1.7),
    ("vae_transparent_decoder", "conv_out.", 0.3),
    ("vae_transparent_decoder", "", 1.0),
    ("layer_sd15_", "kwargs_encoder.", 1.7),
    ("layer_sd15_", "control_convs.", 1.0),
    ("layer_sd15_", "", 0.5),
)


def randn_for(key: str, shape: Sequence[int]) -> torch.Tensor:
    """Normal values [*shape] float32 from a generator seeded with the key's CRC-32."""
    generator = torch.Generator("cpu").manual_seed(zlib.crc32(key.encode("utf-8")))
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


def value(key: str, shape: Sequence[int], scale: float = 1.0) -> torch.Tensor:
    """Norm weights about 1, biases about 0, other weights scaled to keep their output's variance; float32."""
    shape = tuple(shape)
    values = randn_for(key, shape)
    if len(shape) == 1 and key.endswith(".weight"):
        return 1.0 + 0.1 * values
    if len(shape) <= 1:
        return 0.02 * values
    return values * (scale / math.sqrt(math.prod(shape[1:])))


def file_value(stem: str, key: str, shape: Sequence[int]) -> torch.Tensor:
    """The float16 value of one tensor of the layer file `stem`."""
    scale = next((scale for part, within, scale in SCALES if part in stem and within in key), 1.0)
    values = value(f"{stem}/{key}", shape, scale)
    brighter = "vae_transparent_decoder" in stem and key == "conv_out.bias"
    return (values + 0.5 if brighter else values).half()


def file_state(stem: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """All tensors of the layer file `stem` with these keys and shapes, float16."""
    return {key: file_value(stem, key, shape) for key, shape in shapes.items()}


def decoder_inputs(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the golden decoder was given: a picture [1,3,H,W] in [0,1] and a VAE-space latent [1,4,H/8,W/8]."""
    pixel = torch.sigmoid(randn_for(f"golden/decoder/pixel/{height}x{width}", (1, 3, height, width)))
    return pixel, randn_for(f"golden/decoder/latent/{height}x{width}", (1, 4, height // 8, width // 8))
