"""Masks and overlays of image to image."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image


def around_the_mask(holder: Any, p: Any, painted: torch.Tensor) -> torch.Tensor:
    """Latents [B,C,h,w] with the start where the mask keeps it, as scripts leave them; `holder` has start and mask."""
    kept = holder.init_latent * holder.mask
    mixed = SimpleNamespace(blended_latent=painted * holder.nmask + kept, denoiser=None if holder is p else holder)
    p.scripts.call("on_mask_blend", p, mixed)
    return mixed.blended_latent


def placed(webui: Any, image: Image.Image, paste_to: Any, whole: Image.Image) -> Image.Image:
    """`whole` with the picture in its box (x, y, width, height)."""
    x, y, width, height = paste_to
    whole.paste(webui.images.resize_image(1, image, width, height), (x, y))
    return whole


def apply_overlay(webui: Any, image: Image.Image, paste_to: Any, overlay: Image.Image | None) -> Image.Image:
    """The picture at its place under the parts of the original that no mask covers; RGB."""
    if overlay is None:
        return image
    if paste_to is not None:
        image = placed(webui, image, paste_to, Image.new("RGBA", overlay.size))
    image = image.convert("RGBA")
    image.alpha_composite(overlay)
    return image.convert("RGB")


def within(webui: Any, painted: Image.Image, paste_to: Any, mask: Image.Image) -> Image.Image:
    """What was painted, at its place, as far as a mask shows it: RGBA."""
    if paste_to is not None:
        painted = placed(webui, painted, paste_to, Image.new("RGB", mask.size))
    cut = painted.convert("RGBA")
    cut.putalpha(mask.convert("L").resize(cut.size))
    return cut


def colour_corrected(wanted: np.ndarray, image: Image.Image) -> Image.Image:
    """The picture with the mean colour of the original; RGB."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    shifted = pixels + wanted - pixels.mean(axis=(0, 1))
    return Image.fromarray(shifted.round().clip(0, 255).astype(np.uint8))


def crop_region(mask: Image.Image, padding: int) -> tuple[int, int, int, int]:
    """The square around the white part of a mask, with padding, inside the picture."""
    left, top, right, bottom = mask.getbbox()
    side = min(max(right - left, bottom - top) + 2 * padding, *mask.size)
    x = min(max(0, (left + right - side) // 2), mask.width - side)
    y = min(max(0, (top + bottom - side) // 2), mask.height - side)
    return x, y, x + side, y + side


def overlay_of(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The original where no mask covers it."""
    kept = image.convert("RGBA")
    kept.putalpha(mask.convert("L").point(lambda level: 255 - level))
    return kept
