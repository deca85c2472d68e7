"""Captions of pictures: from a table by file name, from the names of emoji, or from folder and file name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from ...core.errors import InputError
from .formats import file_stem
from .sources import iterate_files

SKIN_TONES = re.compile(r"1f3f[b-f]|skin-tone")
# Words before the caption of a picture that is drawn in another way: one may ask for them, and the bare caption is
# never shown such a picture.
STYLES = ("flat drawing of",)
STYLED = re.compile(rf"^(?P<style>{'|'.join(STYLES)}) (an? )?")

PLURAL = re.compile(r"(?<![su]s)(?<=s)$")  # grapes, scissors; not glass, cactus


def load_captions(path: str | Path) -> dict[str, str]:
    """Captions by file stem, from a JSON object `{stem: caption}`, from the npm package `unicode-emoji-json` (stems are
    codepoints, or the name with hyphens), or from an archive with a captions.json of its own. InputError for anything
    else.
    """
    try:
        if str(path).endswith(".json"):
            return _texts(json.loads(Path(path).read_text(encoding="utf-8")))
        for name, content in iterate_files(path, (".json",)):
            if name == "captions.json":
                return _texts(json.loads(content))
            if name.endswith("data-by-emoji.json"):
                return _emoji(_table(json.loads(content)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: {type(error).__name__}: {error}", "a JSON object {file stem: caption}", "correct the file"
        ) from error
    raise InputError(
        got=str(path), expected="captions.json or the unicode-emoji-json package", what_to_do="check the path"
    )


def _table(content: object) -> dict:
    if not isinstance(content, dict):
        raise TypeError(f"a JSON {type(content).__name__}")
    return content


def _texts(content: object) -> dict[str, str]:
    """A table of captions; TypeError where one is no text."""
    table = _table(content)
    wrong = [key for key, value in table.items() if not isinstance(value, str)]
    if wrong:
        raise TypeError(f"the caption of {wrong[0]!r} is no text")
    return table


def _emoji(table: dict) -> dict[str, str]:
    usable = {emoji: row for emoji, row in table.items() if row["group"] != "Flags"}
    by_name = {row["slug"].replace("_", "-"): row["name"] for row in usable.values() if "slug" in row}
    return {**by_name, **{codepoints(emoji): row["name"] for emoji, row in usable.items()}}


def own_captions(path: str | Path) -> dict[str, str] | None:
    """The captions that an archive of `train pack` brings along; None without."""
    if not str(path).lower().endswith(".zip") or not Path(path).is_file():
        return None
    found = any(name == "captions.json" for name, _ in iterate_files(path, ("captions.json",)))
    return load_captions(path) if found else None


def find_caption(table: dict[str, str], name: str) -> str | None:
    """The caption of a file by its name without suffix, or by its stem; None without, and for skin-tone variants."""
    stem = file_stem(name)
    if SKIN_TONES.search(stem):
        return None
    keys = (name.rsplit(".", 1)[0], Path(name).stem, stem, normalise_stem(stem))
    return next((table[key] for key in keys if key in table), None)


def codepoints(emoji: str) -> str:
    """File stem of an emoji: hexadecimal code points without leading zeros and without fe0f, joined by `-`."""
    return "-".join(f"{ord(char):x}" for char in emoji if char != "\ufe0f")


def normalise_stem(stem: str) -> str:
    """The stem of a file in the same form as `codepoints`."""
    parts = [part.lstrip("0") for part in stem.lower().split("-")]
    return "-".join(part for part in parts if part != "fe0f")


def caption_from_path(name: str) -> str:
    """Folder and file name as words, for archives without captions."""
    path = Path(name)
    words = f"{path.parent.name} {file_stem(name)}" if path.parent.name else file_stem(name)
    return " ".join(re.sub(r"[\d_\-.]+", " ", words).lower().split())


def with_style(caption: str, style: str) -> str:
    """`flat drawing of a red apple` for a picture of a red apple in that style."""
    return f"{style} {with_article(caption)}" if style else caption


def with_article(text: str) -> str:
    """`an apple`, `a cup of tea`, `grapes`."""
    if PLURAL.search(text):
        return text
    return f"{'an' if text[:1].lower() in 'aeiou' else 'a'} {text}"


def split_style(caption: str) -> tuple[str, str]:
    """Style (or an empty text) and the caption without it."""
    found = STYLED.match(caption)
    return (found["style"], caption[found.end() :]) if found else ("", caption)


def caption_variants(caption: str, also: Iterable[str] = ()) -> list[str]:
    """The ways to ask for one picture: bare, with its article, and by the other captions that it goes by."""
    texts = [" ".join(text.lower().split()) for text in (caption, *also)]
    articles = [with_article(text) for text in texts if text]
    return list(dict.fromkeys([*filter(None, texts), *articles]))
