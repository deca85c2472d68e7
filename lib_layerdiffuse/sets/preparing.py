"""What is done to layers before they are written: trimming, padding, sides as engines want them, premultiplying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..core.errors import InputError
from ..core.picture.alpha import TRIM_THRESHOLD, trim_box
from ..core.picture.hidden import with_hidden_colours
from ..core.picture.sizes import MOST_SIDE
from .layer_set import Box, Layer, LayerSet

MOST_PADDING = 256  # pixels
AS_IT_IS = "as-it-is"


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
    threshold: int = TRIM_THRESHOLD
    padding: int | None = None
    shape: str = AS_IT_IS
    premultiplied: bool = False
    recomposite: bool = False
    keep_blended: bool = True

    def __post_init__(self):
        _check_whole("a trim threshold", self.threshold, 1, 255)
        if self.padding is not None:
            _check_whole("a padding", self.padding, 0, MOST_PADDING)
        if self.shape not in SHAPES:
            raise InputError(f"the shape {self.shape!r}", f"one of {', '.join(SHAPES)}", "choose one of them")


def prepared(layer_set: LayerSet, options: SaveOptions) -> LayerSet:
    """The set with its layers as they are to be saved; each keeps its place on the canvas."""
    return layer_set.with_layers([_prepared_layer(layer, options) for layer in layer_set])


def _prepared_layer(layer: Layer, options: SaveOptions) -> Layer:
    left, top, right, bottom = _content(layer, options)
    padding = options.padding or 0
    box = (left - padding, top - padding, right + padding, bottom + padding)
    cut = cropped(layer, _shaped(box, options.shape, layer))
    if padding or options.shape != AS_IT_IS:  # engines blend the colours beside the visible ones in
        cut = replace(cut, picture=with_hidden_colours(cut.picture))
    return cut


def _content(layer: Layer, options: SaveOptions) -> Box:
    """The part of a layer that is kept, in the picture's own pixels; one pixel where nothing is to be seen."""
    if not options.trim:
        return 0, 0, layer.width, layer.height
    return trim_box(layer.picture, options.threshold) or (0, 0, 1, 1)


def _shaped(box: Box, shape: str, layer: Layer) -> Box:
    left, top, right, bottom = box
    sides = SHAPES[shape]
    width, height = (right - left, bottom - top) if sides is None else sides(right - left, bottom - top)
    if max(width, height) > MOST_SIDE:
        raise InputError(f"{layer.title} of {width}x{height} pixels", f"sides of at most {MOST_SIDE}", "pad it less")
    return left, top, left + width, top + height


def cropped(layer: Layer, box: Box) -> Layer:
    """The layer cut, or widened with transparency, to a box in its picture's own pixels; it stays where it lies."""
    if box == (0, 0, layer.width, layer.height):
        return layer
    return replace(layer, picture=layer.picture.crop(box), left=layer.left + box[0], top=layer.top + box[1])


def premultiplied(picture: Image.Image) -> Image.Image:
    """RGBA with each colour times its alpha, rounded to the nearest level."""
    pixels = np.array(picture, dtype=np.uint16)
    pixels[..., :3] = (pixels[..., :3] * pixels[..., 3:] + 127) // 255
    return Image.fromarray(pixels.astype(np.uint8))


def _check_whole(what: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{what} of {value!r}", f"a whole number from {least} to {most}", "choose one in that range")
