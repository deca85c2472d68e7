"""Images that a user gives: opened, checked, brought to size; for the VAE on grey, for the codec with their alpha."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ..core.errors import InputError
from ..core.picture.alpha import composite_on_grey, pad_rgb, rgba_array
from ..core.picture.resize import resize_image
from ..core.picture.resize_modes import ResizeMode
from ..core.picture.sizes import MOST_SIDE, ready, reduced_array
from ..core.picture.verdicts import EMPTY, AlphaFigures


@dataclass(frozen=True)
class OpenedImage:
    """A user's image, uint8 RGBA [H,W,4], upright, and notes for the user."""

    rgba: np.ndarray
    notes: tuple[str, ...] = ()


def read_image(source: Any, name: str, size: tuple[int, int] | None = None) -> OpenedImage:
    """A user's image, reduced when far larger than `size` (height, width); notes on what is not as one may think."""
    with _opened(source, name) as image:
        frames = getattr(image, "n_frames", 1)
        rgba = _rgba(image, source, name, size)
    notes = [f"{name}: the first of {frames} frames is used"] if frames > 1 else []
    if AlphaFigures.of(rgba).empty == 1:  # a transparent image only says "grey" to a network
        notes.append(f"{name}: {EMPTY.sentence}")
    return OpenedImage(rgba, tuple(notes))


def open_image(source: Any, name: str) -> np.ndarray:
    """uint8 RGBA [H,W,4] of a PIL image or a path, upright; InputError naming the setting `name`."""
    return read_image(source, name).rgba


@contextmanager
def _opened(source: Any, name: str) -> Iterator[Image.Image]:
    """The PIL image of a source; what PIL cannot read becomes an InputError, here and while it is read."""
    try:
        if isinstance(source, Image.Image):
            yield source
            return
        path = Path(source)
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise InputError(f"{source}, which is no file", f"an image file as {name}", "choose another file")
        with Image.open(path) as image:
            yield image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"no file {source}", f"an image file as {name}", f"correct the path of {name}") from error
    except Image.DecompressionBombError as error:
        limit = f"at most as many pixels as {MOST_SIDE}x{MOST_SIDE}"
        raise InputError(f"{source}: {error}", limit, f"scale {name} down first") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError) as error:
        raise InputError(
            f"{source}, which is no image that can be read ({error})", f"an image file as {name}", "choose another file"
        ) from error


def _rgba(image: Image.Image, source: Any, name: str, size: tuple[int, int] | None) -> np.ndarray:
    """uint8 RGBA of an open image, upright; a large one is reduced first, as far as `size` allows."""
    try:
        return rgba_array(ready(image, name, size))
    except MemoryError as error:
        shape = f"{image.width}x{image.height}"
        raise InputError(
            f"{name} of {shape} pixels, more than the memory at hand holds", "a smaller image", f"scale {name} down"
        ) from error


def on_grey(rgba: np.ndarray, height: int, width: int, resize_mode: ResizeMode | str) -> torch.Tensor:
    """What a network sees of an image: composited on mid grey, then resized; [1,3,height,width] in [-1,1]."""
    rgba = reduced_array(rgba, (height, width))
    resized = resize_image(composite_on_grey(rgba), height, width, resize_mode)
    return torch.from_numpy(resized.clip(0, 1)).permute(2, 0, 1)[None] * 2 - 1


def with_alpha(rgba: np.ndarray, height: int, width: int, resize_mode: ResizeMode | str) -> torch.Tensor:
    """An image at the wanted size with its alpha, float32 [1,4,height,width] in [0,1].

    Colour is padded before resizing, so that no colour of invisible pixels bleeds into the edges.
    """
    rgba = reduced_array(rgba, (height, width))
    padded = np.concatenate([pad_rgb(rgba), rgba[..., 3:].astype(np.float32) / 255], axis=2)
    resized = resize_image(padded, height, width, resize_mode)
    return torch.from_numpy(resized.clip(0, 1)).permute(2, 0, 1)[None]
