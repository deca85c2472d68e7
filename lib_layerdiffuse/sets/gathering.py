"""What a user names to be saved as layers: layered files, frames of a set by their names, pictures as a stack."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..core.errors import InputError
from ..core.methods import BACKGROUND, BLENDED, FOREGROUND, own_prompt
from ..core.picture.sizes import check_pixels
from .layer_set import LONGEST_NAME, Layer, LayerSet, set_of_frames
from .reading import READERS, is_layered, read_set

PICTURES = (".png", ".webp", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
FRAMED = re.compile(rf"^(?P<set>.*?)[-_ ]?(?P<frame>{BACKGROUND}|{BLENDED}|{FOREGROUND})(_\d+)?$", re.IGNORECASE)
NUMBER = re.compile(r"\d+")
FRAMES_OF_SET = 3
SHEET = re.compile(r"^contact-sheet(_\d+)?$")
SETTINGS_BEGIN = ("Negative prompt: ", "Steps: ")  # in the text of a picture, after its prompt
SETTING = re.compile(r'(?:^|, *)(\w[\w /-]{0,60}): *("(?:\\.|[^\\"])*"|[^,]*)(?=,|$)')  # a value with marks is quoted
OWN = "layerdiffusion_{}_{}"  # the settings of a layer
SHORT = {FOREGROUND: "fg", BACKGROUND: "bg", BLENDED: "blend"}  # in their names
LAYER = "layerdiffusion_layer"  # what says which one a picture is


@dataclass(frozen=True)
class Gathered:
    """The sources of one set: its name, and the files; of frames by their names, or else bottom first."""

    stem: str
    paths: tuple[Path, ...]
    frames: tuple[str, ...] = ()

    def read(self) -> LayerSet:
        """The set; InputError names the file that cannot be used."""
        if len(self.paths) == 1 and is_layered(self.paths[0]):
            return read_set(self.paths[0])
        frames = self.frames or ("",) * len(self.paths)
        read = [_opened(path, frame) for path, frame in zip(self.paths, frames, strict=True)]
        if self.frames:
            rows = dict(zip(self.frames, read, strict=True))
            return set_of_frames(
                {frame: picture for frame, (picture, _, _) in rows.items()},
                {frame: prompt for frame, (_, prompt, _) in rows.items()},
                {frame: seed for frame, (_, _, seed) in rows.items()},
            )
        layers = [
            Layer(path.stem[:LONGEST_NAME], picture, prompt=prompt, seed=seed)
            for path, (picture, prompt, seed) in zip(self.paths, read, strict=True)
        ]
        return LayerSet(max(layer.width for layer in layers), max(layer.height for layer in layers), tuple(layers))


def gathered(sources: Sequence[str | Path]) -> list[Gathered]:
    """The sets that files and folders make; nothing is read but the folders' lists.

    Each layered file is a set. Pictures whose names end in -foreground, -background and -blended make sets: those that
    are called alike but for numbers, which may count on from layer to layer. All other pictures of a folder, or of
    those named, are one set, bottom first, in the order of their names or as named.
    """
    sets: list[Gathered] = []
    named: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir() and not is_layered(source):
            sets += _of_files(source.resolve().name or "layers", _files_in(source))
        else:
            named.append(source)
    return [*_of_files("", named), *sets]


def _files_in(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}, which cannot be listed ({error})", "a folder", "name another one") from error
    usable = [path for path in files if path.suffix.lower() in (*READERS, *PICTURES)]
    if not usable:
        raise InputError(f"{folder}, which holds no picture", "pictures or layered files", "name another folder")
    return usable


def _of_files(stem: str, files: Sequence[Path]) -> Iterator[Gathered]:
    frames, others = [], []
    for path in files:
        if not path.exists():
            raise InputError(f"no file {path}", "a picture, a layered file or a folder", "correct the path")
        if is_layered(path):
            yield Gathered(path.stem, (path,))
        else:
            (frames if FRAMED.match(path.stem) else others).append(path)
    for group in _framed(frames):
        yield Gathered(_parts(next(iter(group.values())))[0] or stem, tuple(group.values()), tuple(group))
    others = [path for path in others if not SHEET.match(path.stem)] or (others if len(files) == 1 else [])
    if others:
        yield Gathered(stem or others[0].stem, tuple(others))


def _framed(paths: Sequence[Path]) -> Iterator[dict[str, Path]]:
    """Pictures by frame, set after set: one ends where a frame comes again, or where the numbers leap."""
    groups: dict[tuple[Path, str], list[dict[str, Path]]] = {}
    for path in sorted(paths, key=lambda path: (path.parent, _counted(path))):
        name, frame = _parts(path)
        sets = groups.setdefault((path.parent, NUMBER.sub("#", name)), [])
        if not sets or frame in sets[-1] or not _near(next(iter(sets[-1].values())), path):
            sets.append({})
        sets[-1][frame] = path
    return itertools.chain.from_iterable(groups.values())


def _parts(path: Path) -> tuple[str, str]:
    """The name of a picture's set, and its frame."""
    found = FRAMED.match(path.stem)
    return (found["set"], found["frame"].lower()) if found else (path.stem, "")


def _counted(path: Path) -> list[tuple[int, str]]:
    """What sorts a2 before a10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.stem)]


def _near(first: Path, other: Path) -> bool:
    """Whether the numbers of two names are at most as far apart as the layers of a set are."""
    pairs = zip(NUMBER.findall(_parts(first)[0]), NUMBER.findall(_parts(other)[0]), strict=False)
    return all(abs(int(one) - int(two)) < FRAMES_OF_SET for one, two in pairs)


def _opened(path: Path, frame: str) -> tuple[Image.Image, str, int | None]:
    """A picture as RGBA, the prompt and the seed that its text tells of it as this layer of a set."""
    try:
        with Image.open(path) as image:
            check_pixels(image, path.name)
            prompt, seed = told_by(str(image.info.get("parameters", "")), frame)
            return image.convert("RGBA"), prompt, seed
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        expected = "a picture, or a layered file"
        raise InputError(f"{path}, which cannot be read ({error})", expected, "leave it out") from error


def told_by(parameters: str, frame: str = "") -> tuple[str, int | None]:
    """The prompt and the seed of the text that WebUIs and this program put into their pictures.

    Those that a layer has of its own, where it has them; an empty `frame` is the layer that the text names.
    """
    lines = parameters[: 2**20].splitlines()
    end = next((place for place, line in enumerate(lines) if line.startswith(SETTINGS_BEGIN)), len(lines))
    told = _settings(lines[-1][: 2**16]) if lines else {}
    short = SHORT.get(frame or told.get(LAYER, ""), "")
    prompt = own_prompt(told.get(OWN.format(short, "additional_prompt"), ""), "\n".join(lines[:end]))
    return prompt.replace("\0", ""), _seed(told.get(OWN.format(short, "seed")) or told.get("Seed", ""))


def _settings(line: str) -> dict[str, str]:
    """The settings in the last line of a picture's text, by name; of one that comes twice, the first."""
    found: dict[str, str] = {}
    for name, value in SETTING.findall(line):
        found.setdefault(name, _unquoted(value))
    return found


def _unquoted(value: str) -> str:
    """A setting without the quotation marks of JSON, where it has them."""
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip()
    except ValueError:
        return value


def _seed(text: str) -> int | None:
    """A whole number that can be a seed; None for any other text."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else None
    return number if number is None or number <= 2**64 else None
