"""RGBA images with captions, made ready once: square uint8 tensors in one safetensors file.

`prepare` reads a source, decodes, crops, pads the colour of invisible pixels and holds concepts out; training reads
the prepared file into memory and never meets a bad image. Figures of the set (share of soft alpha) are in its header.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...core.errors import InputError
from ...core.memory import free_bytes
from ...core.picture.alpha import pad_rgb
from .captions import load_captions, split_style, with_style
from .formats import SUFFIXES, Wanted, is_set, pictures_of
from .recipe import Distinct, Source, as_sources, spread
from .set_files import open_set, save_set
from .sources import iterate_files

logger = logging.getLogger(__name__)

HOLD_OUT_ONE_IN = 10
MOST_SOURCES = 20
VARIANT_WORDS = re.compile(r"\b(man|woman|person|men|women|people|boy|girl|child|baby)\b")
# What readers of pictures raise for a bad one
UNREADABLE = (OSError, ValueError, SyntaxError, KeyError, TypeError, EOFError, Image.DecompressionBombError)
__all__ = ["PreparedSet", "concept_key", "is_held_out", "load_captions", "prepare"]

HEADER = ("names", "captions", "held_out", "skipped")


@dataclass
class PreparedSet:
    """`rgba` uint8 [N,4,S,S] with R,G,B already padded under transparent pixels; one caption and name an image."""

    rgba: torch.Tensor
    names: list[str]
    captions: list[str]
    held_out: list[bool]
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def part(self, held_out: bool) -> PreparedSet:
        """The held-out or the training part, in the same order."""
        return self.select([i for i in range(len(self)) if self.held_out[i] == held_out])

    def select(self, index: list[int]) -> PreparedSet:
        """The images at `index`, in that order."""
        pick = lambda values: [values[i] for i in index]  # noqa: E731
        return PreparedSet(self.rgba[index], pick(self.names), pick(self.captions), pick(self.held_out), self.skipped)

    def to(self, device: torch.device) -> PreparedSet:
        """The set with its pixels on `device`, where `on_device` puts them there."""
        return replace(self, rgba=on_device(self.rgba, device))

    def statistics(self) -> dict[str, float]:
        """Count and shares of transparent (0), soft (1..254) and opaque (255) pixels, and of images with >5% soft."""
        alpha = self.rgba[:, 3]
        soft = ((alpha > 0) & (alpha < 255)).float().mean(dim=(1, 2))
        return {
            "images": len(self),
            "held_out": sum(self.held_out),
            "skipped": len(self.skipped),
            "transparent_share": (alpha == 0).float().mean().item(),
            "soft_share": soft.mean().item(),
            "opaque_share": (alpha == 255).float().mean().item(),
            "soft_images_share": (soft > 0.05).float().mean().item(),
        }

    def by_source(self) -> dict[str, dict[str, float]]:
        """`statistics` of each named source, where a list of sources gave names."""
        rows: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            rows.setdefault(name.split("/")[0] if "/" in name else "", []).append(index)
        if len(rows) > MOST_SOURCES:  # folders of an archive, not sources
            return {}
        keys = ("images", "held_out", "soft_share")
        figures = {name: self.select(index).statistics() for name, index in rows.items()}
        return {name: {key: row[key] for key in keys} for name, row in figures.items()}

    def save(self, path: str | Path) -> None:
        """Write tensors and captions into one safetensors file, under its name only when it is whole."""
        save_set(path, {"rgba": self.rgba}, {name: getattr(self, name) for name in HEADER})

    @classmethod
    def load(cls, path: str | Path) -> PreparedSet:
        """Read what `save` wrote; `InputError` when the file is something else."""
        with open_set(path, "`train prepare`", HEADER) as (file, header):
            return cls(file.get_tensor("rgba"), **header)


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of any shape on `device`, if it fills no more than half of the free memory there; else as it is."""
    fits = tensor.device == device or 2 * tensor.nbytes <= free_bytes(device)
    return tensor.to(device) if fits else tensor


def concept_key(caption: str) -> str:
    """The concept behind a caption: styles, and variants of man, woman, person and so on fall together."""
    return " ".join(VARIANT_WORDS.sub(" ", split_style(caption.lower())[1]).split())


def is_held_out(caption: str, keep: Iterable[str] = ()) -> bool:
    """Whether a concept is kept out of training: one in ten by checksum, never one of `keep` (the vocabulary)."""
    key, keep = concept_key(caption), set(keep)
    if caption in keep or split_style(caption)[1] in keep:
        return False
    return zlib.crc32(key.encode()) % HOLD_OUT_ONE_IN == 0


def prepare(
    source: str | Path | Iterable[Source],
    size: int,
    captions: dict[str, str] | None = None,
    keep: Iterable[str] = (),
    progress: Callable[[Iterable], Iterable] = iter,
    least_difference: float = 0.0,
) -> PreparedSet:
    """Read sources into a `PreparedSet` of `size` x `size` images; bad files land in `skipped`.

    With `captions` (by file stem) files without one are left out, as are skin-tone variants of emoji. Pictures that
    differ less than `least_difference` from one before are left out. InputError where no image is left, or too many.
    """
    sources = list(as_sources([source], captions) if isinstance(source, (str, Path)) else source)
    work = _Preparation(size, frozenset(keep), Distinct(least_difference))
    for row in sources:
        work.add(row, progress)
    for line in work.skipped:
        logger.warning("skipped %s", line)
    if not work.rgba:
        names = ", ".join(str(row.source) for row in sources)
        raise InputError(f"no usable image in {names}", "at least one RGBA image", "look at the skipped files above")
    held_out = [is_held_out(text, work.keep) for text in work.captions]
    return PreparedSet(torch.from_numpy(np.stack(work.rgba)), work.names, work.captions, held_out, work.skipped)


class _Preparation:
    """A set on its way: sources are read one after another."""

    def __init__(self, size: int, keep: frozenset[str], distinct: Distinct) -> None:
        self.size, self.keep, self.distinct = size, keep, distinct
        self.rgba: list[np.ndarray] = []
        self.names: list[str] = []
        self.captions: list[str] = []
        self.skipped: list[str] = []
        self.room = free_bytes(torch.device("cpu"))

    def add(self, source: Source, progress: Callable[[Iterable], Iterable]) -> None:
        """Add what is wanted of a source."""
        chosen = []
        for name, caption, pixels in progress(self._pictures(source)):
            if self.distinct.repeats(pixels, caption, caption in self.keep):
                continue
            chosen.append((f"{source.name}/{name}" if source.name else name, with_style(caption, source.style), pixels))
            _check_room(len(self.rgba) + len(chosen), self.size, self.room)
        for name, caption, pixels in spread(chosen, source.most):
            self.names.append(name)
            self.captions.append(caption)
            self.rgba.append(_padded(pixels))

    def _pictures(self, source: Source) -> Iterator[tuple[str, str, np.ndarray]]:
        """Name, caption and uint8 [S,S,4] of a source's wanted pictures."""
        caption_of = partial(self._caption, source)
        wanted = Wanted(self.size, source.frames, source.views, lambda name: caption_of(name) is not None)
        for file, content in iterate_files(source.source, SUFFIXES, self.skipped):
            if is_set(file) or wanted.admits(file):
                for name, pixels in self._decoded(file, content, wanted, source.crop):
                    caption = caption_of(name)
                    if not pixels[..., 3].any():
                        self.skipped.append(f"{name}: fully transparent")
                    elif caption is not None and source.admits(pixels):
                        yield name, caption, pixels

    def _caption(self, source: Source, name: str) -> str | None:
        caption = source.caption_of(name)
        return None if source.kept_only and caption not in self.keep else caption

    def _decoded(self, file: str, content: bytes, wanted: Wanted, crop: bool) -> Iterator[tuple[str, np.ndarray]]:
        try:
            for name, load in pictures_of(file, content, wanted):
                try:
                    image = load()
                    pixels = fit_square(cropped(image) if crop else image, self.size)
                except UNREADABLE as error:
                    self.skipped.append(f"{name}: {error}")
                else:
                    yield name, pixels
        except UNREADABLE as error:
            self.skipped.append(f"{file}: {error}")


def fit_square(image: Image.Image, size: int) -> np.ndarray:
    """An RGBA image as uint8 [size,size,4] straight RGBA, longer side fitted, centred."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    fitted = image.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(fitted.convert("RGBA"), ((size - fitted.width) // 2, (size - fitted.height) // 2))
    return np.asarray(canvas)


def cropped(image: Image.Image) -> Image.Image:
    """What is visible of an RGBA image, with a margin of a twentieth."""
    box = image.getchannel("A").point([0] * 12 + [255] * 244).getbbox()
    if box is None:
        return image
    margin = round(max(box[2] - box[0], box[3] - box[1]) / 20)
    return image.crop((box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin))


def _check_room(count: int, size: int, room: int) -> None:
    """InputError when the set, which is joined in memory at the end, cannot fit into it."""
    if 2 * count * 4 * size**2 > room:
        raise InputError(
            f"more than {count - 1} images of {size}x{size}, too many for the {room / 2**30:.1f} GiB of memory at hand",
            "a set that fits into half of the memory",
            "choose a smaller --size, or prepare fewer images",
        )


def _padded(pixels: np.ndarray) -> np.ndarray:
    """uint8 [S,S,4] to uint8 [4,S,S] with the colour continued under transparent pixels."""
    alpha = pixels[..., 3:]
    colour = np.where(alpha == 255, pixels[..., :3], (pad_rgb(pixels) * 255).round().clip(0, 255).astype(np.uint8))
    # numpy throughout: for small pictures torch's threads cost more than they do
    return np.ascontiguousarray(np.concatenate([colour, alpha], axis=-1).transpose(2, 0, 1))
