"""Where the units of attention sharing belong in a UNet: the order of its attention layers, and the depth of each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

GROUPS = ("input_blocks", "output_blocks", "middle_block")  # in the order of the units
ATTENTION = re.compile(
    r"(?P<group>input_blocks|output_blocks|middle_block)\.(?:(?P<block>\d+)\.)?(?P<part>\d+)"
    r"\.transformer_blocks\.(?P<layer>\d+)\.attn(?P<kind>[12])"
)
DOWN = re.compile(r"input_blocks\.(\d+)\.0\.op")
UP = re.compile(r"output_blocks\.(\d+)\.\d+\.conv")


@dataclass(frozen=True)
class Place:
    """An attention layer: its LDM path, and how often the latent was halved on the way there."""

    path: str
    depth: int


def unit_places(paths: Iterable[str]) -> tuple[Place, ...]:
    """The attention layers among a UNet's module paths (LDM names), in the order of a file's units.

    Input blocks, output blocks, then the middle block; in each self-attention, then cross-attention.
    """
    paths = tuple(paths)
    downs, ups = _numbers(DOWN, paths), _numbers(UP, paths)
    found = sorted((_rank(match), match) for match in map(ATTENTION.fullmatch, paths) if match)
    return tuple(Place(match.string, _depth(match, downs, ups)) for _, match in found)


def _numbers(pattern: re.Pattern, paths: Iterable[str]) -> list[int]:
    return [int(match[1]) for match in map(pattern.fullmatch, paths) if match]


def _rank(match: re.Match) -> tuple[int, ...]:
    numbers = (int(match[name] or 0) for name in ("block", "part", "layer", "kind"))
    return (GROUPS.index(match["group"]), *numbers)


def _depth(match: re.Match, downs: list[int], ups: list[int]) -> int:
    """Halvings before the block, less the doublings; the block that halves or doubles does so at its end."""
    block = int(match["block"] or 0)
    before = {
        "input_blocks": sum(down < block for down in downs),
        "middle_block": len(downs),
        "output_blocks": len(downs) - sum(up < block for up in ups),
    }
    return before[match["group"]]
