"""The values of the Layers tab's fields, as a browser sends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...sets.stack import Stack, StackLayer, StackState
from ..ranges import Range
from .place import read_text

SEED = Range(-1, 2**32 - 1, whole=True)
WEIGHT = Range(0, 2)
LONGEST_NAME = 200


def read_name(label: str, value: Any) -> str:
    """A layer's name."""
    text = " ".join(read_text(label, value).split())[:LONGEST_NAME]
    return text or "Layer"


def read_switch(label: str, value: Any) -> bool:
    """A box's state."""
    return bool(value)


def read_place(label: str, value: Any) -> int:
    """A place in pixels."""
    return int(Range(-(2**16), 2**16, whole=True).checked(label, value))


def read_number(label: str, value: Any) -> float:
    """A number; the layer checks its range."""
    return Range(0, 100).checked(label, value)


# of the chosen layer
READ: dict[str, Callable[[str, Any], Any]] = {
    "name": read_name,
    "visible": read_switch,
    "scale": read_number,
    "right": read_place,
    "down": read_place,
    "opacity": read_number,
}
FIELDS = tuple(READ)


def key_of(chosen: Any) -> int | None:
    """The key of a line in the list."""
    return int(chosen) if isinstance(chosen, str) and chosen.isascii() and chosen.isdigit() else None


def shift_of(layer: StackLayer, state: StackState) -> tuple[int, int]:
    """How far a layer's middle is right of the canvas's, and below it: what scaling does not change."""
    x, y = layer.middle
    return round(x - state.width / 2), round(y - state.height / 2)


def shown_fields(layer: StackLayer, state: StackState) -> dict[str, Any]:
    """What the fields of a layer show."""
    right, down = shift_of(layer, state)
    values = {name: getattr(layer, name) for name in ("name", "visible", "scale", "opacity")}
    return {**values, "right": right, "down": down}


def apply(stack: Stack, key: int, given: dict[str, Any]) -> StackLayer:
    """The layer with the values of some fields; those that show what it has already change nothing."""
    state = stack.state
    layer = state.layer(key)
    shown = shown_fields(layer, state)
    changes = {name: value for name, value in given.items() if value != shown[name]}
    right, down = (changes.pop(name, shown[name]) for name in ("right", "down"))
    moved = (right, down) != (shown["right"], shown["down"])
    middle = (state.width / 2 + right, state.height / 2 + down) if moved else None
    return stack.update(key, middle, **changes)


def reach(value: int, own: int, canvas: int) -> dict[str, int]:
    """How far a layer may be shifted: until it is out of the canvas."""
    farthest = max((own + canvas) // 2, abs(value))
    return {"minimum": -farthest, "maximum": farthest}
