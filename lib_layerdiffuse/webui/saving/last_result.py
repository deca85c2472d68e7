"""The last layers that were made, for use as a next picture's foreground, background or blended; each page its own."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from PIL import Image

VISITORS = 16  # whose pictures are kept at a time
LONGEST = 64  # characters of a name; javascript/layerdiffuse.js makes them of 32


def visitor_in(values: Sequence[Any], place: int) -> str:
    """The name of the page that a job's values come from; empty for a job of the API or of another extension."""
    name = values[place] if len(values) > place else ""
    return name if isinstance(name, str) and len(name) <= LONGEST else ""


class LastResults:
    """The most recent picture of each frame, for each visitor of the page: of the visitors who made some last."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[str, dict[str, Image.Image]] = OrderedDict()
        self._lock = threading.Lock()  # jobs and buttons run in threads of their own

    def remember(self, visitor: str, frame: str, image: Image.Image) -> None:
        """Keep `image` as the visitor's last one of its frame; what nobody asked for on a page is not kept."""
        if not visitor:
            return
        with self._lock:
            self._pictures.setdefault(visitor, {})[frame] = image
            self._pictures.move_to_end(visitor)
            while len(self._pictures) > VISITORS:
                self._pictures.popitem(last=False)

    def get(self, visitor: str, frame: str) -> Image.Image | None:
        """The visitor's last picture of a frame; None before the first."""
        with self._lock:
            return self._pictures.get(visitor, {}).get(frame)
