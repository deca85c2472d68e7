"""The running WebUI's own modules, imported when needed: the one place that knows their names."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any


def host_module(name: str) -> ModuleType:
    """A module of the WebUI's package `modules`, for instance `scripts` or `shared`."""
    return importlib.import_module(f"modules.{name}")


def option(name: str, default: Any) -> Any:
    """A value of the WebUI's settings; `default` where this WebUI has no such setting."""
    return getattr(host_module("shared").opts, name, default)


def has_module(name: str) -> bool:
    """Whether a top-level module or a submodule is there, without importing the last part."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def why_not_here() -> str:
    """Why the extension cannot work in this program, in one line; empty where it can.

    SD.Next loads extensions too, but runs on diffusers pipelines and has no LDM networks any more (seen in its code).
    """
    if not has_module("modules.scripts_manager"):
        return ""
    return (
        "got SD.Next; expected AUTOMATIC1111, Forge, reForge or Neo. What to do: use LayerDiffuse in one of these, "
        "or its standalone page (python tasks.py page), and disable the extension here"
    )
