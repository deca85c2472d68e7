"""A stack as one file, and as a folder that is written anew in part only; read as if by an enemy's hand."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from PIL import Image

from ..core.errors import InputError
from ..core.picture.sizes import MOST_SIDE, check_pixels
from ..core.values import is_finite
from ..files.whole_files import write_whole
from .layer_set import LONGEST_NAME, LONGEST_PROMPT, MOST_LAYERS, ROLES
from .stack import Stack, StackLayer, StackState

FORMAT, VERSION = "layerdiffuse-stack", 1
DOCUMENT, SUFFIX = "layers.json", ".png"
MOST_BYTES, MOST_DOCUMENT, MOST_ENTRIES = 2**30, 2**24, 4 * MOST_LAYERS
DIGEST = "layerdiffuse_digest"
FAST = 1  # of zlib: a stack is saved after every operation
ADVICE = "choose a project that was saved here, whole"
ReadFile = Callable[[str, int], bytes]


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64


def is_side(value: Any) -> TypeGuard[int]:
    """Whether a canvas may be so wide or high."""
    return is_whole(value) and 1 <= value <= MOST_SIDE


def is_text(longest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and len(value) <= longest


RULES: dict[str, Callable[[Any], bool]] = {
    "name": is_text(LONGEST_NAME),
    "left": is_whole,
    "top": is_whole,
    "scale": is_finite,
    "opacity": is_finite,
    "visible": lambda value: isinstance(value, bool),
    "role": lambda value: value in ROLES,
    "prompt": is_text(LONGEST_PROMPT),
    "seed": lambda value: value is None or is_whole(value),
    "weight": is_finite,
}


def document_of(state: StackState, names: list[str]) -> bytes:
    """The text of a stack whose pictures have these file names, one a layer."""
    rows = [
        {"file": name, **{key: getattr(layer, key) for key in RULES}}
        for name, layer in zip(names, state.layers, strict=True)
    ]
    whole = {"format": FORMAT, "version": VERSION, "width": state.width, "height": state.height, "layers": rows}
    return (json.dumps(whole, ensure_ascii=False, indent=1) + "\n").encode()


def parse_document(data: bytes, read: ReadFile) -> StackState:
    """The stack of a text whose pictures `read(name, most bytes)` gives; InputError for whatever is wrong with it."""
    try:
        whole = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise broken(f"{DOCUMENT} that is no JSON ({str(error)[:100]})") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise broken(f"{DOCUMENT} of another kind")
    if whole.get("version") != VERSION:
        raise InputError(
            f"a project of version {whole.get('version')!r:.40}", f"version {VERSION}", "update this program"
        )
    width, height, rows = whole.get("width"), whole.get("height"), whole.get("layers")
    if not is_side(width) or not is_side(height):
        raise broken(f"a canvas of {[width, height]!r:.60}")
    if not isinstance(rows, list) or len(rows) > MOST_LAYERS or not all(isinstance(row, dict) for row in rows):
        raise broken(f"layers that are no list of at most {MOST_LAYERS}")
    pictures = Pictures(read, MOST_BYTES)
    layers = tuple(layer_of(number, row, pictures) for number, row in enumerate(rows, 1))
    return StackState(width, height, layers)


@dataclass
class Pictures:
    """The pictures of a project: each read once, however many layers show it, and not too much in all."""

    read: ReadFile
    left: int  # bytes that may still be unpacked
    known: dict[str, Image.Image] = field(default_factory=dict)

    def of(self, name: str) -> Image.Image:
        """RGBA of a PNG file in the project. InputError where all together are too many."""
        if name not in self.known:
            data = self.read(name, self.left)
            picture = png_of(data, name)
            self.left -= 4 * picture.width * picture.height
            if self.left < 0:
                raise broken(f"pictures of more than {MOST_BYTES >> 20} MiB in all")
            self.known[name] = picture
        return self.known[name]


def layer_of(number: int, row: dict[str, Any], pictures: Pictures) -> StackLayer:
    """A layer of its row; what the row does not say is as usual, what nobody knows is passed over.

    InputError for a row that is none.
    """
    values = {key: row[key] for key in RULES if key in row}
    for key, value in values.items():
        if not RULES[key](value):
            raise broken(f"{key} {value!r:.60} of layer {number}")
    name = row.get("file")
    if not isinstance(name, str) or not name.endswith(SUFFIX):
        raise broken(f"layer {number} without a picture")
    return StackLayer(number, values.pop("name", f"Layer {number}"), pictures.of(name), **values)


def png_of(data: bytes, name: str) -> Image.Image:
    """RGBA of a PNG file's bytes; InputError for any other."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            check_pixels(image, f"{name[:60]}")
            return image.convert("RGBA")
    except InputError:
        raise
    except Exception as error:  # Pillow's reader fails in many ways on a broken file
        raise broken(f"{name[:60]!r}, which is no whole PNG ({str(error)[:100]})") from error


def broken(got: str) -> InputError:
    """The error for a project that cannot be read."""
    return InputError(got, "a project of the Layers tab", ADVICE)


def png_bytes(picture: Image.Image, level: int = 6) -> bytes:
    """A PNG file."""
    target = io.BytesIO()
    picture.save(target, format="PNG", compress_level=level)
    return target.getvalue()


def write_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG file quickly."""
    path.write_bytes(png_bytes(picture, FAST))


def write_project(state: StackState, path: str | Path) -> Path:
    """Write a stack as one ZIP file: layers.json and a PNG for each picture; whole or not at all."""
    path = Path(path)
    write_whole(path, lambda unfinished: fill_project(state, unfinished))
    return path


def fill_project(state: StackState, path: Path) -> None:
    """Write the ZIP; a picture that several layers show is in it once."""
    known: dict[int, str] = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for layer in state.layers:
            if id(layer.picture) not in known:
                known[id(layer.picture)] = f"layers/{len(known) + 1:03d}{SUFFIX}"
                archive.writestr(known[id(layer.picture)], png_bytes(layer.picture))
        archive.writestr(DOCUMENT, document_of(state, [known[id(layer.picture)] for layer in state.layers]))


def read_project(path: str | Path) -> StackState:
    """The stack in a file; InputError for a file that is none, or that unpacks to too much."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > MOST_ENTRIES:
                raise broken(f"{path.name} with {len(archive.infolist())} files in it")
            return parse_document(
                entry(archive, DOCUMENT, MOST_DOCUMENT), lambda name, most: entry(archive, name, most)
            )
    except InputError as error:
        raise type(error)(f"{path.name}: {error.got}", error.expected, error.what_to_do) from error
    except FileNotFoundError as error:
        raise InputError(f"no file {path.name}", "a project of the Layers tab", "correct the path") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise broken(f"{path.name}, which is no whole ZIP file ({str(error)[:100]})") from error


def is_project(path: str | Path) -> bool:
    """Whether a file says that it is a project; other ZIP files may hold layers too."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(DOCUMENT) as file:
            return f'"{FORMAT}"'.encode() in file.read(len(FORMAT) + 100)
    except (KeyError, OSError, RuntimeError, NotImplementedError, EOFError, zlib.error, zipfile.BadZipFile):
        return False


def entry(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The bytes of a file in a ZIP, at most so many. InputError for more, or for none."""
    try:
        with archive.open(name) as file:
            data = file.read(most + 1)
    except KeyError as error:
        raise broken(f"a ZIP file without {name[:60]!r}") from error
    except (
        RuntimeError,
        NotImplementedError,
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:  # locked, foreign, cut
        raise broken(f"{name[:60]!r}, which cannot be unpacked ({str(error)[:100]})") from error
    if len(data) > most:
        raise broken(f"{name[:60]!r} of more than {most} bytes")
    return data


def write_folder(state: StackState, folder: Path) -> None:
    """Write a stack into a folder of its own: pictures that are there already stay, those without use go."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{digest(layer.picture)}{SUFFIX}" for layer in state.layers]
    for name, layer in zip(names, state.layers, strict=True):
        if not (folder / name).exists():
            write_whole(folder / name, partial(write_png, layer.picture))
    write_whole(folder / DOCUMENT, lambda unfinished: unfinished.write_bytes(document_of(state, names)))
    for path in folder.glob(f"*{SUFFIX}"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def digest(picture: Image.Image) -> str:
    """A name for a picture's pixels, kept on the object: what is in its `info` would go over to edited copies."""
    if not hasattr(picture, DIGEST):
        head = f"{picture.width}x{picture.height} ".encode()
        setattr(picture, DIGEST, hashlib.sha256(head + picture.tobytes()).hexdigest()[:32])
    return getattr(picture, DIGEST)


def read_folder(folder: Path) -> StackState:
    """The stack in a folder; InputError where it cannot be read."""

    def read(name: str, most: int) -> bytes:
        path = folder / Path(name).name
        if not path.is_file() or path.stat().st_size > most:
            raise broken(f"a saved stack without {name[:60]!r}")
        return path.read_bytes()

    return parse_document(read(DOCUMENT, MOST_DOCUMENT), read)


def load_stack(path: str | Path) -> Stack:
    """A stack to work on, of a project's file."""
    return Stack(read_project(path))
