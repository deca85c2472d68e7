"""How layers leave the WebUI: as files with alpha, named after their frames; in grids on a checkerboard; by API."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin, TiffTags, features

from ...core.picture.alpha import checkerboard_preview, least_alpha
from ...form.arguments import INFOTEXT_PREFIX
from ..host.modules import option
from ..page.options import Options

MARK = "layerdiffuse_frame"  # attribute of a PIL image of ours: its frame's name
WITHOUT_ALPHA = (".jpg", ".jpeg")
WEBP, WEBP_SIDE = ".webp", 16383  # pixels that a WebP's side may have
LOSSLESS = {"lossless": True, "exact": True, "quality": 100}  # without `exact` hidden colours are thrown away
WHITE = "#ffffff"
TIFF_HEADER = struct.Struct(">2sHI")  # byte order, 42, where the first folder is
TIFF_FOLDER = struct.Struct(">HHHIII")  # of one field: 1, its tag, type, count and value, where the next folder is
KEPT = "layerdiffuse_kept"  # attribute of a picture that was kept transparent in the Extras tab
EXTRAS = {"extras", "postprocessing"}  # texts by which WebUIs tell how a picture came about there


def mark(image: Image.Image, frame: str, several: bool) -> Image.Image:
    """Mark this very image as a layer of ours; `several` when its name must say which frame it is.

    An attribute: what lies in an image's `info` goes on to every copy, and an API writes it into its PNGs.
    """
    setattr(image, MARK, frame if several else "")
    return image


def is_marked(image: Image.Image) -> bool:
    """Whether an image was marked in this run."""
    return hasattr(image, MARK)


def is_ours(image: Image.Image, texts: Mapping[str, Any] | None) -> bool:
    """Whether an image is a layer: marked in this run, or, by the texts for its file, one of ours or of the Extras."""
    texts = texts or {}
    if is_marked(image) or f"{INFOTEXT_PREFIX}method" in (texts.get("parameters") or ""):
        return True
    of_extras = hasattr(image, KEPT) or not EXTRAS.isdisjoint(texts)
    return of_extras and image.mode == "RGBA" and least_alpha(image) < 255


def is_layer(image: Image.Image, texts: Mapping[str, Any] | None) -> bool:
    """Whether nobody may change an image's pixels: a marked one, or one of ours that has alpha."""
    return is_marked(image) or (image.mode == "RGBA" and is_ours(image, texts))


# --- names


def before_saving(parameters: Any, options: Options) -> None:
    """Before the WebUI saves: a layer with alpha gets a format that keeps it, its frame's name, and its folder."""
    image, given = parameters.image, parameters.filename
    if not is_ours(image, parameters.pnginfo):
        return
    extension = Path(given).suffix
    stem = given.removesuffix(extension)
    if image.mode == "RGBA":
        extension = with_alpha_extension(image, options)
    if is_marked(image):
        stem = named(Path(stem), getattr(image, MARK), options.subfolder)
    if stem + extension != given:  # which the WebUI has not seen
        parameters.filename = free(stem, extension)


def with_alpha_extension(image: Image.Image, options: Options) -> str:
    """The extension of the format that the settings want for transparent pictures; PNG where WebP cannot hold it."""
    fits = max(image.size) <= WEBP_SIDE and features.check("webp")
    return WEBP if options.file_format == "webp" and fits else ".png"


def free(stem: str, extension: str) -> str:
    """The path, with a number at its end where a WebUI that numbers its files has not seen that it is taken."""
    path, number = stem + extension, 0
    while Path(path).exists() and option("save_images_add_number", True):
        number += 1
        path = f"{stem}-{number}{extension}"
    return path


def named(stem: Path, frame: str, subfolder: str) -> str:
    """A file's path without extension, with the frame's name at its end, in a sub-folder where one is wanted."""
    folder = stem.parent / subfolder if subfolder else stem.parent
    with contextlib.suppress(OSError):  # the WebUI's own saving says what is wrong with the folder
        folder.mkdir(parents=True, exist_ok=True)
    return str(folder / (f"{stem.name}-{frame}" if frame else stem.name))


# --- files


def write_webp(image: Image.Image, path: str, infotext: str | None) -> None:
    """A WebP with the very pixels, hidden colours too."""
    more = {"exif": user_comment(infotext)} if infotext and option("enable_pnginfo", True) else {}
    image.save(path, "WEBP", **LOSSLESS, **more)


def user_comment(text: str) -> bytes:
    """Exif of one field, UserComment: eight bytes that name its encoding, and UTF-16 with the high byte first.

    EXIF 2.32, 4.6: a TIFF header, a folder that points to the Exif folder, which points to the text. Pillow would call
    the bytes numbers, and the readers of WebUIs would give up.
    """
    comment = b"UNICODE".ljust(8, b"\0") + utf_16(text)
    exif_at = TIFF_HEADER.size + TIFF_FOLDER.size
    folders = [
        (ExifTags.IFD.Exif, TiffTags.LONG, 1, exif_at),
        (ExifTags.Base.UserComment, TiffTags.UNDEFINED, len(comment), exif_at + TIFF_FOLDER.size),
    ]
    written = [TIFF_FOLDER.pack(1, *field, 0) for field in folders]
    return b"".join([TIFF_HEADER.pack(b"MM", 42, TIFF_HEADER.size), *written, comment])


def utf_16(text: str) -> bytes:
    """Text as UTF-16, high byte first, without a mark of the byte order."""
    return text.encode("utf-16-be", "surrogatepass")


def without_alpha(image: Image.Image) -> Image.Image:
    """RGBA as a format without alpha shows it: on the WebUI's colour for transparent parts, white as a rule."""
    try:
        ground = Image.new("RGBA", image.size, option("img2img_background_color", WHITE))
    except ValueError:  # no colour at all
        ground = Image.new("RGBA", image.size, WHITE)
    ground.alpha_composite(image)
    flat = ground.convert("RGB")
    flat.info = dict(image.info)
    return flat


# --- grids, API


def on_checkerboard(parameters: Any) -> None:
    """Layers of a grid lie on a checkerboard, as a grid has no alpha."""
    parameters.imgs = [
        checkerboard_preview(image) if image.mode == "RGBA" and is_marked(image) else image for image in parameters.imgs
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
