"""Whether a picture's alpha came out at all: how much of it is empty, in between and opaque, and what that says.

The limits were measured on the demo model: of its pictures of things, glass, fire and clouds among them, none is called
broken; of those without the method, or of a scene that fills the picture, nearly all are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .alpha import rgba_array

INVISIBLE, FAINT, SOLID, FULL = 2, 25, 230, 253  # alpha, of 255


@dataclass(frozen=True)
class AlphaFigures:
    """Shares of a picture's pixels, in [0,1]: invisible, clearly in between, opaque; and all that can be seen."""

    empty: float
    between: float
    opaque: float
    visible: float

    @classmethod
    def of(cls, picture: Image.Image | np.ndarray) -> AlphaFigures:
        """Of a PIL image of any kind, or uint8 [H,W,4]."""
        alpha = (rgba_array(picture) if isinstance(picture, Image.Image) else picture)[..., 3]
        shares = (alpha <= INVISIBLE, (alpha > FAINT) & (alpha < SOLID), alpha >= FULL, alpha > FAINT)
        return cls(*(share.mean().item() for share in shares))

    @property
    def verdict(self) -> Verdict | None:
        """What is wrong with such an alpha; None where it may well be meant."""
        return next((verdict for verdict in VERDICTS if verdict.holds(self)), None)

    def __str__(self) -> str:
        return f"empty {self.empty:.0%}, half transparent {self.between:.0%}, opaque {self.opaque:.0%}"


@dataclass(frozen=True)
class Verdict:
    """A way in which alpha fails: its name, when it holds, and a sentence for the user."""

    name: str
    holds: Callable[[AlphaFigures], bool]
    sentence: str


OPAQUE = Verdict(
    "opaque",
    lambda alpha: alpha.opaque >= 0.995,
    "The picture is opaque everywhere: it has no transparency.",
)
EMPTY = Verdict(
    "empty",
    lambda alpha: alpha.visible <= 0.0005,
    "The picture is transparent everywhere: nothing of it will be visible.",
)
HAZE = Verdict(
    "haze",
    lambda alpha: alpha.empty < 0.2 and alpha.between > 0.6,
    "The picture's alpha is a haze: half transparent nearly everywhere.",
)
VERDICTS = (OPAQUE, EMPTY, HAZE)
