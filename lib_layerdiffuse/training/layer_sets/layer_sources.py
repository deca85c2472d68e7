"""Layer sets of one's own: folders of three pictures, and layered PSD and OpenRaster files.

A folder or archive may hold any number of `NAME/foreground.png`, `background.png`, `blended.png` (WebP and others too,
background and blended also JPEG) with `captions.json` beside them, and `.psd` and `.ora` files. What cannot be used is
listed with its reason and skipped.
"""

from __future__ import annotations

import io
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ...core.errors import InputError
from ..pictures.captions import caption_variants
from ..pictures.data import HOLD_OUT_ONE_IN
from ..pictures.sources import IMAGE_SUFFIXES, iterate_files
from .backdrops import words_of
from .compose import pad_colour
from .layer_captions import blended_captions, foreground_captions
from .layer_sets import FRAMES, LayerSet
from .layered_files import READERS, Layered

logger = logging.getLogger(__name__)

PICTURES = (*IMAGE_SUFFIXES, ".jpg", ".jpeg")
MOST_PIXELS, MOST_VARIANTS, LONGEST_CAPTION = 2**26, 64, 500
PREPOSITION = re.compile(r"^(?P<thing>.+?) (?P<how>on|in|at|under|before|over|near) (?P<place>.+)$")
UNREADABLE = (OSError, ValueError, SyntaxError, KeyError, TypeError, IndexError, Image.DecompressionBombError)


@dataclass
class Sample:
    """Foreground RGBA, background and blended RGB images of one size, and their captions in the order of `FRAMES`."""

    name: str
    layers: tuple[Image.Image, Image.Image, Image.Image]
    captions: list[list[str]]


def read_layers(source: str | Path, side: int, progress: Callable[[Iterable], Iterable] = iter) -> LayerSet:
    """All usable sets of `source`, their middle squares scaled to `side`; one in ten held out by name's checksum.

    InputError where there is none.
    """
    samples, skipped = [], []
    for name, read in progress(_candidates(source)):
        try:
            sample = read()
            samples.append((sample.name, _tensors(sample, side), sample.captions))
        except UNREADABLE as error:
            reason = error.got if isinstance(error, InputError) else error
            skipped.append(f"{name}: {reason}")
            logger.warning("skipped %s", skipped[-1])
    if not samples:
        reasons = f" ({skipped[0]}{' ...' if len(skipped) > 1 else ''})" if skipped else ""
        raise InputError(
            f"no usable layer set in {source}{reasons}",
            "folders NAME with foreground, background and blended pictures, or PSD or ORA files",
            "look at what was skipped",
        )
    names = [name for name, _, _ in samples]
    layers = {frame: torch.stack([tensors[place] for _, tensors, _ in samples]) for place, frame in enumerate(FRAMES)}
    held_out = [zlib.crc32(name.encode()) % HOLD_OUT_ONE_IN == 0 for name in names]
    captions = [texts for _, _, texts in samples]
    return LayerSet(**layers, captions=captions, names=names, held_out=held_out, skipped=skipped)


def _candidates(source: str | Path) -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Name and reader of every set: a layered file, or the files of one folder."""
    files = iterate_files(source, (*PICTURES, *READERS, "captions.json"))
    for folder, group in groupby(files, key=lambda file: str(PurePosixPath(file[0]).parent)):
        parts = {}
        for name, content in group:
            if PurePosixPath(name).suffix.lower() in READERS:
                yield name, lambda name=name, content=content: _layered(name, content)
            else:
                parts[PurePosixPath(name).name.lower()] = content
        if parts:
            yield folder, lambda folder=folder, parts=parts: _of_folder(folder, parts)


def _of_folder(folder: str, parts: dict[str, bytes]) -> Sample:
    """The set of one folder's files."""
    found = {PurePosixPath(name).stem: content for name, content in parts.items() if name != "captions.json"}
    missing = [frame for frame in FRAMES if frame not in found]
    if missing:
        raise ValueError(f"no picture {' and '.join(missing)}")
    foreground, background, blended = layers = [_image(frame, found[frame]) for frame in FRAMES]
    sizes = {layer.size for layer in layers}
    if len(sizes) > 1:
        each = (f"{frame} {layer.width}x{layer.height}" for frame, layer in zip(FRAMES, layers, strict=True))
        raise ValueError(f"layers of different sizes: {', '.join(each)}")
    captions = parts.get("captions.json")
    name = PurePosixPath(folder).name
    texts = _listed(captions) if captions is not None else captions_of_name(name)
    return Sample(folder, (foreground, background, blended), texts)


def _image(frame: str, content: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content))
        check_pixels(*image.size)
        image.load()
    except UNREADABLE as error:
        raise ValueError(f"{frame}: {error}") from error
    return image.convert("RGBA")


def check_pixels(width: int, height: int) -> None:
    """ValueError for pictures that are too small or too large to be used."""
    if min(width, height) < 8 or width * height > MOST_PIXELS:
        raise ValueError(f"{width}x{height} pixels, not 8x8 to {MOST_PIXELS} in all")


def _listed(content: bytes) -> list[list[str]]:
    """Captions of a captions.json: for each frame a text or a list of texts."""
    try:
        table = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"captions.json: {error}") from error
    form = f"captions.json: not of the form {{{', '.join(f'{frame}: text or texts' for frame in FRAMES)}}}"
    if not isinstance(table, dict):
        raise ValueError(form)
    lists: list[Any] = [[table[frame]] if isinstance(table.get(frame), str) else table.get(frame) for frame in FRAMES]
    if not all(isinstance(texts, list) and 0 < len(texts) <= MOST_VARIANTS for texts in lists):
        raise ValueError(form)
    if not all(isinstance(text, str) and 0 < len(text.strip()) <= LONGEST_CAPTION for texts in lists for text in texts):
        raise ValueError(form)
    return [[" ".join(text.split()) for text in texts] for texts in lists]


def captions_of_name(name: str) -> list[list[str]]:
    """Captions by a folder's name: `red apple on a beach_02`, or a thing alone."""
    text = " ".join(re.sub(r"[\d_\-.]+", " ", name).lower().split()) or "picture"
    found = PREPOSITION.match(text)
    if not found:
        return [caption_variants(text), ["a background"], caption_variants(text)]
    things, place = foreground_captions([caption_variants(found["thing"])]), found["place"]
    words = words_of(place)
    return [
        things,
        list(dict.fromkeys([place, *words.captions])),
        [f"{thing} {found['how']} {place}" for thing in things],
    ]


def _layered(name: str, content: bytes) -> Sample:
    """The set of a layered file: its bottom layer is the background, the others together the foreground."""
    layers = READERS[PurePosixPath(name).suffix.lower()](content)
    if len(layers) < 2:
        raise ValueError(f"{len(layers)} visible layers, at least two are needed")
    background, others = layers[0], layers[1:]
    foreground = Image.new("RGBA", background.image.size)
    for layer in others:
        foreground = Image.alpha_composite(foreground, layer.image)
    blended = Image.alpha_composite(background.image, foreground)
    return Sample(name, (foreground, background.image, blended), _captions(background, others))


def _captions(background: Layered, others: list[Layered]) -> list[list[str]]:
    words = words_of(background.name)
    things = [caption_variants(" ".join(layer.name.split()) or "thing") for layer in others[:8]]
    return [foreground_captions(things), list(words.captions), blended_captions(things, words.phrases)]


def _tensors(sample: Sample, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """uint8 [4,side,side], [3,side,side], [3,side,side] of the middle squares; the foreground padded."""
    layers = [np.asarray(_square(layer, side)) for layer in sample.layers]
    for frame, pixels in zip(FRAMES[1:], layers[1:], strict=True):
        if pixels[..., 3].min() < 250:
            raise ValueError(f"the {frame} is not opaque")
    if not layers[0][..., 3].any():
        raise ValueError("the foreground is wholly transparent")
    rgba = torch.from_numpy(layers[0].copy()).permute(2, 0, 1).float() / 255
    colour = (pad_colour(rgba[None])[0] * 255).round().byte()
    foreground = torch.cat([colour, torch.from_numpy(layers[0][..., 3].copy())[None]])
    background, blended = (
        torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1).contiguous() for pixels in layers[1:]
    )
    return foreground, background, blended


def _square(layer: Image.Image, side: int) -> Image.Image:
    """Scaled as premultiplied colour, so that invisible pixels colour nothing."""
    return ImageOps.fit(layer.convert("RGBa"), (side, side), Image.Resampling.LANCZOS).convert("RGBA")
