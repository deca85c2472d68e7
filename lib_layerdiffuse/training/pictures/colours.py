"""One thing in other colours: the hue of its main colour is turned, all other colours stay.

A set shows most things in one colour only, so that a model reads "red" as a part of the name; with a few colours of the
same thing the word means something.
"""

from __future__ import annotations

import torch

from ...core.errors import InputError

# Hue in turns, and what saturation and value are multiplied by
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.985, 1.0, 1.0),
    "orange": (0.075, 1.05, 1.0),
    "yellow": (0.138, 1.05, 1.12),
    "green": (0.36, 1.0, 0.88),
    "blue": (0.605, 1.0, 1.0),
    "purple": (0.755, 0.95, 0.95),
    "pink": (0.92, 0.6, 1.1),
}
NEAR = 0.12  # turns from the main hue within which a pixel is of the main colour
LEAST_SATURATION = 0.18


def tinted(rgba: torch.Tensor, colour: str) -> torch.Tensor:
    """uint8 [4,S,S] with its main colour turned into `colour`; alpha stays.

    InputError for a colour that nobody knows.
    """
    if colour not in COLOURS:
        raise InputError(f"colour {colour!r}", f"one of {', '.join(COLOURS)}", "correct the vocabulary file")
    hue, saturation, value = to_hsv(rgba[:3].float() / 255)
    main = main_hue(hue, saturation * value * (rgba[3].float() / 255))
    distance = (hue - main + 0.5) % 1 - 0.5
    share = ((NEAR + 0.04 - distance.abs()) / 0.04).clamp(0, 1) * (saturation / LEAST_SATURATION).clamp(0, 1)
    target, more_saturation, more_value = COLOURS[colour]
    # the shades of a colour keep their places around the new hue, closer together
    turned = from_hsv((target + 0.5 * distance) % 1, (saturation * more_saturation).clamp(0, 1), value * more_value)
    mixed = (rgba[:3].float() / 255) * (1 - share) + turned.clamp(0, 1) * share
    return torch.cat([(mixed * 255).round().byte(), rgba[3:]])


def main_hue(hue: torch.Tensor, weight: torch.Tensor) -> float:
    """The hue [S,S] in turns that most of `weight` [S,S] lies near: 72 bins, smoothed by a triangle."""
    bins = torch.bincount((hue * 72).long().clamp(0, 71).flatten(), weights=weight.flatten(), minlength=72)
    smooth = torch.zeros_like(bins)
    for shift in range(-2, 3):
        smooth = smooth + (3 - abs(shift)) * bins.roll(shift)
    return (int(smooth.argmax()) + 0.5) / 72


def to_hsv(rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[3,S,S] in [0,1] to hue in turns, saturation and value, each [S,S]."""
    value, low = rgb.amax(0), rgb.amin(0)
    spread = (value - low).clamp(min=1e-6)
    red, green, blue = rgb
    sector = torch.where(
        value == red,
        ((green - blue) / spread) % 6,
        torch.where(value == green, (blue - red) / spread + 2, (red - green) / spread + 4),
    )
    return sector / 6 % 1, torch.where(value > 0, (value - low) / value.clamp(min=1e-6), value), value


def from_hsv(hue: torch.Tensor, saturation: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Hue in turns, saturation and value, each [S,S], to [3,S,S]."""
    offsets = torch.tensor([5.0, 3.0, 1.0])[:, None, None]
    place = (offsets + hue * 6) % 6
    return value - value * saturation * torch.minimum(place, 4 - place).clamp(0, 1)
