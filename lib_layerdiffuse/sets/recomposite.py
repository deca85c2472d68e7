"""Recomposite: the foreground's colours solved anew, so that any editor blends the layers to the set's blended picture.

Background B, alpha a and blended C in 8 bits: rint((255 C - B (255 - a)) / a) blends to C exactly wherever C is a
composite. A model's C need not be one; there the nearest colours are taken, the alpha stays, and what remains is told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from .layer_set import Layer, LayerSet

SOLVED = "{} (recomposited)"
NEAR = 2  # of 255: a difference that nobody sees


@dataclass(frozen=True)
class Recomposite:
    """A set whose visible layers blend to its picture to so many decibels; infinite where they do exactly."""

    layer_set: LayerSet
    note: str
    decibels: float | None = None
    decibels_before: float | None = None


def recomposited(layer_set: LayerSet) -> Recomposite:
    """The set with its top layer solved anew above the old one, which is hidden; the old set where it cannot be."""
    blended, shown = layer_set.blended, layer_set.visible
    if blended is None:
        return Recomposite(layer_set, "not recomposited: the set has no blended picture")
    if len(shown) < 2:
        return Recomposite(layer_set, "not recomposited: it takes a background and a layer on it")
    top = shown[-1]
    below = layer_set.with_layers(shown[:-1])
    if not below.is_opaque:
        return Recomposite(layer_set, f"not recomposited: what lies below {top.title} is not opaque")
    wanted = np.asarray(blended)[..., :3].astype(np.float64)
    ground = np.asarray(below.composite())[..., :3].astype(np.float64)
    before, solved = _solved(top, ground, wanted)
    after = _over(ground, solved)
    layers = layer_set.layers
    if solved is not top:
        layers = [part for layer in layers for part in ((_hidden(layer), solved) if layer is top else (layer,))]
    figures = _decibels(after, wanted), _decibels(before, wanted)
    return Recomposite(layer_set.with_layers(layers), _note(after, before, wanted), *figures)


def _hidden(layer: Layer) -> Layer:
    return replace(layer, visible=False)


def _solved(layer: Layer, ground: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, Layer]:
    """The composite before, and the layer with other colours where it did not give `wanted`; itself where it did."""
    before = _over(ground, layer)
    rows, columns, pixels = _window(layer, ground.shape)
    alpha = pixels[..., 3:] / 255 * layer.opacity
    wrong = (before[rows, columns] != wanted[rows, columns]).any(axis=-1) & (alpha[..., 0] > 0)
    if not wrong.any():
        return before, layer
    share = alpha[wrong]
    colour = (wanted[rows, columns][wrong] - ground[rows, columns][wrong] * (1 - share)) / share
    picture = np.array(layer.picture)
    part = picture[_inside(layer, ground.shape)]
    part[wrong, :3] = np.rint(colour.clip(0, 255))
    return before, replace(layer, name=SOLVED.format(layer.name)[:1000], picture=Image.fromarray(picture))


def _over(ground: np.ndarray, layer: Layer) -> np.ndarray:
    """The layer on an opaque ground as editors blend it, rounded to 8 bits: float64 [H,W,3]."""
    result = ground.copy()
    rows, columns, pixels = _window(layer, ground.shape)
    alpha = pixels[..., 3:] / 255 * layer.opacity
    part = result[rows, columns]
    part[:] = np.rint(pixels[..., :3] * alpha + part * (1 - alpha))
    return result


def _window(layer: Layer, shape: tuple[int, ...]) -> tuple[slice, slice, np.ndarray]:
    """The rows and columns of the canvas that a layer covers, and its pixels there, float64 [h,w,4]."""
    rows = slice(max(layer.top, 0), max(0, min(layer.top + layer.height, shape[0])))
    columns = slice(max(layer.left, 0), max(0, min(layer.left + layer.width, shape[1])))
    return rows, columns, np.asarray(layer.picture)[_inside(layer, shape)].astype(np.float64)


def _inside(layer: Layer, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The rows and columns of a layer's picture that lie on the canvas."""
    rows = slice(max(0, -layer.top), max(0, min(layer.height, shape[0] - layer.top)))
    return rows, slice(max(0, -layer.left), max(0, min(layer.width, shape[1] - layer.left)))


def _decibels(found: np.ndarray, wanted: np.ndarray) -> float:
    """PSNR of 8-bit pictures; infinite for equal ones."""
    error = float(np.square(found - wanted).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def _note(after: np.ndarray, before: np.ndarray, wanted: np.ndarray) -> str:
    """What a user is told of the result."""
    reached = _decibels(after, wanted)
    if math.isinf(reached):
        return "the layers blend to the blended picture exactly"
    share = (np.abs(after - wanted).max(axis=-1) > NEAR).mean()
    return (
        f"the layers blend to the blended picture to {reached:.1f} dB ({_decibels(before, wanted):.1f} dB as painted); "
        f"{share:.0%} of the pixels differ, for the pictures are not the same where the foreground is transparent"
    )
