"""A layer set: pictures of their own size, one above the other on a canvas, and the picture that they blend to.

Pictures are RGBA, straight alpha, 8 bit; offsets are in pixels from the canvas's top left and may be negative. Layers
and sets never change: use `dataclasses.replace`, and pictures may be shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from ..core.errors import InputError
from ..core.methods import BACKGROUND, BLENDED, FOREGROUND
from ..core.picture.alpha import rgba_array
from ..core.picture.sizes import MOST_SIDE
from ..core.values import is_finite, is_text

PLAIN = "layer"
ROLES = (BACKGROUND, FOREGROUND, BLENDED, PLAIN)
MOST_LAYERS, MOST_PIXELS = 256, 2**28  # of one set: a gigabyte as RGBA
LONGEST_NAME, LONGEST_PROMPT = 1000, 2**20  # characters
FURTHEST = 2**20  # pixels of an offset
STRIP = 2**20  # pixels that are blended at a time: in float64 a canvas would take gigabytes
SHOWN = 60  # characters of a name in a message
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Layer:
    """A picture of any PIL kind, kept as RGBA, and where it lies; `opacity` in [0,1] times its alpha counts."""

    name: str
    picture: Image.Image = field(repr=False)
    left: int = 0
    top: int = 0
    opacity: float = 1.0
    visible: bool = True
    role: str = PLAIN
    prompt: str = ""
    seed: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "name", _checked_text("a layer's name", self.name, LONGEST_NAME))
        object.__setattr__(self, "prompt", _checked_text(f"the prompt of {self.title}", self.prompt, LONGEST_PROMPT))
        object.__setattr__(self, "picture", as_rgba(self.picture))
        for side in ("left", "top"):
            object.__setattr__(self, side, _checked_whole(f"{side} of {self.title}", getattr(self, side), FURTHEST))
        if self.seed is not None:
            object.__setattr__(self, "seed", _checked_whole(f"seed of {self.title}", self.seed, 2**64))
        if not is_finite(self.opacity) or not 0 <= self.opacity <= 1:
            raise InputError(f"opacity {self.opacity!r} of {self.title}", "a number from 0 to 1", "correct it")
        if self.role not in ROLES:
            raise InputError(f"role {self.role!r} of {self.title}", f"one of {', '.join(ROLES)}", "choose one of them")

    @property
    def title(self) -> str:
        """The layer in a message."""
        return f"layer {self.name[:SHOWN]!r}"

    @property
    def width(self) -> int:
        return self.picture.width

    @property
    def height(self) -> int:
        return self.picture.height

    @property
    def box(self) -> Box:
        """Left, top, right and bottom on the canvas."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def fills(self, size: tuple[int, int]) -> bool:
        """Whether it is opaque all over a canvas of this size."""
        left, top, right, bottom = self.box
        if self.opacity < 1 or left > 0 or top > 0 or right < size[0] or bottom < size[1]:
            return False
        seen = self.picture.getchannel("A").crop((-left, -top, size[0] - left, size[1] - top))
        return seen.getextrema()[0] == 255


@dataclass(frozen=True)
class LayerSet:
    """Layers on a canvas, bottom first; `blended` is the picture that they were painted to give, if any."""

    width: int
    height: int
    layers: tuple[Layer, ...] = ()
    blended: Image.Image | None = field(default=None, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "layers", tuple(self.layers))
        for side in ("width", "height"):
            value = _checked_whole(side, getattr(self, side), MOST_SIDE)
            if value < 1:
                raise InputError(f"a canvas with {side} {value}", f"1 to {MOST_SIDE} pixels", f"choose another {side}")
            object.__setattr__(self, side, value)
        _check_layers(self.layers)
        if self.blended is not None:
            object.__setattr__(self, "blended", as_rgba(self.blended))
            if self.blended.size != self.size:
                got = f"a blended picture of {self.blended.width}x{self.blended.height}"
                raise InputError(got, f"{self.width}x{self.height}, as the canvas is", "scale it to the canvas")

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def visible(self) -> tuple[Layer, ...]:
        """The layers that show, bottom first."""
        return tuple(layer for layer in self.layers if layer.visible and layer.opacity > 0)

    @property
    def is_opaque(self) -> bool:
        """Whether an opaque layer covers the canvas, so that the composite has no transparency."""
        return any(layer.fills(self.size) for layer in self.visible)

    def of_role(self, role: str) -> Layer | None:
        """The lowest layer of a role; None where there is none."""
        return next((layer for layer in self.layers if layer.role == role), None)

    def with_layers(self, layers: Sequence[Layer]) -> LayerSet:
        """The same canvas and blended picture with other layers."""
        return replace(self, layers=tuple(layers))

    def composited(self) -> np.ndarray:
        """All visible layers by source-over: float32 [height,width,4], straight alpha, in [0,1], blended in float64.

        Colour is 0 where nothing shows.
        """
        result = np.empty((self.height, self.width, 4), dtype=np.float32)
        for top, strip in self._strips():
            alpha = strip[..., 3:]
            np.divide(strip[..., :3], alpha, out=strip[..., :3], where=alpha > 0)
            result[top : top + len(strip)] = strip
        return result

    def composite(self) -> Image.Image:
        """All visible layers by source-over, RGBA of the canvas's size: blended in float, rounded once."""
        result = np.empty((self.height, self.width, 4), dtype=np.uint8)
        for top, strip in self._strips():
            alpha = strip[..., 3:]
            np.divide(strip[..., :3], alpha, out=strip[..., :3], where=alpha > 0)
            result[top : top + len(strip)] = np.rint((strip * 255).clip(0, 255))
        return Image.fromarray(result)

    def _strips(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rows of the canvas, premultiplied float64 [rows,width,4] in [0,1], each with the first row's number."""
        rows = max(1, STRIP // self.width)
        for top in range(0, self.height, rows):
            strip = np.zeros((min(rows, self.height - top), self.width, 4))
            for layer in self.visible:
                _blend(strip, layer, top)
            yield top, strip


def set_of_frames(
    frames: Mapping[str, Image.Image],
    prompts: Mapping[str, str] | None = None,
    seeds: Mapping[str, int | None] | None = None,
) -> LayerSet:
    """The set of pictures of one size by frame ("background", "foreground", "blended"); any of them may be missing.

    InputError for other names or sizes.
    """
    unknown = [frame for frame in frames if frame not in (BACKGROUND, FOREGROUND, BLENDED)]
    if unknown or not frames:
        got = f"frames {', '.join(map(str, unknown))}" if unknown else "no picture"
        raise InputError(got, f"{BACKGROUND}, {FOREGROUND} or {BLENDED}", "name the pictures so")
    pictures = {frame: as_rgba(picture) for frame, picture in frames.items()}
    sizes = {f"{frame} {picture.width}x{picture.height}": picture.size for frame, picture in pictures.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"layers of different sizes: {', '.join(sizes)}", "one size", "scale them to one size")
    layers = [
        Layer(
            frame.capitalize(),
            pictures[frame],
            role=frame,
            prompt=(prompts or {}).get(frame, ""),
            seed=(seeds or {}).get(frame),
        )
        for frame in (BACKGROUND, FOREGROUND)
        if frame in pictures
    ]
    width, height = next(iter(sizes.values()))
    return LayerSet(width, height, tuple(layers), pictures.get(BLENDED))


def as_rgba(picture: Image.Image) -> Image.Image:
    """A PIL picture of any kind as RGBA; one that is RGBA already is shared, not copied."""
    if isinstance(picture, Image.Image) and picture.mode == "RGBA" and min(picture.size) > 0:
        return picture
    return Image.fromarray(rgba_array(picture))


def _blend(strip: np.ndarray, layer: Layer, top: int) -> None:
    """Put a layer over the rows of the canvas that begin at `top`, in place."""
    upper, lower = max(layer.top, top), min(layer.top + layer.height, top + len(strip))
    left, right = max(layer.left, 0), min(layer.left + layer.width, strip.shape[1])
    if upper >= lower or left >= right:
        return
    part = layer.picture.crop((left - layer.left, upper - layer.top, right - layer.left, lower - layer.top))
    pixels = np.asarray(part, dtype=np.float64) / 255
    alpha = pixels[..., 3:] * layer.opacity
    below = strip[upper - top : lower - top, left:right]
    below *= 1 - alpha
    below[..., :3] += pixels[..., :3] * alpha
    below[..., 3:] += alpha


def _check_layers(layers: Sequence[Any]) -> None:
    """InputError for anything but a bounded number of layers."""
    for layer in layers:
        if not isinstance(layer, Layer):
            raise InputError(f"a {type(layer).__name__} among the layers", "layers", "make them with Layer(...)")
    if len(layers) > MOST_LAYERS:
        raise InputError(f"{len(layers)} layers", f"at most {MOST_LAYERS}", "leave some out, or merge them")
    pixels = sum(layer.width * layer.height for layer in layers)
    if pixels > MOST_PIXELS:
        raise InputError(f"layers of {pixels} pixels in all", f"at most {MOST_PIXELS}", "leave some out, or trim them")


def _checked_text(what: str, text: object, longest: int) -> str:
    """A text that UTF-8 can hold, without zeros."""
    if not isinstance(text, str) or not is_text(text):
        raise InputError(f"{what} {str(text)[:SHOWN]!r}", "a text", "correct it")
    if len(text) > longest:
        raise InputError(f"{what} of {len(text)} characters", f"at most {longest}", "shorten it")
    return text


def _checked_whole(what: str, value: Any, most: int) -> int:
    """`value` as a plain int from -most to most."""
    if not is_finite(value) or value != int(value) or abs(value) > most:
        raise InputError(f"{what} {str(value)[:SHOWN]}", f"a whole number from {-most} to {most}", "correct it")
    return int(value)
