"""Layered pictures: visible layers of PSD and OpenRaster files, bottom first, as RGBA images of the canvas's size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from ...sets import ora_reading, psd_reading
from ...sets.layer_set import Layer, LayerSet

MOST_LAYERS = 64


@dataclass
class Layered:
    """A layer by name, RGBA of the canvas's size, its opacity and masks applied."""

    name: str
    image: Image.Image


def read_psd(content: bytes) -> list[Layered]:
    """Visible layers of a Photoshop file, bottom first; MissingExtraError without psd-tools."""
    return _shown(psd_reading.read_psd(content))


def read_ora(content: bytes) -> list[Layered]:
    """Visible layers of an OpenRaster file, bottom first."""
    return _shown(ora_reading.read_ora(content))


def _shown(layers: LayerSet) -> list[Layered]:
    if len(layers) > MOST_LAYERS:
        raise ValueError(f"{len(layers)} layers, more than {MOST_LAYERS}")
    return [Layered(layer.name, _placed(layer, layers.size)) for layer in layers.visible]


def _placed(layer: Layer, size: tuple[int, int]) -> Image.Image:
    """A layer on an empty canvas, its opacity in its alpha; what lies outside is cut off."""
    canvas = Image.new("RGBA", size)
    canvas.paste(layer.picture, (layer.left, layer.top))
    if layer.opacity < 1:
        canvas.putalpha(canvas.getchannel("A").point([round(value * layer.opacity) for value in range(256)]))
    return canvas


READERS: dict[str, Callable[[bytes], list[Layered]]] = {".psd": read_psd, ".ora": read_ora}
