"""How layers leave the WebUI: as files with alpha, named after their frames; in grids on a checkerboard; by API."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import os
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from ..core.alpha import checkerboard_preview
from ..hosts.webui.modules import option
from .arguments import INFOTEXT_PREFIX
from .options import Options
from .pictures import FRAME_MARK

logger = logging.getLogger(__name__)

KEEPS_ALPHA = (".png",)
USER_COMMENT, EXIF_FOLDER = 0x9286, 0x8769
QUALITY = 100


def mark(image: Image.Image, frame: str, several: bool) -> Image.Image:
    """Mark an image as a layer of ours; `several` when its name must say which frame it is."""
    image.info[FRAME_MARK] = frame if several else ""
    return image


def is_ours(image: Image.Image, infotext: str | None) -> bool:
    """Whether an image is a layer: marked in this run, or read again from a file with our settings."""
    return FRAME_MARK in image.info or f"{INFOTEXT_PREFIX}method" in (infotext or "")


def before_saving(parameters: Any, options: Options) -> None:
    """The WebUI's on_before_image_saved: a layer with alpha becomes a PNG, named after its frame, in its folder."""
    image = parameters.image
    if not is_ours(image, (parameters.pnginfo or {}).get("parameters")):
        return
    stem, extension = os.path.splitext(parameters.filename)
    if image.mode == "RGBA" and extension.lower() not in KEEPS_ALPHA:
        extension = ".png"
    if FRAME_MARK in image.info:
        stem = named(Path(stem), image.info[FRAME_MARK], options.subfolder)
    parameters.filename = free(stem, extension)


def free(stem: str, extension: str) -> str:
    """The path, with a number at its end where a WebUI that numbers its files has not seen that it is taken."""
    path, number = stem + extension, 0
    while os.path.exists(path) and option("save_images_add_number", True):
        number += 1
        path = f"{stem}-{number}{extension}"
    return path


def named(stem: Path, frame: str, subfolder: str) -> str:
    """A file's path without extension, with the frame's name at its end, in a sub-folder where one is wanted."""
    folder = stem.parent / subfolder if subfolder else stem.parent
    with contextlib.suppress(OSError):  # the WebUI's own saving says what is wrong with the folder
        folder.mkdir(parents=True, exist_ok=True)
    return str(folder / (f"{stem.name}-{frame}" if frame else stem.name))


def after_saving(parameters: Any, options: Options) -> None:
    """The WebUI's on_image_saved: a layer's PNG becomes a WebP with alpha where the settings want it."""
    image, path = parameters.image, Path(parameters.filename)
    if options.file_format != "webp" or FRAME_MARK not in image.info or image.mode != "RGBA" or path.suffix != ".png":
        return
    target = Path(free(str(path.with_suffix("")), ".webp"))
    try:
        image.save(target, "WEBP", lossless=True, quality=QUALITY, exif=infotext_exif(parameters.pnginfo))
        path.unlink()
    except OSError as error:
        logger.error("%s stays a PNG: %s", path.name, error)
        return
    parameters.filename = image.already_saved_as = str(target)


def infotext_exif(pnginfo: dict[str, str] | None) -> Image.Exif:
    """The generation parameters where WebUIs look for them in a WebP."""
    exif = Image.Exif()
    text = (pnginfo or {}).get("parameters", "")
    exif.get_ifd(EXIF_FOLDER)[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif


def on_checkerboard(parameters: Any) -> None:
    """The WebUI's on_image_grid: layers lie on a checkerboard, as a grid has no alpha."""
    parameters.imgs = [
        checkerboard_preview(image) if image.mode == "RGBA" and FRAME_MARK in image.info else image
        for image in parameters.imgs
    ]


def for_api(p: Any, processed: Any) -> None:
    """Layers as PNG texts where an API would send them in a format without alpha."""
    if getattr(p, "is_api", False) and option("samples_format", "png").lower() != "png":
        processed.images[:] = [
            as_png_text(image) if getattr(image, "mode", "") == "RGBA" else image for image in processed.images
        ]


def as_png_text(image: Image.Image) -> str:
    """Base64 of a PNG with alpha and infotext: what an API gets where the WebUI would send a format without alpha."""
    metadata = PngImagePlugin.PngInfo()
    for key, value in image.info.items():
        if isinstance(key, str) and isinstance(value, str):
            metadata.add_text(key, value)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=metadata)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
