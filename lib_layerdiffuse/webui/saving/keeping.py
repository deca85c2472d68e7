"""Alpha kept to the last file: put on what other scripts made of a picture, and into the picture that was inpainted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageChops

from ...core.picture.alpha import least_alpha
from ...core.picture.guided import guided_upsampling
from ..jobs.pictures import ClearLayer

SAME_LEVELS = 2  # of 255: what rounding may change
VISIBLE = 0.5 / 255  # what is less is 0 in a file
OPAQUE = 254  # and above: a text may be hidden in the last bit of an alpha that shows nothing


def with_alpha(theirs: Image.Image, layer: ClearLayer) -> Image.Image:
    """What another script made of the opaque picture, with our alpha; our own colours where it changed nothing."""
    ours = layer.rgba
    if theirs.mode == "RGBA" and not is_opaque(theirs):  # somebody knows better
        return theirs
    colour = theirs.convert("RGB")
    if colour.size != ours.size:
        return banded(colour, alpha_for(colour, layer))
    changed = np.abs(np.asarray(colour, np.int16) - np.asarray(layer.opaque.convert("RGB"), np.int16)).max(axis=2)
    mask = changed > SAME_LEVELS
    if not mask.any():
        return ours
    pixels = np.array(ours)
    pixels[mask, :3] = np.asarray(colour)[mask]
    return Image.fromarray(pixels)


def is_opaque(image: Image.Image) -> bool:
    """Whether an RGB or RGBA picture shows no transparency."""
    return image.mode == "RGB" or (image.mode == "RGBA" and least_alpha(image) >= OPAQUE)


def alpha_for(colour: Image.Image, layer: ClearLayer) -> Image.Image:
    """The layer's alpha at the size of a picture that was made from it; guided by its colours where they show it."""
    alpha, opaque = layer.rgba.getchannel("A"), layer.opaque.convert("RGB")
    if colour.width < alpha.width or colour.height < alpha.height:
        return alpha.resize(colour.size, Image.Resampling.BOX)
    return (guided if colours_show_alpha(alpha, opaque) else enlarged)(alpha, opaque, colour)


def enlarged(alpha: Image.Image, _opaque: Image.Image, colour: Image.Image) -> Image.Image:
    """Alpha at the size of `colour`, by Lanczos."""
    return alpha.resize(colour.size, Image.Resampling.LANCZOS)


def guided(alpha: Image.Image, opaque: Image.Image, colour: Image.Image) -> Image.Image:
    """Alpha at the size of `colour`, its edges on those of the colours."""
    values = guided_upsampling(_tensor(alpha), _tensor(opaque), _tensor(colour))
    return Image.fromarray((values[0, 0].numpy() * 255).round().astype(np.uint8))


def colours_show_alpha(alpha: Image.Image, opaque: Image.Image) -> bool:
    """Whether the guide would do better than the plain way if this very layer were made from one of half its size.

    It does where the opaque picture shows the background, and not where its colours go on beneath transparency.
    """
    half = max(1, alpha.width // 2), max(1, alpha.height // 2)
    small = alpha.resize(half, Image.Resampling.BOX), opaque.resize(half, Image.Resampling.BOX)
    errors = [
        np.abs(np.asarray(way(*small, opaque), np.float32) - np.asarray(alpha, np.float32)).mean()
        for way in (guided, enlarged)
    ]
    return errors[0] < errors[1]


def _tensor(image: Image.Image) -> torch.Tensor:
    values = np.asarray(image, np.float32) / 255
    return torch.from_numpy(values.reshape(*values.shape[:2], -1)).permute(2, 0, 1)[None]


def banded(colour: Image.Image, alpha: Image.Image) -> Image.Image:
    """RGB and a grey alpha of one size -> RGBA."""
    result = colour.copy()
    result.putalpha(alpha)
    return result


@dataclass(frozen=True)
class Inpainting:
    """Where the new pixels go: onto `picture` (RGBA), within `mask` (grey), into `box` or all of it."""

    picture: Image.Image
    mask: Image.Image
    box: tuple[int, int, int, int] | None = None  # x, y, width, height

    @classmethod
    def of(cls, p: Any, picture: Image.Image, told: Any = None) -> Inpainting | None:
        """That of a WebUI's job, `picture` being what it started from at the size it works on; None without a mask.

        `told` is what the WebUI and its scripts (soft inpainting) say of this very picture, if they say anything.
        """
        mask = getattr(p if told is None else told, "mask_for_overlay", None)
        if mask is None:
            return None
        return cls(
            picture, mask.convert("L").resize(picture.size, Image.Resampling.LANCZOS), getattr(p, "paste_to", None)
        )

    def canvas(self, patch: Image.Image) -> Image.Image:
        """The new RGBA pixels at their place, on nothing."""
        if self.box is None:
            return scaled(patch, self.picture.size)
        x, y, width, height = self.box
        canvas = Image.new("RGBA", self.picture.size)
        canvas.paste(scaled(patch, (width, height)), (x, y))
        return canvas

    def paste(self, patch: Image.Image) -> Image.Image:
        """The whole picture with the new RGBA pixels in it, blended by premultiplied colour."""
        return blended(self.picture, self.canvas(patch), self.mask)

    def cut_out(self, patch: Image.Image) -> Image.Image:
        """The new pixels as far as the mask shows them."""
        canvas = self.canvas(patch)
        return banded(canvas.convert("RGB"), ImageChops.multiply(canvas.getchannel("A"), self.mask))


def scaled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """RGBA at another size; colours keep the weight that their alpha gives them."""
    return (
        picture
        if picture.size == size
        else picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    )


def blended(below: Image.Image, above: Image.Image, mask: Image.Image) -> Image.Image:
    """RGBA of `above` where the grey `mask` is white, of `below` where it is black; colours keep their weight.

    What was erased is gone: where nothing is visible in the end, the colours are those of `above`.
    """
    share = np.asarray(mask, np.float32)[..., None] / 255
    lower, upper = (np.asarray(image, np.float32) / 255 for image in (below, above))
    alpha = lower[..., 3:] * (1 - share) + upper[..., 3:] * share
    weighted = lower[..., :3] * lower[..., 3:] * (1 - share) + upper[..., :3] * upper[..., 3:] * share
    colour = np.where(alpha > VISIBLE, weighted / alpha.clip(VISIBLE), upper[..., :3])
    # what the mask leaves alone keeps its very levels
    result = np.where(share == 0, lower, np.concatenate([colour, alpha], axis=2))
    return Image.fromarray((result.clip(0, 1) * 255).round().astype(np.uint8))
