"""Parsing of single values, one function per kind of argument: what a UI, an API call or an infotext may send."""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..core.errors import InputError
from ..core.methods import method_at
from ..core.picture.sizes import MOST_SIDE, ready
from ..sets.chains import SEED_LIKE_SET
from .ranges import is_number
from .ranges import shown as told
from .ways import find_way

SWITCH_WORDS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
PLACE = re.compile(r"-?[0-9]{1,9}")
USUAL_FILE, USUAL_WORDS, LONGEST_NAME = "Automatic", ("", "automatic", "none"), 1000
IMAGE_FORMS = "a base64 text of a PNG, WebP or JPEG file, a PIL image or an array [H,W], [H,W,3] or [H,W,4] of uint8"


class Argument(Protocol):
    """What parsing needs of a row of the table of arguments."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def choices(self) -> tuple[Any, ...]: ...
    @property
    def titles(self) -> tuple[str, ...]: ...
    @property
    def minimum(self) -> float: ...
    @property
    def maximum(self) -> float: ...


def shown(raw: Any) -> str:
    """A short phrase for an error message, on one line; long texts and binary data are cut."""
    text = " ".join(told(raw).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def refuse(argument: Argument, raw: Any, expected: str) -> InputError:
    """The error for a value that an argument cannot take."""
    what_to_do = f'correct the argument "{argument.name}" ({argument.label})'
    return InputError(f"{argument.name} = {shown(raw)}", expected, what_to_do)


def fold(text: Any) -> str:
    """Text without case and with single spaces, for tolerant comparison."""
    return " ".join(str(text).casefold().split())


def parse_switch(argument: Argument, raw: Any) -> bool:
    """bool, 0 or 1, or a word such as true, on, yes. InputError for anything else."""
    if isinstance(raw, bool | np.bool_):
        return bool(raw)
    word = "" if raw is None else fold(raw)
    if word not in SWITCH_WORDS:
        raise refuse(argument, raw, "true or false")
    return SWITCH_WORDS[word]


def parse_number(argument: Argument, raw: Any) -> float:
    """A finite number within the argument's range, also as text. InputError for anything else."""
    expected = f"a number from {argument.minimum:g} to {argument.maximum:.10g}"
    if isinstance(raw, bool):
        raise refuse(argument, raw, expected)
    try:
        number = float(raw)
    except (TypeError, ValueError, OverflowError):  # the last of a whole number that no float holds
        raise refuse(argument, raw, expected) from None
    if not math.isfinite(number) or not argument.minimum <= number <= argument.maximum:
        raise refuse(argument, raw, expected)
    return number


def parse_seed(argument: Argument, raw: Any) -> int:
    """A whole number from -1 to 2^32 - 1, also as text; None and empty text are -1. InputError for anything else."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return SEED_LIKE_SET
    number = parse_number(argument, raw)
    if number != int(number):
        raise refuse(argument, raw, f"a whole number from {argument.minimum:g} to {argument.maximum:.10g}")
    return int(number)


def parse_choice(argument: Argument, raw: Any) -> Any:
    """One of the argument's choices or their titles whatever the case; texts also by their place, counted from 0.

    InputError for anything else.
    """
    places = {str(place): choice for place, choice in enumerate(argument.choices) if isinstance(choice, str)}
    titled = {fold(title): choice for title, choice in zip(argument.titles, argument.choices, strict=False)}
    by_text = places | titled | {fold(choice): choice for choice in argument.choices}
    raw = int(raw) if isinstance(raw, float) and raw.is_integer() else raw
    choice = None if isinstance(raw, bool) else by_text.get(fold(raw))
    if choice is None:
        raise refuse(argument, raw, "one of " + ", ".join(str(choice) for choice in argument.choices))
    return choice


def parse_method(argument: Argument, raw: Any) -> str:
    """Identifier of a method or chain by identifier or label, of a method by its place; empty: the base decides.

    InputError for what is none.
    """
    if raw is None:
        return ""
    if is_number(raw) and raw == raw // 1:
        return method_at(int(raw)).id
    if not isinstance(raw, str):
        raise refuse(argument, raw, "the name of a method")
    text = raw.strip()
    if PLACE.fullmatch(text):
        return method_at(int(text)).id
    return find_way(raw).id if text else ""


def parse_text(argument: Argument, raw: Any) -> str:
    """Text, stripped; None is empty. InputError for what is no text."""
    if raw is None:
        return ""
    if not isinstance(raw, str):
        raise refuse(argument, raw, "a text")
    return raw.strip()


def parse_file(argument: Argument, raw: Any) -> str:
    """The name of a layer file, as it is; empty for the usual one, by whatever word.

    InputError for a name that no file has.
    """
    name = parse_text(argument, raw)
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise refuse(argument, raw, f"the name of a layer file, of at most {LONGEST_NAME} letters")
    return "" if fold(name) in USUAL_WORDS else name


def parse_image(argument: Argument, raw: Any) -> Image.Image | None:
    """PIL RGBA image from any of the forms that a UI or an API sends; None and empty text are no image.

    InputError for anything else.
    """
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return None
    for kind, read in IMAGE_READERS:
        if isinstance(raw, kind):
            return to_rgba(argument, raw, read)
    raise refuse(argument, raw, IMAGE_FORMS)


def to_rgba(argument: Argument, raw: Any, read: Callable[[Any], Image.Image]) -> Image.Image:
    """Reads an image, turns it upright and keeps its alpha; one of too many pixels is refused before it is unpacked.

    InputError for what cannot be read.
    """
    name = f"{argument.name} ({argument.label})"
    try:
        return ready(read(raw), name).convert("RGBA")
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        limit = f"at most as many pixels as {MOST_SIDE}x{MOST_SIDE}"
        raise InputError(f"{name}: {error}", limit, "scale it down first") from error
    # Pillow reports broken files with all of these, depending on format and on how far it got.
    except (OSError, ValueError, TypeError, SyntaxError, EOFError) as error:
        reason = "this is none" if isinstance(error, UnidentifiedImageError) else error
        raise refuse(argument, raw, f"{IMAGE_FORMS} ({reason})") from error


def image_from_bytes(raw: bytes) -> Image.Image:
    """PIL image from the bytes of an image file, not unpacked yet."""
    return Image.open(io.BytesIO(raw))


def image_from_text(raw: str) -> Image.Image:
    """PIL image from base64, with or without the head of a data URL. ValueError for another text."""
    body = raw.strip()
    if body.startswith("data:"):
        body = body.partition(",")[2]
    try:
        return image_from_bytes(base64.b64decode("".join(body.split()), validate=True))
    except binascii.Error as error:
        raise ValueError("this text is not base64; file names and addresses are not opened") from error


def image_from_array(raw: np.ndarray) -> Image.Image:
    """PIL image from uint8 [H,W], [H,W,3] or [H,W,4]. ValueError for another array."""
    if raw.dtype != np.uint8 or raw.ndim not in (2, 3) or (raw.ndim == 3 and raw.shape[2] not in (3, 4)):
        raise ValueError(f"array of {raw.dtype} with shape {list(raw.shape)}")
    return Image.fromarray(raw)


def image_from_layers(raw: Mapping[str, Any]) -> Image.Image:
    """PIL image from what drawing components of a UI send: the picture itself, without the drawn mask.

    ValueError where there is none.
    """
    picture = raw.get("image", raw.get("background"))
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, np.ndarray):
        return image_from_array(picture)
    raise ValueError("no picture under image or background")


IMAGE_READERS: tuple[tuple[type, Callable[[Any], Image.Image]], ...] = (
    (Image.Image, lambda image: image),
    (np.ndarray, image_from_array),
    (str, image_from_text),
    (bytes, image_from_bytes),
    (Mapping, image_from_layers),
)

PARSERS: dict[str, Callable[[Argument, Any], Any]] = {
    "switch": parse_switch,
    "number": parse_number,
    "seed": parse_seed,
    "choice": parse_choice,
    "method": parse_method,
    "text": parse_text,
    "file": parse_file,
    "image": parse_image,
}


def image_to_base64(image: Image.Image) -> str:
    """Base64 of the image as PNG, without a data-URL head."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
