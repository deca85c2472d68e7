"""The layer files that a run is to use in place of the usual ones: found by name, checked, told of in its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..core.bases import BASES
from ..core.errors import BaseMismatchError, InputError
from ..core.files.codec_parts import DECODER, ENCODER
from ..core.files.layer_files import METHOD, read_contents, stands_for
from ..core.methods import Method, choose_method
from .layer_catalogue import Catalogue, LayerFile, Loaded, find_named, is_there, split_hash, with_hash

PARTS = (METHOD, DECODER, ENCODER)
SHOWN = 8  # names in an error


class Files(Protocol):
    """Where weight files come from."""

    def find(self, stem: str) -> Path:
        """The file of a stem."""
        ...

    def choice_folders(self) -> list[Path]:
        """The folders whose files can be chosen by name."""
        ...


@dataclass(frozen=True)
class OwnFiles:
    """Weight files with some replaced: `paths` by the stem of the usual file; `told`: name and checksum by part."""

    usual: Files
    paths: Mapping[str, Path] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)

    def find(self, stem: str) -> Path:
        """The chosen file in place of the usual one."""
        return self.paths[stem] if stem in self.paths else self.usual.find(stem)

    def choice_folders(self) -> list[Path]:
        """Those of the usual files."""
        return self.usual.choice_folders()


@dataclass(frozen=True)
class Chooser:
    """Chooses files for what is loaded; `note` tells the user what went otherwise than in pasted settings."""

    catalogue: Catalogue
    folders: Files
    loaded: Loaded
    note: Callable[[str], object]

    @property
    def base(self) -> str:
        """The loaded base; InputError where none is, for nothing can be chosen for it."""
        if self.loaded.base is None:
            raise InputError("layer files without a model", "a loaded model", "load a checkpoint first")
        return self.loaded.base

    def choose(self, wishes: Mapping[str, str | Path], method: Method | None) -> tuple[Method, OwnFiles]:
        """The method, its kind the file's, and the files of `wishes`: by part a name in the folders, or any Path.

        Without a method it is the first that the method file can stand for, else the base's own.
        """
        wished = {part: self.file(part, wishes[part], method) for part in PARTS if wishes.get(part)}
        files = {part: file for part, file in wished.items() if file is not None}
        base, own = self.base, files.get(METHOD)
        if method is None:
            method = self.loaded.methods(own)[0] if own else choose_method(base)
        if own:
            method = stands_for(method, own.contents)
        stems = {METHOD: method.weights, DECODER: method.decoder, ENCODER: method.encoder}
        told = {part: with_hash(file.name, self.catalogue.checksum(file)) for part, file in files.items()}
        return method, OwnFiles(self.folders, {stems[part]: file.path for part, file in files.items()}, told)

    def file(self, part: str, wish: str | Path, method: Method | None) -> LayerFile | None:
        """The file of a wish; None, and a note, for one of pasted settings that is not here; else typed errors."""
        file, digits = self._opened(part, wish) if isinstance(wish, Path) else self._named(part, wish)
        if file is None:
            return None
        why = f"which is for the {file.contents.part}" if not file.contents.holds(part) else ""
        why = why or self.loaded.misfit(file, method)
        if why:
            raise self._unfit(part, file, why)
        have = self.catalogue.checksum(file) if digits else ""
        if digits and not have.startswith(digits):
            here = with_hash(file.name, have)
            self.note(f"{part} file {here!r} is another one than in the pasted settings, where it is [{digits}]")
        return file

    def _named(self, part: str, text: str) -> tuple[LayerFile | None, str]:
        """A file of the folders, and the digits that its checksum should begin with."""
        files = self.catalogue.scan(self.folders.choice_folders())
        name, digits = split_hash(text)
        file = find_named(files, text)
        if file is not None:
            return file, ""
        file = find_named(files, name) if digits else None
        if file is None and not digits:
            raise self._unknown(part, text)
        if file is None:
            self.note(f"{part} file {name!r} of the pasted settings is not here: the usual file was used")
        return file, digits

    def _opened(self, part: str, path: Path) -> tuple[LayerFile, str]:
        contents = read_contents(path)
        if contents is None:
            reason = "which is no layer file" if path.is_file() else "which is not there"
            raise InputError(
                f"the {part} file {path}, {reason}", "a layer file in safetensors format", "check the path"
            )
        return LayerFile(path.stem, path, contents), ""

    def _offered(self, part: str) -> str:
        names = self.catalogue.offered(self.folders.choice_folders(), part, self.loaded)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return f"{', '.join(names[:SHOWN])}{more}"

    def _unknown(self, part: str, text: str) -> InputError:
        folders = self.folders.choice_folders()
        places = ", ".join(str(folder) for folder in folders) or "no folder"
        fault = "no whole layer file" if is_there(folders, text) else f"not in {places}"
        return InputError(
            f"the {part} file {text!r}, which is {fault}",
            f"the name of a file there that fits ({self._offered(part) or 'there is none'}), or none at all",
            f"choose one of them, or put the file into {places}",
        )

    def _unfit(self, part: str, file: LayerFile, why: str) -> BaseMismatchError:
        offered = self._offered(part)
        return BaseMismatchError(
            f"the {part} file {file.name!r}, {why}",
            f"one for {BASES[self.base].title} and the chosen method" + (f" (here: {offered})" if offered else ""),
            "choose another file or none, another method, or another checkpoint",
        )
