"""An infotext in pixels makes a picture opaque, to be written into the last bits of its alpha: layers are left out.

The Forge family has that built in; AUTOMATIC1111 gets it by extensions, which take the alpha also from what the
gallery's buttons send. The generation parameters are in the files of layers all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from ..host.modules import has_module, host_module
from ..wrapping import unwrap, wrap
from .files import is_layer, is_ours

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
    if has_module("modules.infotext_utils"):
        unwrap(host_module("infotext_utils"), SEND)


def but_for_layers(original: Callable[..., None], parameters: Any, *others: Any, **named: Any) -> None:
    """The WebUI's function, for all pictures but ours with alpha."""
    if not is_layer(parameters.image, parameters.pnginfo):
        original(parameters, *others, **named)


# --- the gallery's buttons

SEND = "send_image_and_dimensions"


def install_sending() -> None:
    """Send layers as they are."""
    if has_module("modules.infotext_utils") and hasattr(host_module("infotext_utils"), SEND):
        wrap(host_module("infotext_utils"), SEND, with_alpha)


def with_alpha(original: Callable[..., Any], sent: Any, *others: Any) -> Any:
    """What is sent from a gallery to another tab: picture, width, height."""
    values = original(sent, *others)
    if not isinstance(values, tuple) or getattr(values[0], "mode", "") != "RGB":
        return values
    read = host_module("infotext_utils").image_from_url_text
    picture = sent if isinstance(sent, Image.Image) else read(sent)
    if picture is None or picture.mode != "RGBA" or not is_ours(picture, {"parameters": infotext_in(picture)}):
        return values
    return (picture, *values[1:])


def infotext_in(picture: Image.Image) -> str | None:
    """The generation parameters of a picture that was read from a file."""
    return host_module("images").read_info_from_image(picture)[0]
