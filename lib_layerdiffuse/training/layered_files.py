"""Layered pictures: visible layers of PSD and OpenRaster files, bottom first, as RGBA images of the canvas's size.

Only what a plain composite shows is read: blend mode normal, opacity, layer masks, groups. Anything else is an error,
for the composite would be another picture.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from PIL import Image, ImageChops

from ..core.errors import MissingExtraError
from ..standalone.extras import install_line

MOST_PIXELS, MOST_LAYERS, MOST_BYTES, LONGEST_XML, DEEPEST = 2**26, 64, 2**28, 2**20, 16
NORMAL = ("svg:src-over", "")


@dataclass
class Layered:
    """A layer by name, RGBA of the canvas's size, its opacity and masks applied."""

    name: str
    image: Image.Image


def read_psd(content: bytes) -> list[Layered]:
    """Visible layers of a Photoshop file, bottom first; MissingExtraError without psd-tools."""
    try:
        from psd_tools import PSDImage
    except ImportError as error:
        raise MissingExtraError("no module psd_tools", "psd-tools, to read PSD files", install_line("psd")) from error
    try:
        document = PSDImage.open(io.BytesIO(content))
        check_canvas(document.width, document.height)
        leaves = list(_leaves(document, 1.0, 0))
        check_count(len(leaves))
        return [Layered(leaf.name, _placed(leaf, opacity, document.size)) for leaf, opacity in leaves]
    except (ValueError, OSError):
        raise
    except Exception as error:  # the reader raises whatever a broken file meets first
        raise ValueError(f"not readable as PSD: {type(error).__name__}: {error}") from error


def _leaves(group: Any, opacity: float, depth: int) -> Iterator[tuple[Any, float]]:
    """Visible layers that are no groups, and the opacity of each with that of its groups."""
    if depth > DEEPEST:
        raise ValueError(f"groups more than {DEEPEST} deep")
    for layer in group:
        if not layer.visible or (not layer.is_group() and 0 in layer.size):  # nothing to see
            continue
        mode = getattr(layer.blend_mode, "name", str(layer.blend_mode)).upper()
        if mode not in ("NORMAL", "PASS_THROUGH"):
            raise ValueError(f"layer {layer.name!r} with blend mode {mode.lower()}; only normal is read")
        if layer.clipping if hasattr(layer, "clipping") else layer.clipping_layer:
            raise ValueError(f"layer {layer.name!r} is clipped to the one below it")
        share = opacity * layer.opacity / 255
        if layer.is_group():
            if layer.has_mask():
                raise ValueError(f"group {layer.name!r} with a mask")
            yield from _leaves(layer, share, depth + 1)
        elif not layer.has_pixels():
            raise ValueError(f"layer {layer.name!r} without pixels ({layer.kind})")
        else:
            yield layer, share


def _placed(layer: Any, opacity: float, size: tuple[int, int]) -> Image.Image:
    """A PSD layer on its canvas, with its mask and opacity in its alpha."""
    check_canvas(layer.width, layer.height)
    image = on_canvas(layer.topil().convert("RGBA"), (layer.left, layer.top), size)
    alpha = image.getchannel("A")
    if layer.has_mask() and not layer.mask.disabled:
        mask = Image.new("L", size, layer.mask.background_color)
        shape = layer.mask.topil()
        if shape is not None:
            check_canvas(*shape.size)
            mask.paste(shape.convert("L"), (layer.mask.left, layer.mask.top))
        alpha = ImageChops.multiply(alpha, mask)
    return faded(image, alpha, opacity)


def on_canvas(image: Image.Image, place: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """`image` RGBA at `place` of an empty canvas; what lies outside is cut off."""
    canvas = Image.new("RGBA", size)
    canvas.paste(image, place)
    return canvas


def faded(image: Image.Image, alpha: Image.Image, opacity: float) -> Image.Image:
    """`image` with another alpha times `opacity`."""
    if opacity < 1:
        alpha = alpha.point(lambda value: round(value * opacity))
    image.putalpha(alpha)
    return image


def read_ora(content: bytes) -> list[Layered]:
    """Visible layers of an OpenRaster file, bottom first."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            root = ElementTree.fromstring(_stack(archive))
            size = int(root.get("w", 0)), int(root.get("h", 0))
            check_canvas(*size)
            entries = list(_entries(root.find("stack"), 1.0, 0))[::-1]
            check_count(len(entries))
            return [Layered(entry.get("name", ""), _read(archive, entry, share, size)) for entry, share in entries]
    except (zipfile.BadZipFile, ElementTree.ParseError, NotImplementedError, RuntimeError, KeyError) as error:
        raise ValueError(f"not readable as OpenRaster: {error}") from error


def _stack(archive: zipfile.ZipFile) -> bytes:
    text = _member(archive, "stack.xml", LONGEST_XML)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError("stack.xml with a document type")
    return text


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    if archive.getinfo(name).file_size > most:
        raise ValueError(f"{name} of {archive.getinfo(name).file_size} bytes, more than {most}")
    with archive.open(name) as file:
        return file.read(most)


def _entries(
    stack: ElementTree.Element | None, opacity: float, depth: int
) -> Iterator[tuple[ElementTree.Element, float]]:
    """Visible layers, top first, and the opacity of each with that of its stacks."""
    if stack is None or depth > DEEPEST:
        raise ValueError("stack.xml without a stack" if stack is None else f"stacks more than {DEEPEST} deep")
    for entry in stack:
        if entry.get("visibility", "visible") == "hidden":
            continue
        mode = entry.get("composite-op", "")
        if mode not in NORMAL:
            raise ValueError(f"layer {entry.get('name', '')!r} with composite-op {mode}; only svg:src-over is read")
        share = opacity * min(1.0, max(0.0, float(entry.get("opacity", 1))))
        if entry.tag == "stack":
            yield from _entries(entry, share, depth + 1)
        elif entry.tag == "layer":
            yield entry, share


def _read(archive: zipfile.ZipFile, entry: ElementTree.Element, opacity: float, size: tuple[int, int]) -> Image.Image:
    source = entry.get("src", "")
    try:
        image = Image.open(io.BytesIO(_member(archive, source, MOST_BYTES)))
        check_canvas(*image.size)
        image = image.convert("RGBA")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source}: {error}") from error
    image = on_canvas(image, (int(entry.get("x", 0)), int(entry.get("y", 0))), size)
    return faded(image, image.getchannel("A"), opacity)


def check_canvas(width: int, height: int) -> None:
    """ValueError for a canvas or layer that is empty or too large."""
    if min(width, height) < 1 or width * height > MOST_PIXELS:
        raise ValueError(f"{width}x{height} pixels, not 1 to {MOST_PIXELS}")


def check_count(count: int) -> None:
    """ValueError for more layers than are read."""
    if count > MOST_LAYERS:
        raise ValueError(f"{count} layers, more than {MOST_LAYERS}")


READERS: dict[str, Callable[[bytes], list[Layered]]] = {".psd": read_psd, ".ora": read_ora}
