"""Layer sets that tests share."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lib_layerdiffuse.sets.layer_set import Layer, LayerSet

WIDTH, HEIGHT = 40, 30
NAMES = ("Background", "前景 🐈‍⬛", "x" * 300, '<a & "b"> é \x01')


def noise(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> Image.Image:
    """RGBA of random levels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8))


def disc(size: int = 16, seed: int = 0) -> Image.Image:
    """A disc of noise with a soft edge in a larger empty square."""
    picture = np.array(noise(2 * size, 2 * size, seed))
    reach = np.hypot(*(np.indices((2 * size, 2 * size)) - size + 0.5))
    picture[..., 3] = ((size / 2 - reach).clip(-1, 1) * 127 + 127).astype(np.uint8)
    return Image.fromarray(picture)


def example(opaque: bool = True) -> LayerSet:
    """Layers of every kind: names, offsets beyond the canvas, opacity, a hidden one, one of a single pixel."""
    ground = Layer(NAMES[0], noise().convert("RGB") if opaque else noise(), role="background", prompt="森", seed=3)
    layers = [
        ground,
        Layer(NAMES[1], noise(20, 12, 1), left=-4, top=25, opacity=0.4, role="layer", prompt="a cat\nand", seed=2**40),
        Layer(NAMES[2], noise(seed=2), visible=False),
        Layer(NAMES[3], noise(1, 1, 3), left=39, top=2),
    ]
    return LayerSet(WIDTH, HEIGHT, tuple(layers))


def same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures are equal, colours under alpha 0 included."""
    return one.size == other.size and one.convert("RGBA").tobytes() == other.convert("RGBA").tobytes()
