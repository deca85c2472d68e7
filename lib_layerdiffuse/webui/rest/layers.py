"""Layers to a file and back: nothing here needs a model."""

import base64
import binascii
import dataclasses
from typing import Any

from PIL import Image

from ...core.errors import InputError
from ...core.methods import BACKGROUND, FOREGROUND
from ...form.values import image_to_base64
from ...sets.formats import pack_set
from ...sets.layer_set import MOST_LAYERS, Layer, LayerSet
from ...sets.reading import frames_of, read_set
from ...sets.save_options import SaveOptions
from . import schemas
from .pixels import picture_of

OPTIONS = [field.name for field in dataclasses.fields(SaveOptions)]
LAYER = ["name", "left", "top", "opacity", "visible", "role", "prompt", "seed"]


def export(request: schemas.ExportRequest) -> dict[str, Any]:
    """Layers to a PSD, OpenRaster or ZIP file"""
    if len(request.layers) > MOST_LAYERS:
        raise InputError(f"{len(request.layers)} layers", f"at most {MOST_LAYERS}", "send fewer")
    options = SaveOptions(**{name: getattr(request, name) for name in OPTIONS})
    layers = [Layer(picture=picture_of(row.image), **told_of(row)) for row in request.layers]
    blended = picture_of(request.blended) if request.blended else None
    made = pack_set(LayerSet(request.width, request.height, tuple(layers), blended), request.format, options)
    return {"file": base64.b64encode(made.content).decode("ascii"), "suffix": made.suffix, "notes": list(made.notes)}


def import_file(request: schemas.ImportRequest) -> dict[str, Any]:
    """A PSD, OpenRaster or ZIP file to layers, and to a foreground and a background"""
    try:
        content = base64.b64decode(request.file.partition(",")[2] if request.file.startswith("data:") else request.file)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"no file ({str(error)[:100]})", "base64 of a layered file", "send one") from error
    found = read_set(content, "the file")
    frames = frames_of(found)
    rows = [told_of(layer) | {"image": image_to_base64(layer.picture)} for layer in found]
    told = {"width": found.width, "height": found.height, "layers": rows, "blended": as_text(found.blended)}
    return told | {frame: as_text(frames.get(frame)) for frame in (FOREGROUND, BACKGROUND)}


def told_of(layer: Layer | schemas.LayerRow) -> dict[str, Any]:
    """All of a layer but its picture."""
    return {name: getattr(layer, name) for name in LAYER}


def as_text(picture: Image.Image | None) -> str | None:
    """Base64 of a PNG, where there is a picture."""
    return None if picture is None else image_to_base64(picture)
