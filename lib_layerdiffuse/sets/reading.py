"""Layered files as layer sets: Photoshop, OpenRaster, and the ZIP files and folders that this program writes."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..core.errors import InputError, LayerDiffuseError
from ..core.methods import BACKGROUND, BLENDED, FOREGROUND
from ..core.picture.sizes import check_pixels
from .archives import MOST_BYTES, checked_archive, member
from .layer_set import Layer, LayerSet
from .manifest import KIND, TABLE, VERSION
from .ora_reading import read_ora
from .placing import assembled
from .psd_reading import read_psd

LONGEST_TABLE = 2**24  # bytes
BROKEN = (ValueError, OSError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)
BROKEN += (SyntaxError, EOFError, struct.error, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError)
Reader = Callable[[bytes], LayerSet]


def read_zip(content: bytes) -> LayerSet:
    """The set of a ZIP that this program wrote; its layers.json says what is where."""
    with checked_archive(io.BytesIO(content)) as archive:
        return _of_table(member(archive, TABLE, LONGEST_TABLE), lambda name: member(archive, name))


READERS: dict[str, Reader] = {".psd": read_psd, ".psb": read_psd, ".ora": read_ora, ".zip": read_zip}


def is_layered(path: str | Path) -> bool:
    """Whether a file's name, or what a folder holds, says that it is a set of layers."""
    path = Path(path)
    return path.suffix.lower() in READERS or (path / TABLE).is_file()


def read_set(source: str | Path | bytes, name: str = "") -> LayerSet:
    """The set of a file, a folder with layers.json, or a file's bytes with its name; InputError says what is wrong."""
    title = name or (str(source) if isinstance(source, (str, Path)) else "the layered file")
    try:
        if isinstance(source, (str, Path)) and Path(source).is_dir():
            return read_folder(Path(source))
        content = source if isinstance(source, bytes) else _bytes(Path(source))
        return _reader(title, content)(content)
    except InputError as error:
        raise InputError(f"{title}: {error.got}", error.expected, error.what_to_do) from error
    except LayerDiffuseError:
        raise
    except BROKEN as error:
        reason = str(error) or type(error).__name__
        expected = f"layers that can be read from {', '.join(READERS)}"
        what_to_do = "save it anew as 8-bit RGB with plain layers, or choose another file"
        raise InputError(f"{title}: {reason[:500]}", expected, what_to_do) from error


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise InputError("no such file" if not path.exists() else "no file", "a file of layers", "correct the path")
    if path.stat().st_size > 2 * MOST_BYTES:
        raise InputError(f"{path.stat().st_size} bytes", f"at most {2 * MOST_BYTES}", "choose a smaller file")
    return path.read_bytes()


def _reader(name: str, content: bytes) -> Reader:
    """By what the file is rather than by its name, which pages lose."""
    kind = Path(name).suffix.lower()
    if content.startswith(b"8BPS"):
        kind = ".psd"
    elif content.startswith(b"PK") and kind != ".ora":
        kind = ".ora" if b"image/openraster" in content[:200] else ".zip"
    if kind not in READERS:
        raise InputError(f"a file of kind {kind or 'unknown'}", f"one of {', '.join(READERS)}", "convert it")
    return READERS[kind]


def read_folder(folder: Path) -> LayerSet:
    """The set of a folder with layers.json; nothing outside of it is opened.

    InputError for another folder, ValueError for a table that names other places.
    """
    if not (folder / TABLE).is_file():
        raise InputError(f"a folder without {TABLE}", "a folder that was saved as layers", "choose another one")
    if not (folder / TABLE).is_file():
        raise InputError(f"a folder without {TABLE}", "a folder that was saved as layers", "choose another one")

    def content(name: str) -> bytes:
        if Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"{TABLE} names {name!r}, which is no file of this folder")
        return _bytes(folder / name)

    return _of_table(content(TABLE), content)


def _of_table(table: bytes, content: Callable[[str], bytes]) -> LayerSet:
    """The set of a layers.json; `content` gives a picture's bytes by its name."""
    told = json.loads(table)
    if not isinstance(told, dict) or told.get("kind") != KIND or not isinstance(told.get("layers"), list):
        raise ValueError(f"{TABLE} does not describe a {KIND}")
    if told.get("version") != VERSION:
        raise ValueError(f"{TABLE} of version {told.get('version')!r}, this program reads {VERSION}")
    layers = [_of_row(row, content, bool(told.get("premultiplied"))) for row in told["layers"]]
    return assembled(told["width"], told["height"], layers)


def _of_row(row: dict[str, Any], content: Callable[[str], bytes], premultiplied: bool) -> Layer:
    picture = read_picture(content(row["file"]), row["file"])
    rest = {key: row[key] for key in ("left", "top", "opacity", "visible", "role", "prompt", "seed") if key in row}
    return Layer(row["name"], _straight(picture) if premultiplied else picture, **rest)


def read_picture(content: bytes, name: str) -> Image.Image:
    """A picture file, bounded, as RGBA. ValueError for what is none."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            check_pixels(image, name)
            return image.convert("RGBA")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: {error}") from error


def _straight(picture: Image.Image) -> Image.Image:
    """What premultiplied levels leave of the colours."""
    pixels = np.array(picture, dtype=np.float64)
    alpha = pixels[..., 3:]
    np.divide(pixels[..., :3] * 255, alpha, out=pixels[..., :3], where=alpha > 0)
    return Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8))


def frames_of(layer_set: LayerSet) -> dict[str, Image.Image]:
    """The pictures of a set by frame, of the canvas's size: its background, all that lies on it, and what it blends to.

    A set whose lowest visible layer does not fill the canvas has no background; all of it is foreground then.
    """
    shown = layer_set.visible
    ground = [shown[0]] if shown and (shown[0].role == BACKGROUND or shown[0].fills(layer_set.size)) else []
    others = shown[len(ground) :]
    frames = {}
    if others:
        frames[FOREGROUND] = layer_set.with_layers(others).composite()
    if ground:
        frames[BACKGROUND] = layer_set.with_layers(ground).composite()
    if ground and others:
        frames[BLENDED] = layer_set.blended or layer_set.composite()
    return frames
