"""Cutting an opaque picture by the alpha of another one of the same shape; its background is taken out of edges.

What lies behind a half transparent pixel is estimated: the colours of the wholly transparent part, smoothly continued.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..errors import InputError
from .alpha import pad_rgb
from .verdicts import FAINT, INVISIBLE

LEAST_SHARE = 0.02  # of the picture, that shows the background, or it is not known


def fitted(alpha: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Alpha uint8 [h,w] at a size (H, W); InputError for other proportions, by more than a hundredth."""
    height, width = size
    if abs(alpha.shape[1] * height / (alpha.shape[0] * width) - 1) > 0.01:
        got = f"an alpha of {alpha.shape[1]}x{alpha.shape[0]} for a picture of {width}x{height}"
        raise InputError(got, "the same proportions", "paint both at one size")
    if alpha.shape == (height, width):
        return alpha
    return np.array(Image.fromarray(alpha).resize((width, height), Image.Resampling.BICUBIC))


def cut(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Uint8 [H,W,3] and alpha uint8 [H,W] -> uint8 [H,W,4]: picture = alpha * colour + (1 - alpha) * background.

    Where too little of the background can be seen, and where alpha is faint, colours are those of the picture.
    InputError for sizes that differ.
    """
    if picture.shape[:2] != alpha.shape:
        got = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (picture.shape, alpha.shape))
        raise InputError(f"a picture and an alpha of {got}", "one size", "bring them to one size")
    colours, clear = picture.astype(np.float32) / 255, alpha <= INVISIBLE
    if clear.mean() >= LEAST_SHARE:
        ground = pad_rgb(np.dstack([picture, np.where(clear, 255, 0).astype(np.uint8)]))
        share = np.maximum(alpha, FAINT)[..., None] / np.float32(255)
        solved = (colours - (1 - share) * ground) / share
        colours = np.where((alpha > INVISIBLE)[..., None], solved, colours).clip(0, 1)
    return np.dstack([(colours * 255).round().astype(np.uint8), alpha])
