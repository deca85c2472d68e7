"""Captions of composed layers: a thing or several, alone and in a scene."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

MOST_VARIANTS = 8
FEW_VARIANTS = 3  # of several things, which hardly ever come together again
ARTICLE = re.compile(r"^(a|an|the) ")
PLURAL = re.compile(r"[^su]s$")  # grapes, bubbles; neither glass nor cactus
HEAD = re.compile(r"\s(with|of|in|on)\s.*")
# of a file with what sets of layers are to show
PROMPTS_FORM = 'a prompt a line, or a JSON list of prompts or of {"prompt": ..., "foreground": ..., "background": ...}'


def spoken(variants: Sequence[str]) -> list[str]:
    """The ways to ask for a thing, with an article first where it takes one: "a red apple", "an apple", "red apple"."""
    plain = [text for text in variants if not ARTICLE.match(text)]
    named = [text if _is_plural(text) else f"{'an' if text[:1] in 'aeiou' else 'a'} {text}" for text in plain]
    return list(dict.fromkeys([*named, *variants]))


def _is_plural(text: str) -> bool:
    return bool(PLURAL.search(HEAD.sub("", text)))


def foreground_captions(things: Sequence[Sequence[str]]) -> list[str]:
    """One thing's ways to ask for it; several things as a list, in both orders."""
    if len(things) == 1:
        return spoken(things[0])
    names = [spoken(variants) for variants in things]
    first, short = [each[0] for each in names], [each[min(1, len(each) - 1)] for each in names]
    return list(dict.fromkeys(_listed(order) for order in (first, first[::-1], short)))


def blended_captions(things: Sequence[Sequence[str]], phrases: Sequence[str]) -> list[str]:
    """The things in a scene, at most eight ways: the first name and phrase first, then every name and phrase."""
    names = foreground_captions(things)
    pairs = sorted(product(range(len(names)), range(len(phrases))), key=lambda pair: (sum(pair), pair))
    most = MOST_VARIANTS if len(things) == 1 else FEW_VARIANTS
    return [f"{names[a]} {phrases[b]}" for a, b in pairs][:most]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
