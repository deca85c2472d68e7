"""A script that hands a whole picture from job to job, each of which paints a part of it anew (Ultimate SD upscale).

It knows RGB only, but never looks into its pictures: once the first job starts from one with alpha, each gives the next
one a picture with alpha. So nothing is needed of how it cuts, masks and blends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ...core.errors import InputError, LayerDiffuseError
from ..jobs.pictures import ClearLayer
from .joining import enlarged

SMALL = (16, 16)  # pixels at which pictures are compared
ALIKE = 24  # of 255, on average: what an upscaler may change of a picture's looks


class InTurn:
    """Such a script at work: its first picture gets the start picture's alpha, and so does one that no job painted."""

    def __init__(self, selected: Any, start: ClearLayer):
        self.selected, self.start = selected, start
        self.lost = False

    def functions(self) -> dict[str, Callable[..., Any]]:
        """What goes around the WebUI's function by which the script saves its pictures."""
        return {"save_image": self._save}

    def _save(self, original: Callable[..., Any], image: Any, *arguments: Any, **named: Any) -> Any:
        if self.selected.failed is not None:
            raise self.selected.failed
        return original(self.finished(image), *arguments, **named)

    def give(self, p: Any) -> None:
        """Before a job: alpha for the picture that it starts from."""
        if self.lost:
            return
        try:
            p.init_images = [self._with_alpha(image) for image in p.init_images]
        except LayerDiffuseError as error:
            self.lost = True
            self.selected.lose(error)

    def take(self, pictures: list[Image.Image]) -> None:
        """After a job: the script hands on its picture."""

    def _with_alpha(self, image: Image.Image) -> Image.Image:
        if image.mode == "RGBA":  # of the job before
            return image
        if not is_whole(image, self.start.opaque):
            raise InputError(
                f"a job that starts from a part of the picture, or from another one ({image.width}x{image.height})",
                "the whole picture and a mask, as Ultimate SD Upscale gives them",
                'use "SD upscale", or another version of this script',
            )
        return enlarged(image, self.start)

    def finished(self, image: Any) -> Any:
        """A picture in the script's result, with alpha."""
        if self.lost or not isinstance(image, Image.Image):
            return image
        try:
            return self.selected.finished(self._with_alpha(image))
        except LayerDiffuseError as error:
            self.lost = True
            self.selected.lose(error)
            return image


def is_whole(image: Image.Image, start: Image.Image) -> bool:
    """Whether a picture shows all that the start picture shows, at whatever size."""
    one, other = (
        np.asarray(picture.convert("RGB").resize(SMALL, Image.Resampling.BOX), np.int16) for picture in (image, start)
    )
    return bool(np.abs(one - other).mean() <= ALIKE)
