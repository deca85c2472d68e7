"""Pictures that a visitor sends: stored by gradio, opened with typed errors that name the file, not its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..core.errors import InputError
from ..core.picture.sizes import MOST_PIXELS, MOST_SIDE
from ..unet.images import open_image

TITLES = {
    "stack_picture": "the picture of a layer",
    "init": "the picture to start from",
    "control_image": "the picture to follow",
    "fg_image": "the foreground",
    "bg_image": "the background",
    "blend_image": "the blended picture",
}
MAX_FILE_SIZE = "50mb"


def path_of(name: str, value: Any) -> Path | None:
    """The stored file of a picture field's raw value; None for an empty field. InputError for anything else."""
    if value is None:
        return None
    path = value.get("path") if isinstance(value, Mapping) else None
    if not isinstance(path, str) or not path:
        raise InputError(f"{TITLES[name]} without a file", "an uploaded picture", "choose the picture again")
    return Path(path)


def opened(name: str, value: Any) -> Image.Image | None:
    """The picture of a field, upright RGBA; None for an empty field; InputError for what is no usable picture."""
    path = path_of(name, value)
    if path is None:
        return None
    check_pixels(path, name)
    try:
        return Image.fromarray(open_image(path, name))
    except InputError as error:
        raise InputError(named(error.got, path), error.expected, error.what_to_do) from error
    except Exception as error:  # Pillow's readers fail in many ways on a broken file
        raise unreadable(path, name, error) from error


def check_pixels(path: Path, name: str) -> None:
    """InputError for a picture whose header promises more pixels than the page takes."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise too_large(path, "more than 100 million pixels") from None
    except Exception as error:
        raise unreadable(path, name, error) from error
    if width * height > MOST_PIXELS:
        raise too_large(path, f"{width}x{height} pixels")


def too_large(path: Path, size: str) -> InputError:
    """The error for a picture of too many pixels."""
    return InputError(f"{path.name} of {size}", f"at most as many as {MOST_SIDE}x{MOST_SIDE}", "scale it down first")


def unreadable(path: Path, name: str, error: Exception) -> InputError:
    """The error for a file that is no picture, or a broken one."""
    gone = isinstance(error, FileNotFoundError)
    reason = "is not there any more" if gone else "cannot be read as a picture"
    detail = "" if gone or isinstance(error, UnidentifiedImageError) else f" ({named(str(error), path)})"
    return InputError(
        f"{path.name}, which {reason}{detail}",
        f"a whole PNG, JPEG or WebP file as {TITLES[name]}",
        "choose another file",
    )


def named(message: str, path: Path) -> str:
    """A message with the file's name in place of its path on the server."""
    return message.replace(str(path), path.name)
