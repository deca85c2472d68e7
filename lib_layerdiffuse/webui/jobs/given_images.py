"""What is said of given pictures that are not what the user takes them for: previews, and what a tab has flattened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ...core.methods import FOREGROUND
from ...core.picture.painted_board import has_painted_board
from ...form.frames import FRAMES
from .request import Request
from .run import Run

BOARD = (
    "the {name} has a checkerboard painted into it, which is taken for a part of the picture: "
    "give the transparent file itself, not a preview or a screenshot of it"
)
FLATTENED = (
    "the start picture came without transparency, on white: the tabs Sketch, Inpaint sketch and Inpaint upload of this "
    "WebUI drop it; img2img and Inpaint keep it"
)
WHITE = 255


def tell_about_images(run: Run, starts: Sequence[Image.Image]) -> None:
    """Notes on the pictures that a job was given, those that it starts from too."""
    given = []
    if FOREGROUND in run.method.images:
        given.append((f"{FOREGROUND} image", getattr(run.arguments, FRAMES[FOREGROUND].image)))
    if not run.request.is_tile:
        given += [("start picture", picture) for picture in starts]
    for name, picture in given:
        if has_painted_board(picture):
            run.request.note(BOARD.format(name=name))


def tell_about_the_tab(request: Request, given: list[Any]) -> None:
    """A note where the page's tab has laid the start picture on white; an API does no such thing."""
    first = given[0] if given else None
    if not request.visitor or request.is_tile or not isinstance(first, Image.Image):
        return
    if first.mode == "RGB" and is_on_white(first):
        request.note(FLATTENED)


def is_on_white(image: Image.Image) -> bool:
    """Whether most of a picture's border is pure white."""
    pixels = np.asarray(image.convert("RGB"))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool((border == WHITE).all(-1).mean() > 0.75)
