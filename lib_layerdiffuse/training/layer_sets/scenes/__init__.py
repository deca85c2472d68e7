"""Painted scenes: backgrounds of a hundred and twenty-eight pixels or any other size, made from a seed.

A row of `SCENES` is a scene: how one asks for it alone, how one puts a thing into it, and who paints it. Each number of
a scene is another picture: hour, colours, horizon, clouds, distances and what stands about are drawn from it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ....core.errors import InputError
from . import indoors, land, places, shore
from .canvas import Canvas, Place

OVERSAMPLING = 2


@dataclass(frozen=True)
class Scene:
    """`captions` of the scene alone; `phrases` that follow a thing ("on a beach"); `paint` fills a canvas."""

    name: str
    captions: tuple[str, ...]
    phrases: tuple[str, ...]
    paint: Callable[[Canvas], Place]

    def picture(self, number: int, side: int) -> tuple[np.ndarray, Place]:
        """Picture `number` of the scene, uint8 [side,side,3], and where things stand in it.

        InputError below 0, or below 16 pixels.
        """
        if side < 16 or number < 0:
            raise InputError(f"picture {number} of {side} pixels", "0 or more, at least 16 pixels", "correct them")
        canvas = Canvas(side * OVERSAMPLING, (zlib.crc32(self.name.encode()), number))
        place = self.paint(canvas)
        return canvas.finished(), place


def _row(name: str, paint: Callable[[Canvas], Place], captions: str, phrases: str) -> Scene:
    return Scene(name, tuple(captions.split(", ")), tuple(phrases.split(", ")), paint)


SCENES = (
    _row("beach", shore.beach, "a beach, the beach, a sandy beach", "on a beach, at the beach, on the beach"),
    _row("sea", shore.sea, "the sea, the ocean, the open sea", "on the sea, in the sea, on the ocean"),
    _row("sunset", shore.sunset, "a sunset, the sunset, the setting sun", "at sunset, in a sunset, before a sunset"),
    _row(
        "underwater",
        shore.underwater,
        "under water, underwater, the bottom of the sea",
        "under water, underwater, at the bottom of the sea",
    ),
    _row(
        "meadow",
        land.meadow,
        "a meadow, a green meadow, a field of flowers",
        "on a meadow, in a meadow, in a field of flowers",
    ),
    _row("forest", land.forest, "a forest, the woods, a green forest", "in a forest, in the woods, in the forest"),
    _row(
        "mountains",
        land.mountains,
        "mountains, the mountains, snowy mountains",
        "in the mountains, before mountains, in front of mountains",
    ),
    _row("desert", land.desert, "a desert, the desert, sand dunes", "in a desert, in the desert, on sand dunes"),
    _row("snow", land.snow, "snow, a snowy landscape, winter", "in the snow, in a snowy landscape, in winter"),
    _row(
        "autumn",
        land.autumn,
        "a park in autumn, autumn, an autumn park",
        "in a park in autumn, in autumn, in an autumn park",
    ),
    _row(
        "night",
        places.night,
        "a night sky, the night sky, a starry night",
        "at night, under a night sky, under the stars",
    ),
    _row("city", places.city, "a city, the city, a city skyline", "in a city, in the city, before a city skyline"),
    _row(
        "street",
        places.street,
        "a street at night, a city street at night, a dark street",
        "in a street at night, on a street at night, in a dark street",
    ),
    _row(
        "room",
        indoors.room,
        "a room, a living room, the living room",
        "in a room, in a living room, in the living room",
    ),
    _row(
        "kitchen",
        indoors.kitchen,
        "a kitchen table, a table, a wooden table",
        "on a kitchen table, on a table, on a wooden table",
    ),
    _row("stage", indoors.stage, "a stage, a theatre stage, the stage", "on a stage, on the stage, on a theatre stage"),
    _row("cave", places.cave, "a cave, the cave, a dark cave", "in a cave, in the cave, in a dark cave"),
    _row("space", places.space, "space, outer space, the universe", "in space, in outer space, among planets"),
)


def named_scenes(names: Sequence[str]) -> list[Scene]:
    """The scenes called so, each once; all of them where no name is given. InputError for another name."""
    known = {scene.name: scene for scene in SCENES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"scene {unknown[0]!r}", f"some of {', '.join(known)}", "correct the name")
    return [known[name] for name in dict.fromkeys(names)] or list(SCENES)


def paint_numbered(job: tuple[str, int], side: int) -> tuple[np.ndarray, Place]:
    """Picture (scene's name, number); it lives here because a process that paints needs no torch."""
    name, number = job
    return named_scenes([name])[0].picture(number, side)
