"""The words that the demo model was trained on, and hints for words that it does not know."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from ..core.errors import WeightsError

DEMO_FOLDER = Path(__file__).resolve().parent.parent / "demo_model"
VOCABULARY_NAME = "vocabulary.json"
FILLER = frozenset("a an and at by for in of on or the to with its no not".split())
SEE_ALL = "`python -m lib_layerdiffuse words` lists them all"


def demo_folder(folder: str | Path | None = None) -> Path:
    """The folder of the demo model; WeightsError when it is not there."""
    chosen = Path(folder) if folder is not None else DEMO_FOLDER
    if not chosen.is_dir():
        raise WeightsError(
            f"no folder {chosen}",
            "the folder of the demo model",
            "install the package again, or name a checkpoint with --checkpoint FILE",
        )
    return chosen


def read_vocabulary(folder: str | Path | None = None) -> dict[str, list[str]]:
    """Captions by group from `vocabulary.json`: `{group: [caption or {"concept": caption, "also": [captions]}]}`."""
    path = demo_folder(folder) / VOCABULARY_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: {error}", "the demo model's list of words", "install the package again") from error
    groups = content if isinstance(content, dict) else {"concepts": content}
    groups = {"concepts": groups["concepts"]} if "concepts" in groups else groups  # the rest is for the training
    listed = {name: _captions(entries) for name, entries in groups.items() if isinstance(entries, list)}
    return {name: captions for name, captions in listed.items() if captions}


def _captions(entries: list) -> list[str]:
    captions: list[str] = []
    for entry in entries:
        row = entry if isinstance(entry, dict) else {"concept": entry}
        captions += [str(text) for text in (row.get("concept", ""), *row.get("also", ())) if text]
    return list(dict.fromkeys(captions))


def split_words(text: str) -> list[str]:
    """Lower-case words of a prompt, without fillers such as articles."""
    return [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in FILLER]


def unknown_word_hints(prompts: Iterable[str], captions: Iterable[str], see_all: str = SEE_ALL) -> list[str]:
    """One hint a word that no caption contains, with the nearest known words and where to see them all."""
    known = sorted({word for caption in captions for word in split_words(caption)})
    unknown = dict.fromkeys(word for prompt in prompts for word in split_words(prompt) if word not in known)
    return [_hint(word, known, see_all) for word in unknown]


def _hint(word: str, known: list[str], see_all: str) -> str:
    singular = word[:-1] if word.endswith("s") and word[:-1] in known else ""
    near = [singular] if singular else difflib.get_close_matches(word, known, n=4, cutoff=0.6)
    suggestion = f"; near it: {', '.join(near)}" if near else ""
    return f"the demo model does not know the word '{word}'{suggestion} ({see_all})"
