"""RGBA pictures: reading any kind of image, padded RGB, composites, checkerboard previews.

Tensors are [B,4,H,W], R,G,B,A, straight alpha, in [0,1]; arrays are [H,W,4].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from ..errors import InputError
from .resize import area_taps, linear_taps, resample

PYRAMID_RATIO = 1.2
SQUARE = 64  # pixels
GREY, CONTRAST = 0.5, 0.05
TRIM_THRESHOLD = 16  # of 255: what is fainter does not keep a picture from being trimmed
Box = tuple[int, int, int, int]


def rgba_array(image: Image.Image) -> np.ndarray:
    """Any PIL image (grey, palette, 16 bit, with or without alpha) -> uint8 [H,W,4]; opaque where it has no alpha.

    InputError for what is no whole picture.
    """
    if not isinstance(image, Image.Image):
        raise InputError(f"a {type(image).__name__}", "a PIL image", "open the file with PIL.Image.open first")
    if min(image.size) < 1:
        raise InputError(f"an image of {image.width}x{image.height}", "at least 1x1 pixels", "choose another image")
    try:
        return np.array(_eight_bits(image).convert("RGBA"))
    except (OSError, SyntaxError, ValueError) as error:  # PIL decodes late: a truncated file shows only here
        raise InputError(
            f"an image that cannot be read ({error})", "a whole image file", "choose another image"
        ) from error


def least_alpha(rgba: Image.Image) -> int:
    """The least alpha, 0 to 255, of a PIL RGBA image."""
    return int(np.asarray(rgba.getchannel("A")).min())


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit greys and greys in float scaled down: PIL's own conversion clips them."""
    if image.mode == "F":
        return Image.fromarray(_float_levels(np.array(image)))
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.array(image).astype(np.int64)
    if image.mode != "I" or values.max() > 255:  # mode I may hold either range
        values = (values * 255 + 32767) // 65535
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _float_levels(values: np.ndarray) -> np.ndarray:
    """Greys float [H,W], in [0,1], [0,255] or [0,65535] as their largest says -> uint8; 0 where they are no number."""
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = next((top for top in (1, 255, 65535) if values.max() <= top), values.max())
    return (values.clip(0) * (255 / top)).round().astype(np.uint8)


def to_tensor(images: Image.Image | Sequence[Image.Image]) -> torch.Tensor:
    """One PIL image or several of one size -> float32 [B,4,H,W] in [0,1]. InputError for none, or several sizes."""
    arrays = [rgba_array(image) for image in ([images] if isinstance(images, Image.Image) else images)]
    sizes = {array.shape[:2] for array in arrays}
    if len(sizes) != 1:
        found = ", ".join(f"{W}x{H}" for H, W in sorted(sizes)) or "no image"
        raise InputError(f"a batch of {found}", "one or more images of one size", "resize them or pass them one by one")
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def from_tensor(rgba: torch.Tensor) -> list[Image.Image]:
    """[B,4,H,W] in [0,1] -> PIL RGBA images; levels are rounded down, as in the original.

    InputError for another shape.
    """
    if rgba.ndim != 4 or rgba.shape[1] != 4:
        raise InputError(f"a tensor {list(rgba.shape)}", "[B,4,H,W]", "pass R,G,B,A pictures")
    return [Image.fromarray(array) for array in _bytes(rgba.detach().float().cpu().permute(0, 2, 3, 1).numpy())]


def _bytes(values: np.ndarray) -> np.ndarray:
    # the small addition keeps n / 255 at n, which float32 may have left just below
    return np.ascontiguousarray((values * 255 + 1e-3).clip(0, 255).astype(np.uint8))


def trim_box(picture: Image.Image | np.ndarray, threshold: int = TRIM_THRESHOLD) -> Box | None:
    """The smallest box (left, top, right, bottom) around every pixel with an alpha of at least `threshold` of 255.

    Of a PIL image of any kind or of uint8 [H,W,4]; None where nothing is that visible. A threshold of 1 is PIL's
    getbbox of the alpha. InputError for a threshold that is no whole number from 1 to 255.
    """
    if not isinstance(threshold, int | np.integer) or isinstance(threshold, bool) or not 1 <= threshold <= 255:
        raise InputError(f"a trim threshold of {threshold!r}", "a whole number from 1 to 255", "choose one, such as 16")
    visible = (rgba_array(picture) if isinstance(picture, Image.Image) else picture)[..., 3] >= threshold
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def trimmed(image: Image.Image, threshold: int = TRIM_THRESHOLD, margin: int = 0) -> Image.Image:
    """A copy cut to `trim_box` and `margin` pixels more on each side, where the picture has them; whole without one.

    InputError for a margin below 0.
    """
    if margin < 0:
        raise InputError(f"a margin of {margin}", "0 or more pixels", "choose a margin that is not negative")
    box = trim_box(image, threshold)
    if box is None:
        return image.copy()
    left, top, right, bottom = box
    return image.crop(
        (
            max(0, left - margin),
            max(0, top - margin),
            min(image.width, right + margin),
            min(image.height, bottom + margin),
        )
    )


def pad_rgb(rgba: np.ndarray) -> np.ndarray:
    """Uint8 [H,W,4] -> float32 [H,W,3] in [0,1]: invisible pixels take on a smooth continuation of the visible colours.

    A pyramid (ratio 1.2) of premultiplied colour, from the mean visible colour upwards: c + up(below) * (1 - a).
    InputError for an array of another kind.
    """
    if rgba.ndim != 3 or rgba.shape[2] != 4 or rgba.dtype != np.uint8 or rgba.size == 0:
        raise InputError(f"an array {list(rgba.shape)} of {rgba.dtype}", "uint8 [H,W,4]", "convert the image to RGBA")
    straight = rgba.astype(np.float32) / 255
    lowest, highest = rgba[..., 3].min(), rgba[..., 3].max()
    if lowest == 255:
        return np.ascontiguousarray(straight[..., :3])
    if highest == 0:
        return np.zeros_like(straight[..., :3])
    levels = _pyramid(np.concatenate([straight[..., :3] * straight[..., 3:], straight[..., 3:]], axis=2))
    total = levels[0].sum(axis=(0, 1), dtype=np.float64)
    colour = (total[:3] / total[3]).astype(np.float32).reshape(1, 1, 3)
    for level in reversed(levels):
        H, W = level.shape[:2]
        above = resample(colour, linear_taps(colour.shape[0], H), linear_taps(colour.shape[1], W))
        above *= 1 - level[..., 3:]
        above += level[..., :3]
        colour = above
    return colour.clip(0, 1)


def _pyramid(premultiplied: np.ndarray) -> list[np.ndarray]:
    """Levels each 1.2 times smaller than the one before, until a side would vanish."""
    levels = [premultiplied]
    while True:
        H, W = levels[-1].shape[:2]
        height, width = int(H / PYRAMID_RATIO), int(W / PYRAMID_RATIO)
        if min(height, width) < 1:
            return levels
        levels.append(resample(levels[-1], area_taps(H, height), area_taps(W, width)))


Pixels = TypeVar("Pixels", np.ndarray, torch.Tensor)


def composite_on_grey(rgba: Pixels) -> Pixels:
    """On mid grey, what a network sees: 0.5 + (rgb - 0.5) * alpha.

    A tensor [B,4,H,W] in [0,1] -> [B,3,H,W]; an array [H,W,4], uint8 or float in [0,1] -> float32 [H,W,3].
    """
    if isinstance(rgba, torch.Tensor):
        return GREY + (rgba[..., :3, :, :] - GREY) * rgba[..., 3:, :, :]
    values = rgba.astype(np.float32) / (255 if rgba.dtype == np.uint8 else 1)
    return GREY + (values[..., :3] - GREY) * values[..., 3:]


def checkerboard(height: int, width: int, square: int = SQUARE) -> np.ndarray:
    """Float32 [height,width] of 0.45 and 0.55 in squares of `square` pixels, dark at the top left."""
    rows, columns = np.arange(height) // square, np.arange(width) // square
    odd = (rows[:, None] + columns) % 2
    return (GREY - CONTRAST + 2 * CONTRAST * odd).astype(np.float32)


def checkerboard_preview(image: Image.Image, square: int = SQUARE) -> Image.Image:
    """PIL image with alpha -> RGB on a checkerboard."""
    return _on_checkerboard(rgba_array(image).astype(np.float32) / 255, square)


def checkerboard_previews(rgba: torch.Tensor, square: int = SQUARE) -> list[Image.Image]:
    """[B,4,H,W] in [0,1] -> RGB previews, rounded once only."""
    arrays = rgba.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    return [_on_checkerboard(array, square) for array in arrays]


def _on_checkerboard(rgba: np.ndarray, square: int) -> Image.Image:
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    board = checkerboard(rgba.shape[0], rgba.shape[1], square)[..., None]
    return Image.fromarray(_bytes(colour * alpha + board * (1 - alpha)))
