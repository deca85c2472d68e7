"""Layers as files give them, put together: the background, the blended picture, groups that are one layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core.methods import BACKGROUND, BLENDED, FOREGROUND
from .layer_set import PLAIN, Layer, LayerSet

MOST_CANVAS = 2**26  # pixels


def check_canvas(width: int, height: int) -> None:
    """ValueError for a canvas or layer that is empty or too large."""
    if min(width, height) < 1 or width * height > MOST_CANVAS:
        raise ValueError(f"{width}x{height} pixels, not 1 to {MOST_CANVAS}")


def assembled(width: int, height: int, layers: Sequence[Layer]) -> LayerSet:
    """A set of layers bottom first; the blended picture that this program hides on top of its files is taken out."""
    if layers and _is_blended(layers[-1], (width, height)):
        return LayerSet(width, height, tuple(layers[:-1]), layers[-1].picture)
    return LayerSet(width, height, tuple(layers))


def _is_blended(layer: Layer, size: tuple[int, int]) -> bool:
    return layer.role == BLENDED and not layer.visible and layer.box == (0, 0, *size)


def with_roles(layers: Sequence[Layer], size: tuple[int, int]) -> list[Layer]:
    """Layers of files that know no roles: told by the names that this program gives, and by what fills the canvas."""
    return [replace(layer, role=_role(layer, place == 0, size)) for place, layer in enumerate(layers)]


def _role(layer: Layer, lowest: bool, size: tuple[int, int]) -> str:
    if lowest and (layer.name == BACKGROUND.capitalize() or layer.fills(size)):
        return BACKGROUND
    if layer.name == BLENDED.capitalize() and not layer.visible:
        return BLENDED
    return FOREGROUND if layer.name.startswith(FOREGROUND.capitalize()) else PLAIN


def merged(name: str, children: Sequence[Layer], size: tuple[int, int], opacity: float) -> list[Layer]:
    """A group of an opacity of its own: one layer, for the opacity of several is not that of each."""
    shown = [layer for layer in children if layer.visible]
    if opacity == 1:
        return list(children)
    if len(shown) <= 1:
        return [replace(layer, opacity=layer.opacity * opacity) for layer in children]
    picture = LayerSet(*size, tuple(shown)).composite()
    return [*(layer for layer in children if not layer.visible), Layer(name, picture, opacity=opacity)]
