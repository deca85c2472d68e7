"""UNets whose levels are no whole multiples of the first one's width: LDM's class counts in multiples alone.

The yaml beside such a checkpoint names `build_unet` in the place of LDM's class.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

LDM_MODULE = "ldm.modules.diffusionmodules.openaimodel"


class Factor:
    """A factor of a width, which gives whole numbers: 4/3 of 96 is 128."""

    def __init__(self, value: float):
        self.value = float(value)

    def __mul__(self, width: int) -> int:
        return round(self.value * width)

    __rmul__ = __mul__


def factors(widths: Sequence[int]) -> list[int | Factor]:
    """Each level's factor of the first width: a plain number where it is whole."""
    first = widths[0]
    return [Factor(width / first) if width % first else width // first for width in widths]


def build_unet(*, channel_mult: Sequence[float], **parameters: Any) -> Any:
    """LDM's UNetModel with factors of any size."""
    kind = importlib.import_module(LDM_MODULE).UNetModel
    return kind(channel_mult=[Factor(value) for value in channel_mult], **parameters)
