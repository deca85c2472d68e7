"""What the interface that a Layers tab stands in brings along: who paints, where stacks are kept, how files come in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ...core.errors import InputError
from ...core.picture.sizes import MOST_SIDE
from ...sets.layer_set import MOST_LAYERS
from ...sets.stack import PaintRequest, Stack
from ...sets.stack_store import StackStore
from ..ranges import Range, encodable, shown
from .work import Watch, Works

LONGEST_TEXT = 2000  # of a prompt, in characters
LEAST_SIDE = 64


@dataclass(frozen=True)
class Setting:
    """A field of how to paint: a number in a range, a choice among texts, or a text."""

    name: str
    label: str
    default: Any
    range: Range | None = None
    step: float = 1
    choices: tuple[str, ...] = ()

    def read(self, value: Any) -> Any:
        """The value of a field; InputError for what is none."""
        if self.range is not None:
            return self.range.checked(self.label, value)
        if self.choices and value not in self.choices:
            raise InputError(f"{self.label} {shown(value)}", f"one of {', '.join(self.choices)}", "choose one of them")
        return read_text(self.label, value)


def read_text(label: str, value: Any) -> str:
    """A field's text; InputError for what is none, or too long."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise InputError(f"{label} {shown(value)}", f"a text of at most {LONGEST_TEXT} characters", f"correct {label}")
    return encodable(value).replace("\0", "")


Paint = Callable[[PaintRequest, dict[str, Any], Watch], Image.Image]


def path_of_upload(value: Any) -> Path | None:
    """The file of an upload, as any gradio gives it: a path, an object with a name, what the browser sent."""
    if isinstance(value, list):
        value = value[0] if value else None
    name = value.get("path") if isinstance(value, dict) else getattr(value, "name", value)
    return Path(name) if isinstance(name, (str, Path)) and str(name) else None


def temporary_folder(token: str) -> Path:
    """A folder that any gradio serves from."""
    return Path(tempfile.gettempdir()) / "layerdiffuse-layers" / token


def as_given(value: Any) -> Image.Image | None:
    """A picture that gradio has opened."""
    return value


def shown_as_it_is(token: str, picture: Image.Image) -> Any:
    """What a picture component takes: gradio makes the file."""
    return picture


@dataclass
class StackPlace:
    """An interface with a Layers tab."""

    store: StackStore
    paint: Paint
    canvas: Callable[[], tuple[int, int]]  # width and height of a new stack
    settings: tuple[Setting, ...] = ()
    open_picture: Callable[[Any], Image.Image | None] = as_given
    path_of: Callable[[Any], Path | None] = path_of_upload
    preview: Callable[[str, Image.Image], Any] = shown_as_it_is
    downloads: Callable[[str], Path] = temporary_folder
    raw: bool = False  # whether values come as the browser sent them
    most_layers: int = MOST_LAYERS
    most_side: int = MOST_SIDE
    preview_side: int = 1024  # pixels of a side that a browser is sent at most
    suggested: Callable[[], dict[str, Any]] = dict  # values of settings that suit the model, for an empty stack
    works: Works = field(default_factory=Works)

    def stack(self, token: Any) -> Stack:
        """The stack of a browser."""
        return self.store.of(token, lambda: Stack.of_size(*self.canvas()))

    def new_stack(self, width: Any, height: Any) -> Stack:
        """An empty stack; InputError for a size that is none."""
        rule = Range(LEAST_SIDE, self.most_side, whole=True)
        return Stack.of_size(int(rule.checked("width", width)), int(rule.checked("height", height)))

    def check_room(self, stack: Stack) -> None:
        """InputError where one more layer would be too many."""
        if len(stack.state.layers) >= self.most_layers:
            raise InputError(f"{self.most_layers + 1} layers", f"at most {self.most_layers} here", "delete one first")
