"""Around the WebUI's saving: whatever the callbacks of other extensions do, and in whichever order, layers stay ours.

Extensions that write an infotext into pixels, watermarks and the like edit the very image that the gallery and the API
show. They are given a copy of a layer; what they write beside the pixels (name, texts) counts.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..host.modules import host_module, option
from ..jobs.init_images import START
from ..jobs.job import job_of
from ..page.options import read_options
from ..wrapping import unwrap, wrap
from . import beside, files

API, ENCODE = "modules.api.api", "encode_pil_to_base64"
logger = logging.getLogger(__name__)


def install() -> None:
    """Wrap what the WebUI calls around its saving, once."""
    for module, name, around in WRAPPED:
        if hasattr(host_module(module), name):
            wrap(host_module(module), name, around)
        else:
            logger.warning("this WebUI has no %s.%s: files may lose transparency", module, name)


def remove() -> None:
    """Give the WebUI its own functions back."""
    for module, name, _ in WRAPPED:
        unwrap(host_module(module), name)
    if API in sys.modules:
        unwrap(sys.modules[API], ENCODE)


def save_image(
    original: Callable[..., Any], image: Any, path: Any, basename: Any, seed: Any = None, *others: Any, **named: Any
) -> Any:
    """The WebUI's naming and saving: a name tells seeds as users read them, that of a grid too."""
    told = guarded(told_seeds, named.get("p"))
    if not told:
        return original(image, path, basename, seed, *others, **named)
    p = named["p"]
    drawn, p.all_seeds = p.all_seeds, told
    of_all = named.get("grid") and seed == drawn[0]
    try:
        return original(image, path, basename, told[0] if of_all else seed, *others, **named)
    finally:
        p.all_seeds = drawn


def told_seeds(p: Any) -> list[int]:
    """The seeds that the job of `p` tells; none where it is not ours."""
    job = job_of(p)
    return [] if job is None or job.failed else job.told_seeds


def before_image_saved(original: Callable[[Any], None], parameters: Any) -> None:
    """All callbacks before a picture is saved, and then the last word on a layer."""
    ours = guarded(layer_of, parameters)
    if ours is None:
        original(parameters)
        return
    parameters.image = ours.copy()
    original(parameters)
    parameters.image = ours
    guarded(files.before_saving, parameters, read_options())


def layer_of(parameters: Any) -> Any | None:
    """The layer that is being saved: the picture itself, or what one that lost its alpha should be; None for others."""
    start = getattr(parameters.image, START, None)
    if start is not None:
        return start
    image = beside.replacement(parameters) or parameters.image
    return image if files.is_layer(image, parameters.pnginfo) else None


def image_saved(original: Callable[[Any], None], parameters: Any) -> None:
    """All callbacks after a picture was saved: the gallery and the API go on with the layer."""
    ours = parameters.image
    if not files.is_layer(ours, parameters.pnginfo):
        original(parameters)
        return
    parameters.image = ours.copy()
    parameters.image.already_saved_as = parameters.filename
    original(parameters)
    parameters.image = ours


def image_grid(original: Callable[[Any], None], parameters: Any) -> None:
    """All callbacks before a grid is put together."""
    guarded(files.on_checkerboard, parameters)
    original(parameters)


def write(
    original: Callable[..., None], image: Any, geninfo: Any, filename: str, extension: str | None = None,
    *others: Any, **named: Any,
) -> None:  # fmt: skip
    """The WebUI's writing of a file: it knows no WebP with alpha, and leaves hidden colours in a JPEG."""
    kind = (extension or Path(filename).suffix).lower()
    texts = named.get("existing_pnginfo") or (others[0] if others else None) or {"parameters": geninfo}
    if image.mode == "RGBA" and files.is_ours(image, texts):
        if kind == files.WEBP:
            files.write_webp(image, filename, texts.get("parameters") or geninfo)
            return
        if kind in files.WITHOUT_ALPHA:
            image = files.without_alpha(image)
    original(image, geninfo, filename, extension, *others, **named)


def install_api(*_page: Any) -> None:
    """The WebUI's on_app_started, after which its API is there, if it has one."""
    if API in sys.modules:
        wrap(sys.modules[API], ENCODE, encode)


def encode(original: Callable[[Any], Any], image: Any) -> Any:
    """A picture as the API sends it: what the Extras tab kept transparent stays so in formats without alpha."""
    is_png = option("samples_format", "png").lower() == "png"
    if not is_png and getattr(image, "mode", "") == "RGBA" and files.is_ours(image, image.info):
        return files.as_png_text(image)
    return original(image)


def guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function gives; None, and a word in the log, where it fails: the WebUI's saving must go on."""
    try:
        return function(*arguments)
    except Exception:  # whatever it is
        logger.exception("LayerDiffuse failed in %s", function.__name__)
        return None


WRAPPED: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("images", "save_image", save_image),
    ("script_callbacks", "before_image_saved_callback", before_image_saved),
    ("script_callbacks", "image_saved_callback", image_saved),
    ("script_callbacks", "image_grid_callback", image_grid),
    ("images", "save_image_with_geninfo", write),
)
