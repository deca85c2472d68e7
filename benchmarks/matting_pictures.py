"""The pictures of `matting.py`: each row a thing as matting saw it, then results over a background of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.matting_cases import SCENE, SET_SCENE, Case, laid

TITLE, GAP = 26, 2  # pixels
INK, PAPER = (20, 20, 20), (255, 255, 255)
Column = tuple[str, str, str]  # title, method, backdrop


@dataclass(frozen=True)
class Sheet:
    """A picture's name, the group and the numbers of the cases in it, what they are shown on, and its columns."""

    name: str
    group: str
    numbers: tuple[int, ...]
    backdrop: str
    columns: tuple[Column, ...]
    truth: str = "true"


def matting_columns(backdrop: str) -> tuple[Column, ...]:
    names = (("closed form", "closed form, true trimap"), ("KNN", "KNN, true trimap"), ("u2netp", "u2netp"))
    rows = (*names, ("ISNet", "ISNet"))
    return tuple((f"{title}\nof {backdrop}", method, backdrop) for title, method in rows)


GREEN = (
    ("distance key\nof green", "chroma key, distance", "green"),
    ("excess key\nof green", "chroma key, excess", "green"),
)
DIFFERENCE = "difference key, background known"
TRUE_COLUMNS = (("codec", "codec", "-"), *GREEN, *matting_columns(SCENE))
SHEETS = (
    Sheet("see-through", "see-through", (0, 1, 2, 3, 4, 5), SCENE, TRUE_COLUMNS),
    Sheet("thin", "thin", (0, 2, 4, 6), SCENE, TRUE_COLUMNS),
    Sheet("softened", "softened", (0, 3, 5, 8), SCENE, TRUE_COLUMNS),
    Sheet("solid", "solid", (0, 3, 5, 8), SCENE, TRUE_COLUMNS),
    Sheet("alone", "painted alone", (0, 2, 4, 6), SCENE, (*GREEN, *matting_columns(SCENE)), "painted"),
    Sheet(
        "sets",
        "painted in a set",
        (0, 1, 2, 4, 6, 8),
        SET_SCENE,
        (("difference\nkey", DIFFERENCE, SET_SCENE), *matting_columns(SET_SCENE)),
        "painted",
    ),
)


def draw_all(results: Sequence[Any], folder: Path) -> None:
    """Write matting-*.png for the groups that were measured."""
    found = {(id(result.case), result.method, result.backdrop): result.rgba for result in results}
    for sheet in SHEETS:
        cases = list({id(result.case): result.case for result in results if result.case.group == sheet.group}.values())
        if cases:
            chosen = [cases[number] for number in sheet.numbers if number < len(cases)]
            image = drawn(sheet, chosen, found)
            image.quantize(255, dither=Image.Dither.NONE).save(folder / f"matting-{sheet.name}.png", optimize=True)


def drawn(sheet: Sheet, cases: Sequence[Case], found: Mapping[tuple[int, str, str], np.ndarray]) -> Image.Image:
    """A row for each case; columns whose method did not run are left out."""
    columns = [column for column in sheet.columns if (id(cases[0]), *column[1:]) in found]
    titles = ["what matting sees", sheet.truth, *(title for title, _, _ in columns)]
    rows = []
    for case in cases:
        seen = [found[(id(case), method, backdrop)] for _, method, backdrop in columns]
        rows.append([case.shots[sheet.backdrop].picture, *(laid(rgba, case.unseen) for rgba in (case.truth, *seen))])
    return grid(titles, rows)


def grid(titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]]) -> Image.Image:
    """Pictures [S,S,3] in [0,1] under their titles."""
    side = len(rows[0][0])
    sheet = Image.new("RGB", (len(titles) * (side + GAP) - GAP, TITLE + len(rows) * (side + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, title in enumerate(titles):
        pen.multiline_text((place * (side + GAP) + 2, 0), title, INK, spacing=1)
    for row, pictures in enumerate(rows):
        for place, picture in enumerate(pictures):
            levels = (picture * 255).round().clip(0, 255).astype(np.uint8)
            sheet.paste(Image.fromarray(levels), (place * (side + GAP), TITLE + row * (side + GAP)))
    return sheet
