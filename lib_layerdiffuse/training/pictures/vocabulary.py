"""Vocabulary files: which captions a model should know, how else one may ask for them, and which look softens them.

JSON: a list of captions, or `{"concepts": [caption or {"concept": ..., "also": [...], "look": ..., "still": true,
"noun": ..., "colours": [...]}]}` where `never_held_out` may list more captions that must stay in training. The first of
`colours` is the pictures' own; the others are made from it (`colours.py`), and all are asked for as "red balloon".
Pictures in another style may have any colour: all of `colours` are made of them.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from ...core.errors import InputError
from .captions import caption_variants, split_style, with_style
from .colours import tinted
from .data import PreparedSet
from .formats import FRAME
from .looks import apply_look

logger = logging.getLogger(__name__)
RECIPE = Path(__file__).parents[1] / "recipes" / "demo_vocabulary.json"


@dataclass(frozen=True)
class Concept:
    """A caption of the set, other ways to ask for it, and a row of `looks.LOOKS` or `plain`."""

    caption: str
    also: tuple[str, ...] = ()
    look: str = "plain"
    still: bool = False  # the moving pictures show something else
    noun: str = ""  # what a colour is put before; the caption by default
    colours: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The other ways to ask for it, its own colour among them."""
        own = (self.in_colour(self.colours[0]),) if self.colours else ()
        return (*self.also, *(text for text in own if text not in (self.caption, *self.also)))

    def in_colour(self, colour: str) -> str:
        """The caption of a picture in a colour."""
        return f"{colour} {self.noun or self.caption}"


@dataclass(frozen=True)
class Vocabulary:
    """Concepts of a model, and every caption that must not be held out."""

    concepts: tuple[Concept, ...]
    keep: frozenset[str]

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read a vocabulary file; InputError when it is none."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            rows = content["concepts"] if isinstance(content, dict) else content
            concepts = tuple(_concept(row) for row in rows)
            more = content.get("never_held_out", []) if isinstance(content, dict) else []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                got=f"{path}: {type(error).__name__}: {error}",
                expected='a JSON list of captions, or {"concepts": [...]}',
                what_to_do="correct the file",
            ) from error
        return cls(concepts, frozenset([*(concept.caption for concept in concepts), *more]))

    def chosen(self, data: PreparedSet) -> PreparedSet:
        """The images of `data` that show a concept, in all its styles and colours, alpha softened by its look.

        What has no image is logged. InputError where none has.
        """
        by_caption = {concept.caption: concept for concept in self.concepts}
        plain = [split_style(caption)[1] for caption in data.captions]
        missing = sorted(set(by_caption) - set(plain))
        if missing:
            logger.warning("no image for: %s", ", ".join(missing))
        shown = [by_caption.get(caption) for caption in plain]
        part = data.select([i for i, concept in enumerate(shown) if concept and _shows(concept, data.names[i])])
        if not len(part):
            raise InputError("no image of any concept", "captions as in the vocabulary", "check set and vocabulary")
        concepts = [by_caption[split_style(caption)[1]] for caption in part.captions]
        looks = [concept.look for concept in concepts]
        part.rgba = torch.stack([apply_look(image, look) for image, look in zip(part.rgba, looks, strict=True)])
        return _with_colours(part, concepts)

    def captions_of(self, data: PreparedSet) -> list[list[str]]:
        """All ways to ask for each image of `data`."""
        by_caption = {concept.caption: concept for concept in self.concepts}
        return [_variants(caption, by_caption) for caption in data.captions]


def things_to_learn(data: PreparedSet, vocabulary: str | None) -> tuple[PreparedSet, list[list[str]]]:
    """What of a set is learnt, and all ways to ask for each image: of a vocabulary's file, else all not held out.

    InputError where nothing of the vocabulary is in the set.
    """
    if vocabulary:
        words = Vocabulary.load(vocabulary)
        data = words.chosen(data)
        return data, words.captions_of(data)
    data = data.part(held_out=False)
    return data, [caption_variants(caption) for caption in data.captions]


def _shows(concept: Concept, name: str) -> bool:
    return not (concept.still and FRAME in name)


def _with_colours(data: PreparedSet, concepts: list[Concept]) -> PreparedSet:
    """`data`, and after it its images in the other colours of their concepts."""
    styles = [split_style(caption)[0] for caption in data.captions]
    more = [(i, colour) for i, row in enumerate(concepts) for colour in row.colours[0 if styles[i] else 1 :]]
    if not more:
        return data
    added = data.select([i for i, _ in more])
    rgba = torch.stack([tinted(image, colour) for image, (_, colour) in zip(added.rgba, more, strict=True)])
    captions = [with_style(concepts[i].in_colour(colour), styles[i]) for i, colour in more]
    names = [f"{name}{FRAME}{colour}" for name, (_, colour) in zip(added.names, more, strict=True)]
    return PreparedSet(
        torch.cat([data.rgba, rgba]),
        data.names + names,
        data.captions + captions,
        data.held_out + added.held_out,
        data.skipped,
    )


def _variants(caption: str, concepts: dict[str, Concept]) -> list[str]:
    style, plain = split_style(caption)
    concept = concepts.get(plain, Concept(plain))
    also = concept.also if style else concept.texts
    return caption_variants(with_style(plain, style), [with_style(text, style) for text in also])


def _concept(row: str | dict) -> Concept:
    if isinstance(row, str):
        return Concept(row)
    lists = {key: tuple(row.get(key, ())) for key in ("also", "colours")}
    others = {key: row[key] for key in ("look", "still", "noun") if key in row}
    return Concept(row["concept"], **lists, **others)
