"""A layered file into the accordion's pictures: its background, what lies on it, and what they blend to."""

from __future__ import annotations

import functools
import html
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import LayerDiffuseError
from .frames import FRAME_OF_IMAGE
from .ways import Way

TITLE = "Take from a file of layers (PSD, OpenRaster, ZIP)"
TYPES = [".psd", ".psb", ".ora", ".zip"]
IMAGES = tuple(FRAME_OF_IMAGE)


class Accordion(Protocol):
    """As much of the accordion as takes pictures."""

    gradio: Any
    place: Any
    components: dict[str, Any]
    lines: list[tuple[Any, tuple[str, ...]]]

    def row_of(self, method: str | None) -> Way: ...
    def visible_names(self, method: Way) -> set[str]: ...


def build_import(accordion: Accordion, visible: bool, quiet: dict[str, Any]) -> None:
    """The button beneath the pictures, there while the method needs one."""
    gradio, prefix = accordion.gradio, accordion.place.prefix
    with gradio.Row(visible=visible, elem_id=f"{prefix}_import") as line:
        button = gradio.UploadButton(TITLE, file_types=TYPES, size="sm", elem_id=f"{prefix}_import_file")
        told = gradio.HTML("", visible=False, elem_id=f"{prefix}_import_told")
    button.do_not_save_to_config = True
    accordion.lines.append((line, IMAGES))
    pictures = [accordion.components[name] for name in IMAGES]
    chosen = [button, accordion.components["method"]]
    button.upload(functools.partial(take_file, accordion), chosen, [*pictures, told], **quiet)


def take_file(accordion: Accordion, file: Any, method: str | None) -> list[Any]:
    """Updates of the pictures that the method needs, and of the line that says what went wrong."""
    from ..sets.reading import frames_of, read_set

    update = accordion.gradio.update
    path = getattr(file, "name", file)  # gradio 3.41 gives an open file
    try:
        frames = frames_of(read_set(str(path), Path(path).name)) if path else {}
    except LayerDiffuseError as error:
        return [*(update() for _ in IMAGES), update(value=html.escape(str(error)), visible=True)]
    needed = accordion.visible_names(accordion.row_of(method))
    wanted = {name: frame.name for name, frame in FRAME_OF_IMAGE.items() if name in needed}
    missing = [frame for frame in wanted.values() if frame not in frames]
    told = f"No {' and no '.join(missing)} in this file" if missing and path else ""
    found = [update(value=frames[wanted[name]]) if wanted.get(name) in frames else update() for name in IMAGES]
    return [*found, update(value=told, visible=bool(told))]
