"""The words that the demo model was trained on, and hints for words that it does not know."""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import WeightsError
from ..files.demo_folder import VOCABULARY_NAME, demo_folder

FILLER = frozenset("a an and at by for in of on or the to with its no not".split())
JOINTS = frozenset("of with".split())  # what names a thing stands before these
MAX_HINTS, MAX_NAMED = 5, 4
SPELLING = 0.82  # how alike two words are that may be one: "aple" and "apple" are, "purple" and "apple" are not
WORDS_SEEN = 400  # words of a prompt that are looked at
SEE_ALL = "`python -m lib_layerdiffuse words` lists them all"


SCENE_PARTS = ("captions", "phrases")
SCENES = "scenes"  # the group of the vocabulary that holds no things
STYLES = "styles"  # what may stand before any thing: "flat drawing of"
BESIDE = (SCENES, STYLES)


@dataclass(frozen=True)
class Scene:
    """How one asks for a scene: `captions` for it alone ("a beach"), `phrases` behind a thing ("on a beach")."""

    name: str
    captions: tuple[str, ...]
    phrases: tuple[str, ...] = ()


def read_things(folder: str | Path | None = None) -> dict[str, list[tuple[str, ...]]]:
    """The things of `vocabulary.json` by group, each with all its names.

    The file: `{group: [caption or {"concept": caption, "also": [captions], "noun": word, "colours": [colours]}]}`, and
    beside the groups `"scenes"` and `"styles"`. With colours, "red balloon" is a name of the balloon.
    """
    return _read(folder, _things)


def read_scenes(folder: str | Path | None = None) -> list[Scene]:
    """The scenes of `vocabulary.json`: `{"scenes": [{"scene": name, "captions": [captions], "phrases": [phrases]}]}`.

    A text alone is name and caption.
    """
    return _read(folder, _scenes)


def read_styles(folder: str | Path | None = None) -> list[str]:
    """What may stand before a thing, from `vocabulary.json`: `{"styles": ["flat drawing of"]}`."""
    return _read(folder, lambda content: _listed_in(content, STYLES, str))


def _read(folder: str | Path | None, part: Callable[[dict], Any]) -> Any:
    path = demo_folder(folder) / VOCABULARY_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return part(content if isinstance(content, dict) else {"concepts": content})
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise WeightsError(f"{path}: {error}", "the demo model's list of words", "install the package again") from error


def _things(groups: dict) -> dict[str, list[tuple[str, ...]]]:
    groups = {"concepts": groups["concepts"]} if "concepts" in groups else groups  # the rest is for the training
    listed = {name: rows for name, rows in groups.items() if isinstance(rows, list) and name not in BESIDE}
    things = {name: [names for names in map(_names, rows) if names] for name, rows in listed.items()}
    return {name: rows for name, rows in things.items() if rows}


def _scenes(groups: dict) -> list[Scene]:
    listed = _listed_in(groups, SCENES, dict | str)
    rows = [row if isinstance(row, dict) else {"scene": row, "captions": [row]} for row in listed]
    return [Scene(str(row["scene"]), *(tuple(_listed_in(row, part, str)) for part in SCENE_PARTS)) for row in rows]


def _listed_in(row: dict, name: str, kind: Any) -> list:
    found = row.get(name, [])
    if not isinstance(found, list) or not all(isinstance(entry, kind) for entry in found):
        raise TypeError(f"{name} is no list of texts")
    return found


def read_vocabulary(folder: str | Path | None = None) -> dict[str, list[str]]:
    """All names of things by group, those of scenes, alone and behind a thing, and words of styles; each once.

    One thing may have several names, and two things may share one.
    """
    groups = {group: [name for names in things for name in names] for group, things in read_things(folder).items()}
    scenes = [name for scene in read_scenes(folder) for name in (*scene.captions, *scene.phrases)]
    groups.update({SCENES: scenes, STYLES: read_styles(folder)})
    return {group: list(dict.fromkeys(names)) for group, names in groups.items() if names}


def _names(entry: str | dict) -> tuple[str, ...]:
    row = entry if isinstance(entry, dict) else {"concept": entry}
    texts = (row.get("concept", ""), *row.get("also", ()))
    coloured = (f"{colour} {row.get('noun') or texts[0]}" for colour in row.get("colours", ()))
    return tuple(dict.fromkeys(str(text) for text in (*texts, *coloured) if text))


def split_words(text: str) -> list[str]:
    """Lower-case words of a prompt in any script, without fillers such as articles."""
    kept = "".join(letter if unicodedata.category(letter)[0] in "LNM" else " " for letter in text.lower())
    return [word for word in kept.split() if word not in FILLER]


def unknown_word_hints(prompts: Iterable[str], captions: Iterable[str], see_all: str = SEE_ALL) -> list[str]:
    """Hints on words that the model does not know, or knows only of other things; a handful at most."""
    known = _Known(list(captions))
    hints = list(dict.fromkeys(hint for prompt in prompts for hint in known.hints(prompt)))
    if len(hints) > MAX_HINTS:
        hints = [*hints[: MAX_HINTS - 1], f"{HINT} {len(hints) - MAX_HINTS + 1} more"]
    return [f"{hint} ({see_all})" for hint in hints]


HINT = "the demo model does not know the word"  # what every hint begins with


class _Known:
    """The captions of a model, and which words stand where in them."""

    def __init__(self, captions: Sequence[str]):
        self.captions = {caption: frozenset(split_words(caption)) for caption in captions}
        self.words = sorted({word for words in self.captions.values() for word in words})
        self.things = {_thing(caption) for caption in captions}

    def hints(self, prompt: str) -> list[str]:
        """Hints on the words that no thing of this prompt has in its name."""
        words = list(dict.fromkeys(split_words(prompt)))[:WORDS_SEEN]
        if not words:
            return [f"{HINT}s of {prompt[:40].strip()!r}: it knows English names of things"]
        named = [caption for caption, parts in self.captions.items() if parts and parts <= set(words)]
        covered = frozenset().union(*(self.captions[caption] for caption in named))
        loose = [word for word in words if word not in covered]
        unknown = [word for word in loose if word not in self.words]
        near = {word: close for word in unknown if (close := self._near(word))}
        strange = [word for word in unknown if word not in near]
        hints = [f"{HINT} '{word}'; near it: {', '.join(close)}" for word, close in near.items()]
        hints += [_strange(strange, named)] if strange else []
        return hints if near else hints + self._elsewhere([word for word in loose if word in self.words])

    def _elsewhere(self, words: Sequence[str]) -> list[str]:
        """Hints on words that stand before other things only: blue is known of a heart, not of a car."""
        # half of a name will do, as bubbles of soap bubbles
        places = {word: self._captions_with(word) for word in words if word not in self.things}
        return [f"{HINT} '{word}' of this, only of {_listed(captions)}" for word, captions in places.items()]

    def _captions_with(self, word: str) -> list[str]:
        return [caption for caption, parts in self.captions.items() if word in parts]

    def _near(self, word: str) -> list[str]:
        singular = word[:-1] if word.endswith("s") and word[:-1] in self.words else ""
        return [singular] if singular else difflib.get_close_matches(word, self.words, n=2, cutoff=SPELLING)


def _strange(words: Sequence[str], named: Sequence[str]) -> str:
    plural = "" if len(words) == 1 else "s"
    hint = f"{HINT}{plural} {_listed([repr(word) for word in words])}"
    if not any(word.isascii() for word in words):
        return f"{hint}; it knows English names of things"
    return f"{hint}; of this prompt it knows {_listed(named)}" if named else hint


def _thing(caption: str) -> str:
    """The word of a caption that names the thing: the last, or the last before "of" or "with"."""
    words = caption.lower().split()
    end = next((place for place, word in enumerate(words) if word in JOINTS), len(words))
    return (split_words(" ".join(words[:end])) or [""])[-1]


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts[:MAX_NAMED]) + (" and others" if len(texts) > MAX_NAMED else "")
