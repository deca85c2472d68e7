"""The files that a layer set can be saved as, one row each; they are written whole or not at all, never over others."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ..core.errors import InputError
from ..core.methods import BLENDED
from ..files.whole_files import unwritable, write_new, write_new_folder
from .archives import Archive
from .layer_set import Layer, LayerSet
from .manifest import Members, members
from .ora_writing import write_ora
from .preparing import prepared
from .psd_writing import write_psd
from .recomposite import recomposited
from .save_options import AS_IT_IS, DEFAULT, KINDS, SaveOptions
from .sprites import sprite_members

ZIP_SUFFIX = ".zip"


@dataclass(frozen=True)
class Format:
    """A kind of file: one that is written as a stream, or members that fill a folder or a ZIP.

    `trim` and `padding` are what it is best at; `shape_of_whole`: the shape is that of its sheet, not of each layer;
    `premultiplies`: its readers can be told that colours are premultiplied.
    """

    id: str
    suffix: str  # none: a folder
    write: Callable[[LayerSet, BinaryIO], None] | None = None
    members: Callable[[LayerSet, SaveOptions], Members] | None = None
    trim: bool = False
    padding: int = 0
    shape_of_whole: bool = False
    premultiplies: bool = True

    @property
    def title(self) -> str:
        """What users call it."""
        return KINDS[self.id]

    def completed(self, options: SaveOptions) -> SaveOptions:
        """The options with this format's own where none were chosen; InputError for what it cannot do."""
        if options.premultiplied and not self.premultiplies:
            can = ", ".join(row.id for row in FORMATS.values() if row.premultiplies)
            raise InputError(f"premultiplied colours in {self.title}", f"one of {can}", "choose such a format")
        trim = self.trim if options.trim is None else options.trim
        return replace(options, trim=trim, padding=self.padding if options.padding is None else options.padding)

    def write_to(self, stream: BinaryIO, layer_set: LayerSet, options: SaveOptions) -> None:
        """One file, a ZIP where the format has several; `layer_set` and `options` as `arranged` gave them."""
        if self.write is not None:
            self.write(layer_set, stream)
            return
        with Archive(stream) as archive:
            for name, content in self.contents(layer_set, options):
                archive.add(name, content)

    def contents(self, layer_set: LayerSet, options: SaveOptions) -> Members:
        """The names and contents of its files."""
        return self.members(layer_set, options) if self.members is not None else iter(())


FORMATS = {
    row.id: row
    for row in (
        Format("psd", ".psd", write=write_psd, premultiplies=False),
        Format("ora", ".ora", write=write_ora, premultiplies=False),
        Format("zip", ZIP_SUFFIX, members=partial(members, suffix=".png")),
        Format("webp", "", members=partial(members, suffix=".webp")),
        Format("sprites", "", members=sprite_members, trim=True, padding=2, shape_of_whole=True),
    )
}


@dataclass(frozen=True)
class Saved:
    """Where a set was saved, and notes for the user."""

    path: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Packed:
    """A set as one file in memory, the ending of its name, and notes for the user."""

    content: bytes
    suffix: str
    notes: tuple[str, ...] = ()


def find_format(name: str) -> Format:
    """The format of this id; InputError lists them."""
    found = FORMATS.get(name) if isinstance(name, str) else None
    if found is None:
        raise InputError(f"the format {str(name)[:60]!r}", f"one of {', '.join(FORMATS)}", "choose one of them")
    return found


def save_set(
    layer_set: LayerSet, folder: str | Path, stem: str, kind: str = DEFAULT, options: SaveOptions | None = None
) -> Saved:
    """Write a set into a folder, which is made where it is missing, as `stem` or, where that is taken, `stem_2` ...

    OutputError where that cannot be written.
    """
    row = find_format(kind)
    arranged_set, completed, notes = arranged(layer_set, row, options or SaveOptions())
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if row.suffix:
        return Saved(write_new(folder, stem, row.suffix, lambda path: _fill(path, row, arranged_set, completed)), notes)
    return Saved(write_new_folder(folder, stem, row.contents(arranged_set, completed)), notes)


def _fill(path: Path, row: Format, layer_set: LayerSet, options: SaveOptions) -> None:
    with path.open("wb") as file:
        row.write_to(file, layer_set, options)


def pack_set(layer_set: LayerSet, kind: str = DEFAULT, options: SaveOptions | None = None) -> Packed:
    """A set as one file in memory; folders become a ZIP."""
    row = find_format(kind)
    arranged_set, completed, notes = arranged(layer_set, row, options or SaveOptions())
    buffer = io.BytesIO()
    row.write_to(buffer, arranged_set, completed)
    return Packed(buffer.getvalue(), row.suffix or ZIP_SUFFIX, notes)


def arranged(layer_set: LayerSet, row: Format, options: SaveOptions) -> tuple[LayerSet, SaveOptions, tuple[str, ...]]:
    """The layers as they are written, the options that hold, and notes; the blended picture lies hidden on top.

    InputError for an empty set.
    """
    options = row.completed(options)
    made = prepared(layer_set, replace(options, shape=AS_IT_IS) if row.shape_of_whole else options)
    notes: tuple[str, ...] = ()
    if options.recomposite:
        solved = recomposited(made)
        made, notes = solved.layer_set, (solved.note,)
    if options.keep_blended and made.blended is not None:
        blended = Layer(BLENDED.capitalize(), made.blended, visible=not len(made), role=BLENDED)
        made = made.with_layers([*made, blended])
    if not len(made):
        raise InputError("a set without layers", "at least one layer", "add one")
    return made, options, notes
