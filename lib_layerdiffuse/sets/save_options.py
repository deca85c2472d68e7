"""How layer sets are saved: kinds of files, and what is done to layers before. No torch here: help comes at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..core.errors import InputError

MOST_PADDING = 256  # pixels
AS_IT_IS = "as-it-is"
VISIBLE = 16  # of 255, as in core.picture.alpha, which takes its time to be imported
KINDS = {
    "psd": "Photoshop (PSD)",
    "ora": "OpenRaster",
    "zip": "ZIP of PNG files",
    "webp": "WebP files",
    "sprites": "sprite sheet",
}
DEFAULT = "psd"


def _squared(width: int, height: int) -> tuple[int, int]:
    side = max(width, height)
    return side, side


def _powers(width: int, height: int) -> tuple[int, int]:
    return 1 << (width - 1).bit_length(), 1 << (height - 1).bit_length()


SHAPES: dict[str, Callable[[int, int], tuple[int, int]] | None] = {
    AS_IT_IS: None,
    "square": _squared,
    "power-of-two": _powers,
}


@dataclass(frozen=True)
class SaveOptions:
    """How layers are saved; None stands for what the format is best at.

    `trim` cuts each layer to its pixels with an alpha of at least `threshold` of 255, `padding` is the width in pixels
    of a transparent border in the colours next to it, `shape` adds such pixels on the right and below.
    """

    trim: bool | None = None
    threshold: int = VISIBLE
    padding: int | None = None
    shape: str = AS_IT_IS
    premultiplied: bool = False
    recomposite: bool = False
    keep_blended: bool = True

    def __post_init__(self):
        _check_whole("a trim threshold", self.threshold, 1, 255)
        if self.padding is not None:
            _check_whole("a padding", self.padding, 0, MOST_PADDING)
        for name in ("trim", "premultiplied", "recomposite", "keep_blended"):
            if not isinstance(getattr(self, name), (bool, type(None) if name == "trim" else bool)):
                raise InputError(f"{name} {str(getattr(self, name))[:60]!r}", "True or False", "choose one of them")
        if not isinstance(self.shape, str) or self.shape not in SHAPES:
            raise InputError(f"the shape {str(self.shape)[:60]!r}", f"one of {', '.join(SHAPES)}", "choose one of them")


def _check_whole(what: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(
            f"{what} of {str(value)[:60]!r}", f"a whole number from {least} to {most}", "choose one in that range"
        )
