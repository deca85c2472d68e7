"""Hidden colours, under alpha 0: no viewer shows them, but every file carries them, and some programs blend them in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from ..errors import InputError
from .alpha import least_alpha, pad_rgb

PADDED, AS_DECODED, CLEARED = "padded", "as-decoded", "cleared"


def _padded(rgba: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """A smooth continuation of the visible colours: nothing bleeds in where the picture is made smaller or blurred."""
    return (pad_rgb(rgba)[hidden] * 255).round()


def _cleared(rgba: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Black: the smallest files."""
    return np.zeros((hidden.sum(), 3))


RULES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray] | None] = {
    PADDED: _padded,
    AS_DECODED: None,
    CLEARED: _cleared,
}


def with_hidden_colours(image: Image.Image, rule: str = PADDED) -> Image.Image:
    """A PIL RGBA image whose colours under alpha 0 follow the rule; all that is visible stays to the level.

    InputError for an unknown rule.
    """
    if rule not in RULES:
        raise InputError(f"hidden colours {rule!r}", f"one of: {', '.join(RULES)}", "choose one of them")
    make = RULES[rule]
    if make is None or image.mode != "RGBA" or least_alpha(image) > 0:
        return image
    pixels = np.array(image)
    hidden = pixels[..., 3] == 0
    pixels[hidden, :3] = make(pixels, hidden)
    result = Image.fromarray(pixels)
    result.info = dict(image.info)
    return result
