"""The last layers that were made, for use as the next picture's foreground, background or blended."""

from __future__ import annotations

from PIL import Image


class LastResult:
    """The most recent picture of each frame."""

    def __init__(self) -> None:
        self._pictures: dict[str, Image.Image] = {}

    def remember(self, frame: str, image: Image.Image) -> None:
        """Keep `image` as the last one of its frame."""
        self._pictures[frame] = image

    def get(self, frame: str) -> Image.Image | None:
        """The last picture of a frame; None before the first."""
        return self._pictures.get(frame)
