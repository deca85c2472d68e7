"""The Forge family's infotext in pixels: it makes a picture opaque, to write into the last bits of its alpha.

Layers are left out; the generation parameters are in their files all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..hosts.webui.modules import has_module, host_module
from .files import is_ours
from .wrapping import unwrap, wrap

NAME = "add_stealth_pnginfo"


def writer() -> Any | None:
    """The module that writes it, in a WebUI that has one."""
    if not has_module("modules.stealth_infotext"):
        return None
    module = host_module("stealth_infotext")
    return module if hasattr(module, NAME) else None


def install() -> None:
    """Keep it away from layers."""
    module = writer()
    if module is not None:
        wrap(module, NAME, but_for_layers)


def remove() -> None:
    """Give the WebUI its own function back."""
    module = writer()
    if module is not None:
        unwrap(module, NAME)


def but_for_layers(original: Callable[..., None], parameters: Any, *others: Any, **named: Any) -> None:
    """The WebUI's function, for all pictures but ours with alpha."""
    image, texts = parameters.image, parameters.pnginfo or {}
    if image.mode != "RGBA" or not is_ours(image, texts.get("parameters")):
        original(parameters, *others, **named)
