"""OpenRaster files: a ZIP of PNGs and stack.xml, by the specification 0.0.5 of freedesktop.org."""

from __future__ import annotations

from typing import BinaryIO
from unicodedata import category
from xml.etree import ElementTree

from .archives import Archive
from .layer_set import LayerSet
from .manifest import member_names, png_bytes

MIMETYPE = "image/openraster"
THUMBNAIL = (256, 256)


def write_ora(layer_set: LayerSet, stream: BinaryIO) -> None:
    """Write the layers, their stack, the merged picture and a thumbnail; "mimetype" comes first and is not packed."""
    names = [f"data/{name}" for name in member_names(layer_set, ".png")]
    merged = layer_set.composite()
    with Archive(stream) as archive:
        archive.add("mimetype", MIMETYPE.encode())
        archive.add("stack.xml", stack_xml(layer_set, names))
        for name, layer in zip(names, layer_set, strict=True):
            archive.add(name, png_bytes(layer.picture))
        archive.add("mergedimage.png", png_bytes(merged))
        merged.thumbnail(THUMBNAIL)
        archive.add("Thumbnails/thumbnail.png", png_bytes(merged))


def stack_xml(layer_set: LayerSet, names: list[str]) -> bytes:
    """The stack, top layer first."""
    root = ElementTree.Element("image", version="0.0.5", w=str(layer_set.width), h=str(layer_set.height))
    stack = ElementTree.SubElement(root, "stack", name="root")
    for name, layer in reversed(list(zip(names, layer_set, strict=True))):
        values = {
            "name": printable(layer.name),
            "src": name,
            "x": str(layer.left),
            "y": str(layer.top),
            "opacity": f"{layer.opacity:g}",
            "visibility": "visible" if layer.visible else "hidden",
            "composite-op": "svg:src-over",
        }
        ElementTree.SubElement(stack, "layer", values)
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)


def printable(text: str) -> str:
    """A text without the characters that XML has no way to write."""
    return "".join(" " if category(letter) == "Cc" else letter for letter in text if letter not in "\ufffe\uffff")
