"""A sprite sheet: the visible layers side by side in one PNG, and where each lies, as TexturePacker's "JSON (Hash)"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from .. import __version__
from ..core.errors import InputError
from ..core.picture.sizes import MOST_SIDE
from .layer_set import Layer, LayerSet
from .manifest import Members, member_names, png_bytes, table_bytes
from .preparing import premultiplied
from .save_options import SHAPES, SaveOptions

SHEET, TABLE = "sheet.png", "sheet.json"
Place = tuple[int, int]


def sprite_members(layer_set: LayerSet, options: SaveOptions) -> Members:
    """The sheet and its table; `layer_set` has its padding already, which no frame shows.

    InputError where no layer is visible.
    """
    shown = layer_set.with_layers(layer_set.visible)
    if not len(shown):
        raise InputError("a set without a visible layer", "at least one", "make one visible")
    sheet, places = packed(shown.layers, options)
    yield SHEET, png_bytes(premultiplied(sheet) if options.premultiplied else sheet)
    yield TABLE, table_bytes(sheet_table(shown, places, sheet, options))


def packed(layers: Sequence[Layer], options: SaveOptions) -> tuple[Image.Image, list[Place]]:
    """The sheet, of the shape wanted, and the left and top of each layer on it; shelves, highest layers first.

    InputError for a sheet that gets too large.
    """
    order = sorted(range(len(layers)), key=lambda place: (-layers[place].height, place))
    places, used = _on_shelves([layers[place] for place in order], _shelf_width(layers))
    sides = SHAPES[options.shape]
    size = used if sides is None else sides(*used)
    if max(size) > MOST_SIDE:
        raise InputError(f"a sprite sheet of {size[0]}x{size[1]}", f"sides of at most {MOST_SIDE}", "save fewer layers")
    sheet = Image.new("RGBA", size)
    for index, place in zip(order, places, strict=True):
        sheet.paste(layers[index].picture, place)
    return sheet, [place for _, place in sorted(zip(order, places, strict=True))]


def _shelf_width(layers: Sequence[Layer]) -> int:
    """About the side of a square of the same area; never less than the widest layer."""
    area = sum(layer.width * layer.height for layer in layers)
    return max(int(area**0.5 * 1.05), *(layer.width for layer in layers), 1)


def _on_shelves(layers: Sequence[Layer], width: int) -> tuple[list[Place], Place]:
    """Places of layers in the order given, and the width and height that they take."""
    places, left, top, shelf, used = [], 0, 0, 0, 0
    for layer in layers:
        if left and left + layer.width > width:
            left, top, shelf = 0, top + shelf, 0
        places.append((left, top))
        left, shelf = left + layer.width, max(shelf, layer.height)
        used = max(used, left)
    return places, (used, top + shelf)


def sheet_table(
    layer_set: LayerSet, places: Sequence[Place], sheet: Image.Image, options: SaveOptions
) -> dict[str, Any]:
    """Frames by name, bottom layer first, and what engines want to know of the sheet."""
    names = member_names(layer_set, ".png")
    frames = dict(zip(names, _frames(layer_set, places, options.padding or 0), strict=True))
    meta = {
        "app": "sd-webui-layerdiffuse",
        "version": __version__,
        "image": SHEET,
        "format": "RGBA8888",
        "size": {"w": sheet.width, "h": sheet.height},
        "scale": "1",
        "premultipliedAlpha": options.premultiplied,
    }
    return {"frames": frames, "meta": meta}


def _frames(layer_set: LayerSet, places: Sequence[Place], padding: int) -> Iterator[dict[str, Any]]:
    canvas = {"w": layer_set.width, "h": layer_set.height}
    for layer, (left, top) in zip(layer_set, places, strict=True):
        size = {"w": layer.width - 2 * padding, "h": layer.height - 2 * padding}
        source = {"x": layer.left + padding, "y": layer.top + padding, **size}
        yield {
            "frame": {"x": left + padding, "y": top + padding, **size},
            "rotated": False,
            "trimmed": source != {"x": 0, "y": 0, **canvas},
            "spriteSourceSize": source,
            "sourceSize": canvas,
            "name": layer.name,
            "opacity": layer.opacity,
        }
