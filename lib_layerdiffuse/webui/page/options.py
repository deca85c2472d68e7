"""The WebUI's settings page "LayerDiffuse" and the command line's flags, as one object.

A setting that nobody can use (edited by hand, say) is told in the log and read as its default: no hook may fail of it.
"""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from ...core.picture.alpha_care import AlphaCare
from ...core.picture.hidden import AS_DECODED, CLEARED, PADDED
from ..host.modules import host_module, option

logger = logging.getLogger(__name__)

PREFIX = "layerdiffuse_"
SECTION = ("layerdiffuse", "LayerDiffuse")
AS_IN_ACCORDION = "As in the accordion"
PASSES = {AS_IN_ACCORDION: 0, "1": 1, "2": 2, "4": 4, "8": 8}
HIDDEN_COLOURS = {
    "Padded: the visible colours go on": PADDED,
    "As decoded": AS_DECODED,
    "Cleared: black, the smallest files": CLEARED,
}


@dataclass(frozen=True)
class Setting:
    """One row of the settings page; `choices` are what is shown and what it means; a path is hidden where paths are."""

    label: str
    choices: dict[str, Any] = field(default_factory=dict)
    is_path: bool = False
    restricted: bool = False  # no business of an API's caller


def setting(default: Any, label: str, **columns: Any) -> Any:
    """A dataclass field that carries its row."""
    return field(default=default, metadata={"setting": Setting(label, **columns)})


def alike(*names: str) -> dict[str, str]:
    """Choices that mean what they say."""
    return {name: name for name in names}


@dataclass(frozen=True)
class Options:
    """What a user can set for all pictures."""

    models_folder: str = setting(
        "",
        "Folder with layer files (looked in first; then models/layer_model of this WebUI, where downloads go)",
        is_path=True,
        restricted=True,
    )
    mirror: str = setting(
        "",
        "Mirror of the Hugging Face hub for downloads, such as https://hf-mirror.com (empty: the hub)",
        restricted=True,
    )
    offline: bool = setting(False, "Never download layer files")
    passes: int = setting(0, "Decoder passes: 8 as published, 1 is fastest", choices=PASSES)
    file_format: str = setting("png", "File format of transparent pictures", choices=alike("png", "webp"))
    subfolder: str = setting(
        "", "Sub-folder for layers, inside the folder for pictures (empty: beside the others)", is_path=True
    )
    precision: str = setting(
        "auto",
        "Precision of the transparency decoder (auto: half precision on a GPU; float32 where pictures come out black)",
        choices=alike("auto", "float32", "float16", "bfloat16"),
    )
    checkerboard: bool = setting(True, "Checkerboard behind transparent pictures in the galleries")
    hidden_colours: str = setting(PADDED, "Colours under full transparency", choices=HIDDEN_COLOURS)
    fill_transparent: bool = setting(False, "Inpaint without a painted mask: paint where the picture is transparent")
    clear_haze: bool = setting(
        True, "Alpha care: clear haze (almost invisible becomes invisible, almost solid solid; soft gradients stay)"
    )
    rescue_opacity: bool = setting(False, "Alpha care: make solid things fully opaque that came out see-through")
    fill_holes: bool = setting(False, "Alpha care: fill transparent holes inside of things, such as lost white areas")
    remove_fringe: bool = setting(False, "Alpha care: take grey seams out of soft edges")

    @property
    def care(self) -> AlphaCare:
        """The repairs of alpha that are wanted."""
        return AlphaCare(*(getattr(self, row.name) for row in fields(AlphaCare)))


def read_options() -> Options:
    """The settings of the running WebUI, with the command line's flags before them."""
    flags = host_module("shared").cmd_opts
    values = {row.name: read_setting(row.name, row.metadata["setting"], row.default) for row in fields(Options)}
    folder = getattr(flags, "layerdiffuse_models", None) or values["models_folder"]
    values["models_folder"] = str(Path(folder).expanduser()) if folder else ""
    values["mirror"] = (getattr(flags, "layerdiffuse_mirror", None) or values["mirror"]).rstrip("/")
    values["offline"] = bool(getattr(flags, "layerdiffuse_offline", False) or values["offline"])
    values["subfolder"] = inside(values["subfolder"])
    return Options(**values)


def read_setting(name: str, row: Setting, default: Any) -> Any:
    """The value of a setting; its default, and a warning, where that is of no use."""
    raw = option(PREFIX + name, None)
    if raw is None:
        return default
    if row.choices:
        raw = row.choices.get(str(raw), raw if raw in row.choices.values() else None)
    if type(raw) is not type(default):
        logger.warning("the setting %s%s is of no use and read as %r", PREFIX, name, default)
        return default
    return raw.strip() if isinstance(raw, str) else raw


def inside(folder: str) -> str:
    """A relative folder that stays inside the one it is put into: no drive, no way up."""
    parts = PurePosixPath(re.sub(r"^[A-Za-z]:", "", folder.strip()).replace("\\", "/")).parts
    return "/".join(part for part in parts if part not in ("/", "//", ".", ".."))


def register_options() -> None:
    """The WebUI's on_ui_settings: add the settings page."""
    shared, gradio = host_module("shared"), importlib.import_module("gradio")
    hidden = getattr(shared, "hide_dirs", {"visible": True})
    for row in fields(Options):
        columns: Setting = row.metadata["setting"]
        shown = {meaning: name for name, meaning in columns.choices.items()}
        component = {"component": gradio.Radio, "component_args": {"choices": list(columns.choices)}} if shown else {}
        if columns.is_path:
            component = {"component_args": hidden}
        info = shared.OptionInfo(shown.get(row.default, row.default), columns.label, section=SECTION, **component)
        info.restrict_api = columns.restricted
        shared.opts.add_option(PREFIX + row.name, info)
