"""Images that a user gives: opened, checked, brought to size; for the VAE on grey, for the codec with their alpha."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..core.alpha import AlphaSummary, composite_on_grey, pad_rgb, rgba_array
from ..core.errors import InputError
from ..core.resize import resize_image

RESIZE_LABELS = {
    "just-resize": "Just Resize",
    "crop-and-resize": "Crop and Resize",
    "resize-and-fill": "Resize and Fill",
}
RESIZE_KEYS = {label: key for key, label in RESIZE_LABELS.items()}


def open_image(source: Any, name: str) -> np.ndarray:
    """uint8 RGBA [H,W,4] of a PIL image or a path, upright; InputError naming the setting `name`."""
    if isinstance(source, Image.Image):
        return rgba_array(ImageOps.exif_transpose(source))
    try:
        with Image.open(Path(source)) as image:
            return rgba_array(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise InputError(f"no file {source}", f"an image file as {name}", f"correct the path of {name}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{source}: {error}", "an image of a sensible size", "scale it down first") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError) as error:
        raise InputError(
            f"{source}, which is no image that can be read ({error})", f"an image file as {name}", "choose another file"
        ) from error


def alpha_notes(rgba: np.ndarray, name: str) -> list[str]:
    """A note when an image is transparent everywhere; such an image only says "grey" to a network."""
    summary = AlphaSummary.of(rgba)
    return [f"{name}: {summary.hint}"] if summary.all_empty else []


def on_grey(rgba: np.ndarray, height: int, width: int, resize_mode: str) -> torch.Tensor:
    """What a network sees of an image: composited on mid grey, then resized; [1,3,height,width] in [-1,1]."""
    resized = resize_image(composite_on_grey(rgba), height, width, RESIZE_LABELS[resize_mode])
    return torch.from_numpy(resized.clip(0, 1)).permute(2, 0, 1)[None] * 2 - 1


def with_alpha(rgba: np.ndarray, height: int, width: int, resize_mode: str) -> torch.Tensor:
    """An image at the wanted size with its alpha, float32 [1,4,height,width] in [0,1].

    Colour is padded before resizing, so that no colour of invisible pixels bleeds into the edges.
    """
    padded = np.concatenate([pad_rgb(rgba), rgba[..., 3:].astype(np.float32) / 255], axis=2)
    resized = resize_image(padded, height, width, RESIZE_LABELS[resize_mode])
    return torch.from_numpy(resized.clip(0, 1)).permute(2, 0, 1)[None]
