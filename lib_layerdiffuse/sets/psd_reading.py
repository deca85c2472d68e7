"""Photoshop files, by psd-tools: pixels of layers in mode normal, masks, groups; what blends otherwise is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import PIL
from PIL import Image, ImageChops

from ..core.errors import LayerDiffuseError, MissingExtraError
from .layer_set import LONGEST_NAME, MOST_LAYERS, MOST_PIXELS, Layer, LayerSet
from .placing import assembled, check_canvas, merged, with_roles

DEEPEST = 16
NORMAL = ("NORMAL", "PASS_THROUGH")
PAINTED = ("pixel", "type")
WITH_PIXELS = (*PAINTED, "smartobject", "shape", "solidcolorfill", "patternfill", "gradientfill")  # as last drawn
MODES = ("RGB", "GRAYSCALE")
DEPTHS = (8, 16)
# without the present Pillow named, pip takes the newest of both, and a WebUI of Pillow 9.5 is broken
INSTALL = f'pip install psd-tools "Pillow=={PIL.__version__}" with the Python that runs this'
Size = tuple[int, int]


def read_psd(content: bytes) -> LayerSet:
    """The layers of a Photoshop file, hidden ones too; ValueError says why not, MissingExtraError without psd-tools."""
    try:
        from psd_tools import PSDImage
    except ImportError as error:
        raise MissingExtraError("no module psd_tools", "psd-tools, to read PSD files", INSTALL) from error
    try:
        document = PSDImage.open(io.BytesIO(content))
        _check_document(document)
        size = document.width, document.height
        layers = _layers(document, size, 0) or [Layer("Background", document.topil().convert("RGBA"))]
        return assembled(*size, with_roles(layers, size))
    except (ValueError, OSError, LayerDiffuseError):
        raise
    except Exception as error:  # the reader raises whatever a broken file meets first
        raise ValueError(f"not readable as PSD: {type(error).__name__}: {error}") from error


def _check_document(document: Any) -> None:
    """ValueError for what has other colours or more layers than are read; no pixel is unpacked."""
    check_canvas(document.width, document.height)
    mode = document.color_mode.name
    if mode not in MODES or document.depth not in DEPTHS:
        raise ValueError(f"a PSD in {mode} of {document.depth} bits; convert it to RGB of 8 bits (Image > Mode)")
    leaves = [layer for layer in document.descendants() if not layer.is_group()]
    if len(leaves) > MOST_LAYERS:
        raise ValueError(f"{len(leaves)} layers, more than {MOST_LAYERS}")
    pixels = sum(layer.width * layer.height for layer in leaves)
    if pixels > MOST_PIXELS:
        raise ValueError(f"layers of {pixels} pixels in all, more than {MOST_PIXELS}")


def _layers(group: Any, size: Size, depth: int) -> list[Layer]:
    """The layers of a group or document, bottom first; of the hidden ones those that can be read."""
    if depth > DEEPEST:
        raise ValueError(f"groups more than {DEEPEST} deep")
    found: list[Layer] = []
    for layer in group:
        if _is_empty(layer):
            continue
        reason = next(_reasons(layer), None)
        if reason is not None and layer.visible:
            raise ValueError(f"layer {_name(layer)[:60]!r} {reason}")
        if reason is None:
            found += _group(layer, size, depth) if layer.is_group() else [_leaf(layer)]
    return found


def _name(layer: Any) -> str:
    """A layer's name; psd-tools 1.9, the last for Pillow 9.5, gives letters beyond 16 bits as two halves."""
    return layer.name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")[:LONGEST_NAME]


def _is_empty(layer: Any) -> bool:
    """Whether there is nothing to see; an adjustment layer has no size either, and changes all below it."""
    from psd_tools.constants import Tag

    return layer.kind in PAINTED and 0 in layer.size and Tag.BRIGHTNESS_AND_CONTRAST not in layer.tagged_blocks


def _group(group: Any, size: Size, depth: int) -> list[Layer]:
    inner = _layers(group, size, depth + 1)
    if not group.visible:
        inner = [replace(layer, visible=False) for layer in inner]
    return merged(_name(group), inner, size, group.opacity / 255 * _fill_opacity(group) / 255)


def _reasons(layer: Any) -> Iterator[str]:
    """Why a layer cannot be read for what it shows."""
    told_mode = layer.blend_mode or layer._record.blend_mode  # psd-tools 1.9 knows a group's own alone
    mode = getattr(told_mode, "name", str(told_mode)).upper()
    if mode not in NORMAL:
        yield f"with blend mode {mode.lower()}; only normal is read"
    if layer.clipping if hasattr(layer, "clipping") else layer.clipping_layer:
        yield "is clipped to the one below it"
    if _has_effects(layer):
        yield "with effects; rasterize them"
    if layer.kind == "artboard":
        yield "is an artboard; export it as a file of its own"
    if layer.is_group():
        if layer.has_mask():
            yield "is a group with a mask; apply it, or merge the group"
        return
    if layer.kind not in WITH_PIXELS or not layer.has_pixels():
        yield f"without pixels ({layer.kind}); rasterize it"
    if layer.has_vector_mask() and layer.kind == "pixel":
        yield "with a vector mask; rasterize it"
    told = layer.mask.parameters if layer.has_mask() and not layer.mask.disabled else None
    if told is not None and (told.user_mask_density not in (None, 255) or told.user_mask_feather):
        yield "with a soft or thin mask; apply it"


def _has_effects(layer: Any) -> bool:
    """Whether a shadow, an outline or the like is drawn; psd-tools passes over those that older Photoshops wrote."""
    from psd_tools.constants import Tag

    told = layer.tagged_blocks.get_data(Tag.OBJECT_BASED_EFFECTS_LAYER_INFO)
    if layer.has_effects() or not told or not told.get(b"masterFXSwitch", True):
        return bool(layer.has_effects())
    return any(hasattr(effect, "keys") and bool(effect.get(b"enab")) for effect in told.values())


def _leaf(layer: Any) -> Layer:
    """A layer with pixels, its mask in its alpha."""
    check_canvas(layer.width, layer.height)
    picture = layer.topil().convert("RGBA")
    if layer.has_mask() and not layer.mask.disabled:
        picture.putalpha(ImageChops.multiply(picture.getchannel("A"), _mask(layer)))
    opacity = layer.opacity / 255 * _fill_opacity(layer) / 255
    return Layer(_name(layer), picture, layer.left, layer.top, opacity=opacity, visible=layer.visible)


def _fill_opacity(layer: Any) -> int:
    from psd_tools.constants import Tag

    return int(layer.tagged_blocks.get_data(Tag.BLEND_FILL_OPACITY, 255))


def _mask(layer: Any) -> Image.Image:
    """A layer's mask where the layer lies."""
    mask = Image.new("L", layer.size, layer.mask.background_color)
    if 0 not in layer.mask.size:
        check_canvas(*layer.mask.size)
        shape = layer.mask.topil()
        if shape is not None:
            mask.paste(shape.convert("L"), (layer.mask.left - layer.left, layer.mask.top - layer.top))
    return mask
