"""Layers as single picture files with a table, layers.json: the members of a ZIP, or the files of a folder."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

from ..files.names import slug
from .layer_set import Layer, LayerSet
from .preparing import premultiplied
from .save_options import SaveOptions

TABLE = "layers.json"
KIND, VERSION = "layerdiffuse layer set", 1
Members = Iterator[tuple[str, bytes]]


def png_bytes(picture: Image.Image) -> bytes:
    """A PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def webp_bytes(picture: Image.Image) -> bytes:
    """A lossless WebP file with the colours under alpha 0."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, exact=True)
    return buffer.getvalue()


ENCODERS: dict[str, Callable[[Image.Image], bytes]] = {".png": png_bytes, ".webp": webp_bytes}


def members(layer_set: LayerSet, options: SaveOptions, suffix: str) -> Members:
    """Names and contents: the layers bottom first, then their table."""
    names = member_names(layer_set, suffix)
    for name, layer in zip(names, layer_set, strict=True):
        yield name, ENCODERS[suffix](premultiplied(layer.picture) if options.premultiplied else layer.picture)
    yield TABLE, table_bytes(table_of(layer_set, names, options))


def member_names(layer_set: LayerSet, suffix: str) -> list[str]:
    """`01-background.png` and so on, bottom first."""
    digits = max(2, len(str(len(layer_set))))
    return [f"{place:0{digits}}-{slug(layer.name)}{suffix}" for place, layer in enumerate(layer_set, start=1)]


def table_of(layer_set: LayerSet, names: list[str], options: SaveOptions) -> dict[str, Any]:
    """All that the pictures alone do not say."""
    head = {"kind": KIND, "version": VERSION, "width": layer_set.width, "height": layer_set.height}
    rows = [row_of(layer, name) for layer, name in zip(layer_set, names, strict=True)]
    return {**head, "order": "bottom first", "premultiplied": options.premultiplied, "layers": rows}


def row_of(layer: Layer, name: str) -> dict[str, Any]:
    """A layer of the table."""
    sides = ("left", "top", "width", "height")
    rest = ("opacity", "visible", "role", "prompt", "seed")
    return {"name": layer.name, "file": name} | {key: getattr(layer, key) for key in (*sides, *rest)}


def table_bytes(table: dict[str, Any]) -> bytes:
    """JSON in UTF-8, for people to read."""
    return json.dumps(table, ensure_ascii=False, indent=1).encode()
