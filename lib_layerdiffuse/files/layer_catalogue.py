"""Layer files of the user's own: what lies in folders, which of it fits what is loaded, and one chosen by its name.

Only names that were found in the folders are known, so that no name, whoever sends it, leads out of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.files.layer_files import Contents, Shapes, read_contents, titles
from ..core.files.weights import SUFFIX, stamp
from ..core.methods import METHODS, Method
from .hub import sha256

HASH_DIGITS = 10  # as WebUIs shorten the checksum of a file
HASHED_NAME = re.compile(r"(?P<name>.+) \[(?P<digits>[0-9a-f]{8,64})\]", re.DOTALL)
DEPTH, MOST = 8, 20_000  # folders inside folders, and files, that are looked at
SHOWN = 8  # names in an error


@dataclass(frozen=True)
class LayerFile:
    """A layer file: the name that users choose it by (its path in the folder, without suffix), and what it holds."""

    name: str
    path: Path
    contents: Contents


@dataclass(frozen=True)
class Loaded:
    """What is loaded, as far as it is known: the base, and the UNet's parameters by LDM name."""

    base: str | None = None
    parameters: Shapes | None = None

    def misfit(self, file: LayerFile, method: Method | None = None) -> str:
        """Why a file does not fit what is loaded, or this method; empty where it does."""
        contents = file.contents
        if not contents.bases or (self.base is not None and self.base not in contents.bases):
            return f"made for {titles(contents.bases)}"
        if self.parameters is not None and not contents.fits_unet(self.parameters):
            return "made for another UNet than the loaded one"
        methods = self.methods(file)
        if contents.kind and (not methods or (method is not None and method.id not in contents.methods)):
            return f"made for {' or '.join(repr(one.title) for one in methods) or 'no method that this program knows'}"
        return ""

    def methods(self, file: LayerFile) -> list[Method]:
        """The methods of the loaded base that a file can stand for."""
        return [row for row in METHODS if row.id in file.contents.methods and self.base in (None, row.base)]


class Catalogue:
    """Finds layer files in folders; headers and checksums are read once for each state of a file."""

    def __init__(self) -> None:
        self._contents: dict[tuple, Contents | None] = {}
        self._checksums: dict[tuple, str] = {}

    def scan(self, folders: Iterable[Path]) -> dict[str, LayerFile]:
        """The layer files in the folders and in those inside them, by name; of two of a name the first."""
        found: dict[str, LayerFile] = {}
        known: dict[tuple, Contents | None] = {}
        for folder in folders:
            for path in sorted(weight_files(folder)):
                name, contents = path.relative_to(folder).with_suffix("").as_posix(), self._read(path, known)
                if contents is not None and name not in found and is_text(name):
                    found[name] = LayerFile(name, path, contents)
        self._contents = known
        return found

    def _read(self, path: Path, known: dict[tuple, Contents | None]) -> Contents | None:
        """What a file holds, noted in `known`; None for one that was met before, by a folder around this one."""
        try:
            key = stamp(path)
        except OSError:  # gone meanwhile, or a link to nowhere
            return None
        if key in known:
            return None
        known[key] = self._contents[key] if key in self._contents else read_contents(path)
        return known[key]

    def offered(self, folders: Iterable[Path], part: str, loaded: Loaded, method: Method | None = None) -> list[str]:
        """Names of the files that hold a part and fit what is loaded, and the method where it is known."""
        files = self.scan(folders).values()
        return [file.name for file in files if file.contents.holds(part) and not loaded.misfit(file, method)]

    def checksum(self, file: LayerFile) -> str:
        """The file's SHA-256 in hexadecimal digits."""
        key = stamp(file.path)
        if key not in self._checksums:
            self._checksums[key] = sha256(file.path)
        return self._checksums[key]


def weight_files(folder: Path) -> Iterator[Path]:
    """Paths of safetensors files in a folder and those inside it; no folder twice, whatever links there are."""
    seen: set[tuple[int, int]] = set()
    left = MOST if _is_new(folder, seen) else 0
    for place, folders, names in os.walk(folder, followlinks=True):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if depth < DEPTH and _is_new(Path(place, name), seen))
        for name in names:
            if name.lower().endswith(SUFFIX) and left > 0:
                left -= 1
                yield Path(place) / name


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        state = folder.stat()
    except OSError:
        return False
    key = (state.st_dev, state.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def is_text(name: str) -> bool:
    """Whether a file's name can be shown and sent: a system may have names that are no text."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return name.isprintable()


def split_hash(text: str) -> tuple[str, str]:
    """'name [digits]', as an infotext has it, -> name and digits; a text without digits is a name alone."""
    match = HASHED_NAME.fullmatch(text)
    return (match["name"], match["digits"]) if match else (text, "")


def with_hash(name: str, checksum: str) -> str:
    """What an infotext says of a file."""
    return f"{name} [{checksum[:HASH_DIGITS]}]"


def find_named(files: Mapping[str, LayerFile], name: str) -> LayerFile | None:
    """The file of a name: as it is, else with any case, slashes and suffix, else of the last part of the name alone."""
    if name in files:
        return files[name]
    wanted = _plain(name)
    same = [file for file in files.values() if _is_called(file.name, wanted)]
    return min(same, key=lambda file: file.name.count("/"), default=None)


def is_there(folders: Iterable[Path], name: str) -> bool:
    """Whether the folders have a file of this name that is of no use, broken for one."""
    paths = (path.relative_to(folder).as_posix() for folder in folders for path in weight_files(folder))
    return any(_is_called(path, _plain(name)) for path in paths)


def _is_called(name: str, wanted: str) -> bool:
    """Whether a file's name is the plain one that is wanted, or ends in it where that names no folder."""
    return _plain(name) == wanted or ("/" not in wanted and _plain(name).endswith(f"/{wanted}"))


def _plain(name: str) -> str:
    return name.replace("\\", "/").casefold().removesuffix(SUFFIX)
