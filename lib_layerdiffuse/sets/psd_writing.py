"""Photoshop files: 8-bit RGB, pixel layers in blend mode normal, RLE, sRGB profile, a true merged picture.

By Adobe's "Photoshop File Formats Specification" (2019). Every editor that knows PSD reads this much of it, and it
needs no package. Numbers are big-endian.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from PIL import Image, ImageCms

from .layer_set import Layer, LayerSet

LONGEST_NAME, LONGEST_OLD_NAME = 255, 31  # UTF-16 units and bytes: Photoshop itself writes no longer ones
STRIP_OFFSETS, STRIP_COUNTS = 273, 279  # TIFF tags
RESOLUTION, ALPHA_NAMES, PROFILE, VERSION_INFO = 1005, 1006, 1039, 1057  # image resources
DOTS = 72 << 16  # an inch, 16.16
PROFILE_DATE = slice(24, 36)
RGB, RLE = 3, 1
TRANSPARENCY = -1  # a layer's channel; 0, 1 and 2 are R, G and B
HIDDEN, MODERN = 2, 8  # a layer's flags


def write_psd(layer_set: LayerSet, stream: BinaryIO) -> None:
    """Write the layers bottom first; the merged picture has alpha only where the set is transparent.

    CLIP STUDIO takes a fourth merged channel for a selection, so an opaque set must not have one.
    """
    channels = 3 if layer_set.is_opaque else 4
    stream.write(struct.pack(">4sH6xHIIHH", b"8BPS", 1, channels, layer_set.height, layer_set.width, 8, RGB))
    stream.write(struct.pack(">I", 0))  # colour mode data
    stream.write(_sized(b"".join(_resources(channels == 4))))
    _write_layers(layer_set, stream, -1 if channels == 4 else 1)
    _write_merged(layer_set, stream, channels)


def _resources(transparent: bool) -> Iterator[bytes]:
    yield _resource(RESOLUTION, struct.pack(">IHHIHH", DOTS, 1, 1, DOTS, 1, 1))
    if transparent:
        yield _resource(ALPHA_NAMES, b"\x0cTransparency")
    yield _resource(PROFILE, srgb_profile())
    program = _utf16("LayerDiffuse")
    yield _resource(VERSION_INFO, struct.pack(">I?", 1, True) + 2 * program + struct.pack(">I", 1))


def srgb_profile() -> bytes:
    """An ICC profile of sRGB, the same at any time."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[PROFILE_DATE] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    return bytes(profile)


def _resource(number: int, content: bytes) -> bytes:
    return struct.pack(">4sHH", b"8BIM", number, 0) + _sized(content) + b"\0" * (len(content) % 2)


def _write_layers(layer_set: LayerSet, stream: BinaryIO, sign: int) -> None:
    """The section of layers: all records first, then the pixels; lengths are put in when they are known."""
    start = stream.tell()
    stream.write(struct.pack(">IIh", 0, 0, sign * len(layer_set)))
    places = [_write_record(layer, number, stream) for number, layer in enumerate(layer_set, start=1)]
    for layer, place in zip(layer_set, places, strict=True):
        for channel, pixels in enumerate(_planes(layer.picture, "ARGB")):
            length = _write_plane(pixels, stream)
            _put(stream, place + 6 * channel + 2, length)
    stream.write(b"\0" * (-(stream.tell() - start - 8) % 4))
    end = stream.tell()
    _put(stream, start + 4, end - start - 8)
    stream.write(struct.pack(">I", 0))  # global layer mask
    _put(stream, start, end - start)


def _write_record(layer: Layer, number: int, stream: BinaryIO) -> int:
    """A layer without its pixels; gives where its list of channels lies, whose lengths are to be put in."""
    left, top, right, bottom = layer.box
    stream.write(struct.pack(">4iH", top, left, bottom, right, 4))
    place = stream.tell()
    for channel in (TRANSPARENCY, 0, 1, 2):
        stream.write(struct.pack(">hI", channel, 0))
    flags = MODERN | (0 if layer.visible else HIDDEN)
    stream.write(struct.pack(">4s4sBBBx", b"8BIM", b"norm", round(layer.opacity * 255), 0, flags))
    name = layer.name.encode("mac_roman", "replace")[:LONGEST_OLD_NAME]
    name = bytes([len(name)]) + name
    extra = struct.pack(">II", 0, 0) + name + b"\0" * (-len(name) % 4)  # no mask, no blending ranges
    extra += _block(b"luni", _utf16(layer.name)) + _block(b"lyid", struct.pack(">I", number))
    stream.write(_sized(extra))
    return place


def _block(key: bytes, content: bytes) -> bytes:
    return b"8BIM" + key + _sized(content + b"\0" * (-len(content) % 4))


def _utf16(text: str) -> bytes:
    """A length in UTF-16 units and so many units; no letter is cut in halves."""
    units = text.encode("utf-16-be")[: 2 * LONGEST_NAME].decode("utf-16-be", "ignore").encode("utf-16-be")
    return struct.pack(">I", len(units) // 2) + units


def _sized(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _put(stream: BinaryIO, place: int, number: int) -> None:
    """Write a length into what was written before."""
    end = stream.tell()
    stream.seek(place)
    stream.write(struct.pack(">I", number))
    stream.seek(end)


def _planes(picture: Image.Image, order: str) -> Iterator[Image.Image]:
    return (picture.getchannel(name) for name in order)


def _write_plane(plane: Image.Image, stream: BinaryIO) -> int:
    """A channel, [H,W] uint8, of a layer; gives its length in bytes."""
    rows = packed_rows(plane)
    counts = struct.pack(f">H{len(rows)}H", RLE, *map(len, rows))
    stream.write(counts)
    stream.writelines(rows)
    return len(counts) + sum(map(len, rows))


def _write_merged(layer_set: LayerSet, stream: BinaryIO, channels: int) -> None:
    """What programs show that know no layers; Photoshop blends it with white where it is transparent."""
    merged = layer_set.composite()
    if channels == 4:
        merged = _on_white(merged)
    rows = [row for plane in _planes(merged, "RGBA"[:channels]) for row in packed_rows(plane)]
    stream.write(struct.pack(f">H{len(rows)}H", RLE, *map(len, rows)))
    stream.writelines(rows)


def _on_white(picture: Image.Image) -> Image.Image:
    """Colours on white, the alpha beside them as it was."""
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    white.putalpha(picture.getchannel("A"))
    return white


def packed_rows(plane: Image.Image) -> list[bytes]:
    """Each row of an 8-bit grey picture by PackBits, as TIFF has it too: Pillow's TIFF writer does the work."""
    buffer = io.BytesIO()
    plane.save(buffer, "TIFF", compression="packbits", strip_size=plane.width)  # a strip is a row
    content = buffer.getvalue()
    with Image.open(buffer) as tiff:
        tags = cast("Any", tiff).tag_v2
        places = zip(_numbers(tags[STRIP_OFFSETS]), _numbers(tags[STRIP_COUNTS]), strict=True)
        return [content[start : start + count] for start, count in places]


def _numbers(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
