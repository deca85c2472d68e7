"""RGBA images with captions, made ready once: square uint8 tensors in one safetensors file.

`prepare` reads a source, decodes, crops, pads the colour of invisible pixels and holds concepts out; training reads
the prepared file into memory and never meets a bad image. Figures of the set (share of soft alpha) are in its header.
"""

from __future__ import annotations

import io
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors import safe_open

from ..core.errors import InputError
from ..core.memory import free_bytes
from ..core.picture.alpha import pad_rgb
from ..files.whole_files import save_tensors
from .sources import iterate_files

logger = logging.getLogger(__name__)

HOLD_OUT_ONE_IN = 10
VARIANT_WORDS = re.compile(r"\b(man|woman|person|men|women|people|boy|girl|child|baby)\b")
SKIN_TONES = re.compile(r"1f3f[b-f]")


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

    def save(self, path: str | Path) -> None:
        """Write tensors and captions into one safetensors file, under its name only when it is whole."""
        header = {key: json.dumps(getattr(self, key)) for key in ("names", "captions", "held_out", "skipped")}
        save_tensors({"rgba": self.rgba}, path, header)

    @classmethod
    def load(cls, path: str | Path) -> PreparedSet:
        """Read what `save` wrote; `InputError` when the file is something else."""
        try:
            with safe_open(str(path), framework="pt") as file:
                header = file.metadata() or {}
                fields = {key: json.loads(header[key]) for key in ("names", "captions", "held_out", "skipped")}
                return cls(file.get_tensor("rgba"), **fields)
        except Exception as error:  # safetensors raises its own type; a wrong file may fail in any of these lines
            raise InputError(
                got=f"{path}: {error}",
                expected="a file that `train prepare` wrote",
                what_to_do="run `python -m lib_layerdiffuse train prepare` first",
            ) from error


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`, if it fills no more than half of the memory that is free there; else as it is."""
    fits = tensor.device == device or 2 * tensor.nbytes <= free_bytes(device)
    return tensor.to(device) if fits else tensor


def concept_key(caption: str) -> str:
    """The concept behind a caption: variants of man, woman, person and so on fall together."""
    return " ".join(VARIANT_WORDS.sub(" ", caption.lower()).split())


def is_held_out(caption: str, keep: Iterable[str] = ()) -> bool:
    """Whether a concept is kept out of training: one in ten by checksum, never one of `keep` (the vocabulary)."""
    key = concept_key(caption)
    return caption not in set(keep) and zlib.crc32(key.encode()) % HOLD_OUT_ONE_IN == 0


def load_captions(path: str | Path) -> dict[str, str]:
    """Captions by file stem, from a JSON object `{stem: caption}` or from the npm package `unicode-emoji-json`."""
    try:
        if str(path).endswith(".json"):
            return _table(json.loads(Path(path).read_text(encoding="utf-8")))
        for name, content in iterate_files(path, (".json",)):
            if name.endswith("data-by-emoji.json"):
                usable = {emoji: row for emoji, row in _table(json.loads(content)).items() if row["group"] != "Flags"}
                return {codepoints(emoji): row["name"] for emoji, row in usable.items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: {type(error).__name__}: {error}", "a JSON object {file stem: caption}", "correct the file"
        ) from error
    raise InputError(
        got=str(path), expected="captions.json or the unicode-emoji-json package", what_to_do="check the path"
    )


def _table(content: object) -> dict:
    if not isinstance(content, dict):
        raise TypeError(f"a JSON {type(content).__name__}")
    return content


def codepoints(emoji: str) -> str:
    """File stem of an emoji: hexadecimal code points without leading zeros and without fe0f, joined by `-`."""
    return "-".join(f"{ord(char):x}" for char in emoji if char != "\ufe0f")


def normalise_stem(stem: str) -> str:
    """The stem of a file in the same form as `codepoints`."""
    parts = [part.lstrip("0") for part in stem.lower().split("-")]
    return "-".join(part for part in parts if part != "fe0f")


def caption_from_path(name: str) -> str:
    """Folder and file name as words, for archives without captions."""
    path = Path(name)
    words = f"{path.parent.name} {path.stem}" if path.parent.name else path.stem
    return " ".join(re.sub(r"[\d_\-.]+", " ", words).lower().split())


def decode_square(content: bytes, size: int) -> np.ndarray:
    """Decode one image to uint8 [size,size,4] straight RGBA, longer side fitted, centred; raises on bad files."""
    image = Image.open(io.BytesIO(content))
    image.load()
    image = image.convert("RGBA")
    scale = size / max(image.size)
    fitted = image.convert("RGBa").resize([max(1, round(side * scale)) for side in image.size], Image.LANCZOS)
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(fitted.convert("RGBA"), ((size - fitted.width) // 2, (size - fitted.height) // 2))
    return np.asarray(canvas)


def prepare(
    source: str | Path,
    size: int,
    captions: dict[str, str] | None = None,
    keep: Iterable[str] = (),
    progress: Callable[[Iterable], Iterable] = iter,
) -> PreparedSet:
    """Read `source` into a `PreparedSet` of `size` x `size` images; bad files land in `skipped`.

    With `captions` (by normalised file stem) files without one are left out, as are skin-tone variants of emoji.
    """
    keep, rgba, names, texts, skipped = set(keep), [], [], [], []
    room = free_bytes(torch.device("cpu"))
    for name, content in progress(iterate_files(source)):
        caption = _caption_of(name, captions)
        if caption is None:
            continue
        try:
            pixels = decode_square(content, size)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            skipped.append(f"{name}: {error}")
            continue
        if not pixels[..., 3].any():
            skipped.append(f"{name}: fully transparent")
            continue
        rgba.append(_padded(pixels))
        _check_room(len(rgba), size, room)
        names.append(name)
        texts.append(caption)
    for line in skipped:
        logger.warning("skipped %s", line)
    if not rgba:
        raise InputError(f"no usable image in {source}", "at least one RGBA image", "look at the skipped files above")
    held_out = [is_held_out(text, keep) for text in texts]
    return PreparedSet(torch.stack(rgba), names, texts, held_out, skipped)


def _check_room(count: int, size: int, room: int) -> None:
    """InputError when the set, which is joined in memory at the end, cannot fit into it."""
    if 2 * count * 4 * size**2 > room:
        raise InputError(
            f"more than {count - 1} images of {size}x{size}, too many for the {room / 2**30:.1f} GiB of memory at hand",
            "a set that fits into half of the memory",
            "choose a smaller --size, or prepare fewer images",
        )


def _caption_of(name: str, captions: dict[str, str] | None) -> str | None:
    if captions is None:
        return caption_from_path(name)
    stem = Path(name).stem
    return None if SKIN_TONES.search(stem) else captions.get(stem, captions.get(normalise_stem(stem)))


def _padded(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [S,S,4] to uint8 [4,S,S] with the colour continued under transparent pixels."""
    alpha = pixels[..., 3:]
    colour = np.where(alpha == 255, pixels[..., :3], (pad_rgb(pixels) * 255).round().clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.concatenate([colour, alpha], axis=-1)).permute(2, 0, 1).contiguous()
