"""Pictures and names of a stack's layers: scaled, cut to a canvas, as large as painters want them."""

from __future__ import annotations

import numpy as np
from PIL import Image

STEP = 8  # pixels: latents come in steps of so many
LONGEST_TITLE = 60


def title_of(prompt: str, role: str) -> str:
    """The name of a painted layer: its prompt in one line, cut where it is long."""
    words = " ".join(prompt.split())
    text = words if len(words) <= LONGEST_TITLE else f"{words[: LONGEST_TITLE - 3].rstrip()}..."
    return text or role.capitalize()


def scaled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """RGBA at another size, colour weighted by alpha."""
    return picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


def filled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """RGBA scaled to cover a size and cut to it about the middle; itself where it has that size."""
    if picture.size == size:
        return picture
    factor = max(size[0] / picture.width, size[1] / picture.height)
    width, height = (min(side, wanted / factor) for side, wanted in zip(picture.size, size, strict=True))
    left, top = (picture.width - width) / 2, (picture.height - height) / 2
    box = (left, top, left + width, top + height)
    return picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS, box).convert("RGBA")


def rounded_up(picture: Image.Image) -> Image.Image:
    """RGBA whose sides are multiples of 8: the last row and column go on."""
    height, width = (-picture.height % STEP, -picture.width % STEP)
    if not height and not width:
        return picture
    return Image.fromarray(np.pad(np.asarray(picture), ((0, height), (0, width), (0, 0)), mode="edge"))
