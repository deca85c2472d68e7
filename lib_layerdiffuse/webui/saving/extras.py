"""The Extras tab: upscalers and face restorers know RGB only: they get padded colours, their result the alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ...core.picture.alpha import pad_rgb
from ..host.modules import host_module
from . import files
from .keeping import banded

Postprocessing: Any = host_module("scripts_postprocessing")
WAITING = "layerdiffuse_waiting"  # attribute of the tab's picture at work: the one that it was, and the padded one


class KeepTransparency(Postprocessing.ScriptPostprocessing):
    """Keeps the alpha of RGBA pictures; pictures without one pass untouched."""

    name = "Keep transparency"
    order = 3500  # after what makes new pixels (up to 3000), before what cuts and mirrors (from 4000)

    def ui(self) -> dict[str, Any]:
        return {}

    def process_firstpass(self, pp: Any, **_values: Any) -> None:
        """Before all others: remember the picture, and hand on its colours."""
        if pp.image.mode == "RGBA":
            padded = Image.fromarray((pad_rgb(np.asarray(pp.image)) * 255).round().astype(np.uint8))
            padded.info = dict(pp.image.info)
            setattr(pp, WAITING, (pp.image, padded))
            pp.image = padded

    def process(self, pp: Any, **_values: Any) -> None:
        """After those that make new pixels: alpha again, at their size."""
        picture, padded = pp.__dict__.pop(WAITING, (None, None))
        if picture is None or pp.image.mode == "RGBA":  # or another script made its own alpha
            return
        pp.image = picture if pp.image is padded else banded(pp.image.convert("RGB"), alpha_at(picture, pp.image.size))
        setattr(pp.image, files.KEPT, True)


def alpha_at(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture's alpha at another size; where "Crop to fit" cut it, that of the middle."""
    scale = max(size[0] / picture.width, size[1] / picture.height)
    width, height = min(picture.width, round(size[0] / scale)), min(picture.height, round(size[1] / scale))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.getchannel("A").crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)
