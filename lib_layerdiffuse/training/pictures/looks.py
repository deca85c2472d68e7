"""Soft alpha for things that are see-through in life but drawn opaque in icon sets: mist, glass, glow.

Each look maps one RGBA image (float [4,S,S], straight, [0,1], colour already padded) to a new alpha [1,S,S], never
above the old one; colour stays. Vocabulary files name a look for each concept that has one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ...core.errors import InputError


def mist(rgba: torch.Tensor) -> torch.Tensor:
    """Dense in the middle, thinning out towards the edge (clouds, fog, smoke)."""
    alpha = rgba[3:]
    size = alpha.shape[-1]
    depth = alpha
    for radius in (size // 32, size // 16, size // 10):
        depth = depth * blur(alpha, 2 * radius + 1)
    return alpha * (0.12 + 0.88 * depth.clamp(0, 1))


def glass(rgba: torch.Tensor) -> torch.Tensor:
    """Clear where the picture is pale and flat, solid where it is colourful, dark or at the rim (glass, ice, water)."""
    colour, alpha = rgba[:3], rgba[3:]
    saturation = (colour.amax(0, keepdim=True) - colour.amin(0, keepdim=True)).clamp(0, 1)
    highlight = (colour.mean(0, keepdim=True) - blur(colour.mean(0, keepdim=True), 17)).clamp(min=0) * 4
    rim = 1 - blur(alpha, 9)
    return alpha * (0.22 + 0.5 * saturation + 0.5 * highlight + 0.9 * rim).clamp(0.22, 1)


def clear(rgba: torch.Tensor) -> torch.Tensor:
    """Like glass that is full, or seen against the light: half of it stays."""
    return (rgba[3:] + glass(rgba)) / 2


def glow(rgba: torch.Tensor) -> torch.Tensor:
    """As solid as it is bright and warm in the middle, thin at the tips (fire, rainbows, comets)."""
    alpha = rgba[3:]
    value = rgba[:3].amax(0, keepdim=True)
    return alpha * (0.3 + 0.7 * blur(alpha, 21).square() * value).clamp(0, 1)


def fade(rgba: torch.Tensor) -> torch.Tensor:
    """Fades out downwards, never wholly opaque (ghosts)."""
    alpha = rgba[3:]
    height = torch.linspace(0, 1, alpha.shape[1])[None, :, None]
    return alpha * (0.92 - 0.72 * ((height - 0.35) / 0.6).clamp(0, 1))


LOOKS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mist": mist,
    "glass": glass,
    "clear": clear,
    "glow": glow,
    "fade": fade,
}


def apply_look(rgba: torch.Tensor, look: str) -> torch.Tensor:
    """uint8 [4,S,S] with the alpha of `look`; `plain` leaves the image as it is.

    InputError for a look that nobody knows.
    """
    if look == "plain":
        return rgba
    if look not in LOOKS:
        raise InputError(f"look {look!r}", f"one of plain, {', '.join(LOOKS)}", "correct the vocabulary file")
    pixels = rgba.float() / 255
    alpha = LOOKS[look](pixels)
    return torch.cat([rgba[:3], (alpha * 255).round().clamp(0, 255).byte()])


def blur(image: torch.Tensor, width: int) -> torch.Tensor:
    """Mean over `width` x `width` pixels, twice; [C,S,S], edges repeated."""
    for _ in range(2):
        padded = F.pad(image[None], [width // 2] * 4, mode="replicate")
        image = F.avg_pool2d(padded, width, stride=1)[0]
    return image
