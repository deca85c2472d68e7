"""A picture as a file: its name, and PNG or WebP with its settings as text; written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags, Image, PngImagePlugin

from ..core.errors import InputError
from ..files.names import slug
from ..files.whole_files import check_folder, unwritable, write_new, write_whole


def file_stem(prompt: str, seed: int, frame: str) -> str:
    """`a-red-apple-1` or `a-red-apple-1-foreground`: prompt, seed and frame, safe on every file system."""
    return "-".join(part for part in (slug(prompt), str(seed), frame) if part)


def write_picture(path: Path, image: Image.Image, parameters: str, stem: str) -> Path:
    """Write PNG or lossless WebP by the path's ending, over an older file; without one into that folder, as `stem`.

    InputError for another ending.
    """
    if path.is_dir() or not path.suffix:
        return write_into(check_folder(path), stem, image, parameters)
    save = SAVERS.get(path.suffix.lower())
    if save is None:
        raise InputError(f"the file name {path.name}", f"one that ends in {' or '.join(SAVERS)}", "rename it")
    check_folder(path.parent, "path")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda partial: save(image, partial, parameters))
    return path


def write_into(folder: Path, stem: str, image: Image.Image, parameters: str = "") -> Path:
    """Write a PNG into a folder, which is made where it is missing, under a name that nobody has; gives the path.

    OutputError where that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return write_new(folder, stem, ".png", lambda partial: save_png(image, partial, parameters))


def save_png(image: Image.Image, path: Path, parameters: str = "") -> None:
    """Write a PNG with the text chunk that WebUIs read settings from."""
    info = PngImagePlugin.PngInfo()
    if parameters:
        info.add_text("parameters", parameters)
    image.save(path, format="PNG", pnginfo=info)


def save_webp(image: Image.Image, path: Path, parameters: str = "") -> None:
    """Write a lossless WebP, colours under alpha 0 too, with the EXIF comment that WebUIs read settings from."""
    exif = Image.Exif()
    if parameters:
        comment = b"UNICODE\0" + parameters.encode("utf-16-be")
        exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: comment}
    image.save(path, format="WEBP", lossless=True, exact=True, exif=exif)


SAVERS = {".png": save_png, ".webp": save_webp}
