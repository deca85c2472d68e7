"""OpenRaster files: layers in mode src-over, stacks within stacks; anything else would blend to another picture."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from xml.etree import ElementTree

from PIL import Image

from .archives import checked_archive, member
from .layer_set import LONGEST_NAME, Layer, LayerSet
from .placing import assembled, check_canvas, merged, with_roles

LONGEST_XML, DEEPEST, MOST_READ = 2**20, 16, 256
NORMAL = ("svg:src-over", "")
Size = tuple[int, int]


def read_ora(content: bytes) -> LayerSet:
    """The layers of an OpenRaster file, hidden ones too; ValueError says why not."""
    try:
        with checked_archive(io.BytesIO(content)) as archive:
            root = ElementTree.fromstring(_stack(archive))
            size = int(root.get("w", 0)), int(root.get("h", 0))
            check_canvas(*size)
            stack = root.find("stack")
            if stack is None:
                raise ValueError("stack.xml without a stack")
            _check_count(stack)
            layers = _layers(archive, stack, size, 0)
    except (zipfile.BadZipFile, ElementTree.ParseError, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"not readable as OpenRaster: {error}") from error
    return assembled(*size, with_roles(layers, size))


def _stack(archive: zipfile.ZipFile) -> bytes:
    text = member(archive, "stack.xml", LONGEST_XML)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError("stack.xml with a document type")
    return text


def _check_count(stack: ElementTree.Element) -> None:
    count = sum(1 for _ in stack.iter("layer"))
    if count > MOST_READ:
        raise ValueError(f"{count} layers, more than {MOST_READ}")


def _layers(archive: zipfile.ZipFile, stack: ElementTree.Element, size: Size, depth: int) -> list[Layer]:
    """The layers of a stack, bottom first."""
    if depth > DEEPEST:
        raise ValueError(f"stacks more than {DEEPEST} deep")
    found: list[Layer] = []
    for entry in reversed(stack):
        visible, name = entry.get("visibility", "visible") != "hidden", entry.get("name", "")[:LONGEST_NAME]
        opacity = min(1.0, max(0.0, float(entry.get("opacity", 1))))
        if entry.tag not in ("stack", "layer"):
            continue
        if visible and entry.get("composite-op", "") not in NORMAL:
            raise ValueError(f"layer {name!r} with composite-op {entry.get('composite-op')}; only svg:src-over is read")
        if entry.tag == "stack":
            inner = _layers(archive, entry, size, depth + 1)
            inner = inner if visible else [replace(layer, visible=False) for layer in inner]
            found += merged(name, inner, size, opacity)
        elif visible or entry.get("src", "") in archive.namelist():
            picture = _picture(archive, entry.get("src", ""))
            place = int(entry.get("x", 0)), int(entry.get("y", 0))
            found.append(Layer(name, picture, *place, opacity=opacity, visible=visible))
    return found


def _picture(archive: zipfile.ZipFile, source: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(member(archive, source))) as image:
            check_canvas(*image.size)
            return image.convert("RGBA")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source}: {error}") from error
