"""Backgrounds for composed layers: painted scenes (`scenes`), and pictures of a folder, photographs say.

Pictures are kept an eighth larger than they are used, so that each use may cut out another part of them.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ...core.errors import InputError
from ..pictures.captions import caption_variants
from ..pictures.data import PreparedSet
from ..pictures.sources import IMAGE_SUFFIXES, iterate_files
from .scenes import SCENES, Place, named_scenes, paint_numbered

MARGIN = 9 / 8  # side of a kept picture by the side of its cuttings
FEW = 64  # pictures that are painted sooner than workers are started
MOST_PIXELS = 2**26
PHOTO_SUFFIXES = (*IMAGE_SUFFIXES, ".jpg", ".jpeg")


@dataclass(frozen=True)
class Words:
    """How one asks for a scene alone, and what follows a thing that is put into it."""

    name: str
    captions: tuple[str, ...]
    phrases: tuple[str, ...]


@dataclass
class Backdrops:
    """`pictures` uint8 [M,3,P,P]; `scene` [M] numbers of `words`; `places` [M]: where things stand, and their light."""

    pictures: torch.Tensor
    scene: list[int]
    places: list[Place]
    words: list[Words]
    skipped: list[str]

    def __len__(self) -> int:
        return len(self.scene)

    def cut(self, side: int) -> torch.Tensor:
        """The middle of every picture, uint8 [M,3,side,side]."""
        start = (self.pictures.shape[-1] - side) // 2
        return self.pictures[:, :, start : start + side, start : start + side].contiguous()

    def captions(self) -> list[list[str]]:
        """All ways to ask for each picture alone."""
        return [list(self.words[number].captions) for number in self.scene]

    def __add__(self, other: Backdrops) -> Backdrops:
        """Both; pictures of scenes that both know stay together."""
        words = list(dict.fromkeys([*self.words, *other.words]))
        scene = [words.index(source.words[number]) for source in (self, other) for number in source.scene]
        pictures = torch.cat([self.pictures, other.pictures])
        return Backdrops(pictures, scene, [*self.places, *other.places], words, [*self.skipped, *other.skipped])


def kept_side(side: int) -> int:
    """Side of the pictures that are kept for cuttings of `side`."""
    return round(side * MARGIN)


def paint_backdrops(
    names: Sequence[str], count: int, side: int, first: int = 0, progress: Callable[[Iterable], Iterable] = iter
) -> Backdrops:
    """`count` pictures of each of the scenes `names` (none: all), numbered from `first`; by all cores where many.

    InputError for less than one.
    """
    scenes = named_scenes(names)
    jobs = [(scene.name, first + number) for number in range(count) for scene in scenes]
    if not jobs:
        raise InputError(f"{count} pictures of each scene", "one or more", "raise the number")
    paint = partial(paint_numbered, side=kept_side(side))
    if len(jobs) <= FEW:
        painted = [paint(job) for job in progress(jobs)]
    else:  # fresh processes: a forked one would share the accelerator's state
        with ProcessPoolExecutor(_workers(), mp_context=get_context("spawn")) as pool:
            painted = list(progress(pool.map(paint, jobs, chunksize=16)))
    pictures = torch.from_numpy(np.stack([picture for picture, _ in painted])).permute(0, 3, 1, 2).contiguous()
    numbers = [number for _ in range(count) for number in range(len(scenes))]
    words = [Words(scene.name, scene.captions, scene.phrases) for scene in scenes]
    return Backdrops(pictures, numbers, [place for _, place in painted], words, [])


def _workers() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, usable))


def read_backdrops(source: str | Path, side: int) -> Backdrops:
    """Pictures of a folder or an archive, or of a prepared set; bad ones are skipped.

    Captions come from a captions.json {file stem: caption} among them, or from file names (`forest_02.jpg`: forest).
    InputError where none can be used.
    """
    if str(source).endswith(".safetensors"):
        data = PreparedSet.load(source)
        pictures = [_fitted(Image.fromarray(rgb.permute(1, 2, 0).numpy()), side) for rgb in data.rgba[:, :3]]
        return _named_backdrops(pictures, data.captions, data.skipped)
    table, pictures, captions, skipped = _table(source), [], [], []
    for name, content in iterate_files(source, PHOTO_SUFFIXES):
        try:
            pictures.append(_fitted(_opened(content), side))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            skipped.append(f"{name}: {error}")
            continue
        captions.append(str(table.get(Path(name).stem, table.get(name.rsplit(".", 1)[0], Path(name).stem))))
    if not pictures:
        raise InputError(f"no usable picture in {source}", "pictures named by what they show", "check the folder")
    return _named_backdrops(pictures, captions, skipped)


def _table(source: str | Path) -> dict[str, str]:
    try:
        found = [json.loads(content) for _, content in iterate_files(source, ("captions.json",))]
    except (ValueError, RecursionError) as error:
        raise InputError(f"captions.json: {error}", "a JSON object {file stem: caption}", "correct the file") from error
    return found[0] if found and isinstance(found[0], dict) else {}


def _named_backdrops(pictures: list[np.ndarray], captions: Sequence[str], skipped: list[str]) -> Backdrops:
    words = [words_of(caption) for caption in captions]
    known = list(dict.fromkeys(words))
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return Backdrops(stacked, [known.index(each) for each in words], [Place()] * len(words), known, skipped)


def _opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels, more than {MOST_PIXELS}")
    return image.convert("RGB")


def _fitted(image: Image.Image, side: int) -> np.ndarray:
    """uint8 [P,P,3] with the margin for cuttings of `side`, the middle of the picture."""
    return np.asarray(ImageOps.fit(image, (kept_side(side), kept_side(side)), Image.Resampling.LANCZOS))


def words_of(caption: str) -> Words:
    """Words of a picture by its caption or the stem of its name; a painted scene's where it is called like one."""
    stem = " ".join(re.sub(r"[\d_\-.~]+", " ", caption).lower().split()) or "place"
    for scene in SCENES:
        if stem == scene.name or stem in scene.captions:
            return Words(scene.name, scene.captions, scene.phrases)
    captions = caption_variants(stem)
    return Words(stem, tuple(captions[::-1]), (f"in {captions[-1]}", f"before {captions[-1]}", f"in the {stem}"))


def open_backdrops(
    sources: Sequence[str], count: int, side: int, progress: Callable[[Iterable], Iterable] = iter
) -> Backdrops:
    """Backdrops by `sources`: names of painted scenes, `painted` for all of them, folders and archives of pictures."""
    names = [name for scene in SCENES for name in sources if name in (scene.name, "painted") for name in [scene.name]]
    paths = [source for source in sources if source != "painted" and source not in names]
    parts = [paint_backdrops(names, count, side, progress=progress)] if names or not paths else []
    parts += [read_backdrops(path, side) for path in paths]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
