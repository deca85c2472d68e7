"""Vocabulary files: which captions a model should know, how else one may ask for them, and which look softens them.

JSON: a list of captions, or `{"concepts": [caption or {"concept": ..., "also": [...], "look": ...}]}` where
`never_held_out` may list more captions that must stay in training.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from ..core.errors import InputError
from .data import PreparedSet
from .looks import apply_look
from .text import caption_variants

logger = logging.getLogger(__name__)
RECIPE = Path(__file__).parent / "recipes" / "demo_vocabulary.json"


@dataclass(frozen=True)
class Concept:
    """A caption of the set, other ways to ask for it, and a row of `looks.LOOKS` or `plain`."""

    caption: str
    also: tuple[str, ...] = ()
    look: str = "plain"


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
        """The images of `data` that show a concept, alpha softened by its look; what has no image is logged."""
        by_caption = {concept.caption: concept for concept in self.concepts}
        missing = sorted(set(by_caption) - set(data.captions))
        if missing:
            logger.warning("no image for: %s", ", ".join(missing))
        part = data.select([i for i, caption in enumerate(data.captions) if caption in by_caption])
        if not len(part):
            raise InputError("no image of any concept", "captions as in the vocabulary", "check set and vocabulary")
        looks = [by_caption[caption].look for caption in part.captions]
        part.rgba = torch.stack([apply_look(image, look) for image, look in zip(part.rgba, looks, strict=True)])
        return part

    def captions_of(self, data: PreparedSet) -> list[list[str]]:
        """All ways to ask for each image of `data`."""
        also = {concept.caption: concept.also for concept in self.concepts}
        return [caption_variants(caption, also.get(caption, ())) for caption in data.captions]


def _concept(row: str | dict) -> Concept:
    if isinstance(row, str):
        return Concept(row)
    return Concept(row["concept"], tuple(row.get("also", ())), row.get("look", "plain"))
