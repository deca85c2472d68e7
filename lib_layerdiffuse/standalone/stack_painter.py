"""Who paints the layers of a stack in the standalone program: a run of the loaded model for each request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from ..core.methods import BACKGROUND, FOREGROUND
from ..sets.stack import PaintRequest, Stopped
from .pictures import Picture, Pictures, Watchers
from .settings import GenerateSettings

Run = Callable[[GenerateSettings, Watchers], Pictures]
FROM_BACKGROUND, SINGLE = "from-background", "single"


def settings_of(request: PaintRequest, choices: dict[str, Any]) -> GenerateSettings:
    """The settings of a run that answers a request: a plain picture, a thing on a background, or one on nothing."""
    size = {"width": request.width, "height": request.height}
    common = {"prompt": request.prompt, "seed": request.seed, "count": 1, **size, **choices}
    if request.role == BACKGROUND:
        return GenerateSettings(**common, transparent=False)
    if request.background is None:
        return GenerateSettings(**common, weight=request.weight, mode=SINGLE)
    given = {"background": request.background, "resize_mode": "just-resize"}
    return GenerateSettings(**common, **given, weight=request.weight, chain=FROM_BACKGROUND)


def paint(
    run: Run, request: PaintRequest, choices: dict[str, Any], watchers: Watchers
) -> tuple[Image.Image, list[str]]:
    """The picture that answers a request, and notes; Stopped where somebody wanted it to end."""
    pictures = run(settings_of(request, choices).validated()[0], watchers)
    if pictures.stopped:
        raise Stopped
    return chosen(pictures, request).image, pictures.notes


def chosen(pictures: Pictures, request: PaintRequest) -> Picture:
    """The frame that was asked for, among those of a set."""
    return next((picture for picture in pictures if picture.frame == FOREGROUND), pictures[0])
