"""The three ways of a WebUI to fit an image into a size, by all their names."""

from __future__ import annotations

from enum import Enum

from ..errors import InputError


class ResizeMode(Enum):
    """The WebUI's resize modes; the values are its labels."""

    STRETCH = "Just Resize"
    CROP = "Crop and Resize"
    FILL = "Resize and Fill"

    @property
    def key(self) -> str:
        """The name on a command line, such as crop-and-resize."""
        return "-".join(self.value.casefold().split())

    @classmethod
    def named(cls, name: ResizeMode | str) -> ResizeMode:
        """The mode of a label or a key; InputError lists the labels."""
        for mode in cls:
            if name in (mode, mode.value, mode.key):
                return mode
        labels = ", ".join(mode.value for mode in cls)
        raise InputError(f"resize mode {name!r}", f"one of: {labels}", "choose one of them")
