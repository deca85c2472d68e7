"""Lists of sources: which archives a set is made from, which of their pictures, and by what captions.

JSON: `{"sources": [{"source": "archive.tgz", "name": "icons", "captions": "captions.json", ...}]}`; further keys are
the fields of `Source`. Paths are relative to the folder that is named beside the list, or to the list's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ...core.errors import InputError
from .captions import STYLES, caption_from_path, find_caption, load_captions, own_captions


@dataclass(frozen=True)
class Source:
    """One source: `only` and `leave_out` are regular expressions on member names and captions."""

    source: str | Path
    name: str = ""  # put before the members' names
    captions: dict[str, str] | None = None
    style: str = ""  # one of `STYLES`, put before every caption
    kept_only: bool = False  # nothing but captions of the vocabulary
    only: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    frames: int = 1  # of an animation
    views: int = 24  # of a panorama
    crop: bool = False  # to what is visible, with a small margin
    least_soft: float = 0.0  # share of soft pixels (12..243) among the visible ones
    least_clear: float = 0.0  # share of wholly transparent pixels
    most: int = 0  # pictures, spread evenly; 0: all

    def caption_of(self, name: str) -> str | None:
        """The caption of a picture without its style, None when the picture is left out."""
        caption = caption_from_path(name) if self.captions is None else find_caption(self.captions, name)
        return caption if caption is not None and self._wanted(name, caption) else None

    def _wanted(self, name: str, caption: str) -> bool:
        found = lambda pattern: re.search(pattern, name) or re.search(pattern, caption)  # noqa: E731
        return (not self.only or any(map(found, self.only))) and not any(map(found, self.leave_out))

    def admits(self, pixels: np.ndarray) -> bool:
        """Whether uint8 [S,S,4] is soft and clear enough."""
        alpha = pixels[..., 3]
        visible = (alpha >= 12).sum()
        soft = ((alpha >= 12) & (alpha <= 243)).sum() / max(visible, 1)
        return soft >= self.least_soft and (alpha == 0).mean() >= self.least_clear


def load_recipe(path: str | Path, folder: str | Path | None = None) -> list[Source]:
    """The sources of a list; InputError where it is none."""
    path = Path(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["sources"]
        if not isinstance(rows, list) or not rows:
            raise TypeError("no list of sources")
        return [_source(row, Path(folder) if folder else path.parent) for row in rows]
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, re.error) as error:
        raise InputError(
            got=f"{path}: {type(error).__name__}: {error}",
            expected='{"sources": [{"source": path, ...}]}, see docs/training.md',
            what_to_do="correct the list",
        ) from error


def _source(row: dict, folder: Path) -> Source:
    values = {**row, "source": folder / row["source"]}
    for field in fields(Source):
        if field.name in values:
            values[field.name] = _checked(field.name, values[field.name], getattr(Source, field.name, None))
    if isinstance(values.get("captions"), str):
        values["captions"] = load_captions(folder / values["captions"])
    elif not all(isinstance(text, str) for text in values.get("captions", {}).values()):
        raise TypeError("captions: neither a path nor an object of texts")
    return Source(**values)


def _checked(name: str, value: object, default: object) -> object:
    """`value` when it is of the kind of the field's default; TypeError or ValueError otherwise."""
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise TypeError(f"{name}: no list of texts")
        return tuple(re.compile(text).pattern for text in value)
    if isinstance(default, (bool, str)):
        if type(value) is not type(default):
            raise TypeError(f"{name}: no {type(default).__name__}")
    elif isinstance(default, (int, float)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10**6:
            raise ValueError(f"{name}: {value!r}")
        return type(default)(value)
    if name == "style" and value and value not in STYLES:
        raise ValueError(f"style {value!r}, not one of {', '.join(STYLES)}")
    return value


class Distinct:
    """Tells pictures that are nearly the same as one seen before: mean difference of 16 x 16 premultiplied RGBA."""

    def __init__(self, least: float) -> None:
        self.least = least
        self.seen = np.zeros((0, 16 * 16 * 4), dtype=np.float32)
        self.captions: list[str] = []

    def repeats(self, pixels: np.ndarray, caption: str, kept: bool) -> bool:
        """Whether uint8 [S,S,4] is to be left out; a kept caption gives way to a picture of its own only."""
        if not self.least:
            return False
        small = _thumbnail(pixels)
        known = self.seen[: len(self.captions)]
        near = np.flatnonzero(np.abs(known - small).mean(axis=1) < self.least)
        if any(not kept or self.captions[index] == caption for index in near):
            return True
        if len(self.captions) == len(self.seen):
            self.seen = np.concatenate([self.seen, np.zeros((2048, small.size), dtype=np.float32)])
        self.seen[len(self.captions)] = small
        self.captions.append(caption)
        return False


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    side = len(pixels) // 16 or 1
    values = pixels[: side * 16, : side * 16].astype(np.float32) / 255
    values[..., :3] *= values[..., 3:]
    cells = min(16, len(values) // side)
    means = values.reshape(cells, side, cells, side, 4).mean(axis=(1, 3))
    return np.resize(means, 16 * 16 * 4).astype(np.float32)


def spread(items: list, most: int) -> list:
    """At most `most` of `items`, evenly spread; all of them for 0."""
    if not most or len(items) <= most:
        return items
    return [items[index * len(items) // most] for index in range(most)]


def as_sources(
    paths: Iterable[str | Path], captions: dict[str, str] | None = None, folder: str | Path | None = None
) -> Iterator[Source]:
    """The sources that a command line names: archives and folders, or lists of sources."""
    for path in paths:
        if str(path).lower().endswith(".json"):
            yield from load_recipe(path, folder)
        else:
            yield Source(path, captions=captions or own_captions(path))
