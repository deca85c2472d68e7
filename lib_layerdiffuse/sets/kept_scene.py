"""A scene whose finished layers are kept in a folder, so that one that was cut short can be gone on with.

Who has saved the whole calls `remove`.
A layer is used again as long as the scene says the same of it and of all below it, for the same model and settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError, OutputError
from ..files.whole_files import write_whole
from .scene import Scene, SceneLayer, rows_of, seed_of
from .stack import Stack, StackLayer
from .stack_files import DOCUMENT, SUFFIX, read_folder, write_folder

MARKS = "scene.json"  # what the layers were painted from, one mark each; by it the folder is known as ours
ENDING = "-unfinished.layers"


@dataclass(frozen=True)
class KeptScene:
    """A scene, the folder for its finished layers, and whether those that are there are used."""

    scene: Scene
    folder: Path
    resume: bool = False

    def check(self) -> None:
        """OutputError where the folder holds something else."""
        if self.folder.exists() and not (self.folder / MARKS).is_file():
            expected = "nothing there, or a folder of unfinished layers"
            raise OutputError(f"{self.folder}, which is something else", expected, "move it away")

    def begin(self, marks: list[str]) -> list[StackLayer]:
        """The layers that can be used again; whatever else was kept is forgotten."""
        self.check()
        if not self.resume:
            self.remove()
            return []
        with suppress(InputError, OSError, ValueError, TypeError):  # what cannot be read is painted anew
            told = json.loads((self.folder / MARKS).read_text(encoding="utf-8"))
            layers = read_folder(self.folder).layers
            alike = [one == other for one, other in zip(told, marks, strict=False)][: len(layers)]
            return list(layers[: [*alike, False].index(False)])
        return []

    def keep(self, stack: Stack, marks: list[str]) -> None:
        """Write what is new; a program that ends in between leaves nothing that is taken for finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._mark([])
        write_folder(stack.state, self.folder)
        self._mark(marks[: len(stack.state.layers)])

    def _mark(self, marks: list[str]) -> None:
        write_whole(self.folder / MARKS, lambda unfinished: unfinished.write_text(json.dumps(marks), encoding="utf-8"))

    def remove(self) -> None:
        """All that was kept, and nothing else."""
        for path in (*self.folder.glob(f"*{SUFFIX}"), self.folder / DOCUMENT, self.folder / MARKS):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # it is not there, or somebody has put something into it
            self.folder.rmdir()


def marks_of(scene: Scene, side: int, how: Mapping[str, Any]) -> list[str]:
    """For each row of a scene a text that is the same as long as this row, those below it, size and settings are.

    `side` is that of the model's pictures, `how` says by what they are painted.
    """
    state = scene.stack(side).state
    told = hashlib.sha256(json.dumps([state.width, state.height, dict(how)], sort_keys=True, default=str).encode())
    marks = []
    for number, row in enumerate(rows_of(scene)):
        said = [row is scene.background, row.prompt, content_of(row), seed_of(scene, row, number), row.weight]
        told.update(json.dumps([*said, row.place], sort_keys=True).encode())
        marks.append(told.hexdigest())
    return marks


def content_of(row: SceneLayer) -> str:
    """What is in the file of a row, and its name."""
    return "" if row.file is None else f"{row.file.name} {hashlib.sha256(row.file.read_bytes()).hexdigest()}"
