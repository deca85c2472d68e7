"""What is done to layers before they are written: trimming, padding, sides as engines want them, premultiplying."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from ..core.errors import InputError
from ..core.picture.alpha import trim_box
from ..core.picture.hidden import with_hidden_colours
from ..core.picture.sizes import MOST_SIDE
from .layer_set import Box, Layer, LayerSet
from .save_options import AS_IT_IS, SHAPES, SaveOptions


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
