"""A prepared set as a small archive: one WebP file an image, and captions.json, for another machine's `train prepare`.

Alpha is exact. Colour is rounded to a multiple of a step and then kept exactly (a lossy WebP would halve its
resolution), and gone where a pixel is wholly transparent: `prepare` continues it there anyway. Opaque pictures,
photographs say, are stored lossily.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ...files.whole_files import write_whole
from .data import PreparedSet

STEP = 4
QUALITY = 92  # of opaque pictures


def pack(data: PreparedSet, path: str | Path, step: int = STEP) -> None:
    """Write the images of a set and their captions into one zip file, under its name only when it is whole."""
    stems = _stems(data.names)
    write_whole(Path(path), lambda partial: _write(data, stems, partial, step))


def _write(data: PreparedSet, stems: list[str], path: Path, step: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        table = json.dumps(dict(zip(stems, data.captions, strict=True)), ensure_ascii=False, indent=0)
        _add(archive, "captions.json", table.encode(), zipfile.ZIP_DEFLATED)
        for stem, rgba in zip(stems, data.rgba, strict=True):
            _add(archive, f"{stem}.webp", webp(rgba.permute(1, 2, 0).numpy(), step))


def _add(archive: zipfile.ZipFile, name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> None:
    entry = zipfile.ZipInfo(name)  # its date is the same every time, and so is the archive
    entry.compress_type, entry.external_attr = method, 0o644 << 16
    archive.writestr(entry, content)


def webp(pixels: np.ndarray, step: int = STEP) -> bytes:
    """uint8 [H,W,4] as a WebP file: exact alpha, colour in multiples of `step`; lossy without transparency."""
    buffer = io.BytesIO()
    if (pixels[..., 3] == 255).all():
        Image.fromarray(pixels[..., :3].copy()).save(buffer, "WEBP", quality=QUALITY, method=4)
    else:
        rounded = ((pixels.astype(np.uint16) + step // 2) // step * step).clip(0, 255).astype(np.uint8)
        rounded[..., 3] = pixels[..., 3]
        rounded[pixels[..., 3] == 0] = 0
        Image.fromarray(rounded).save(buffer, "WEBP", lossless=True, method=4)
    return buffer.getvalue()


def _stems(names: list[str]) -> list[str]:
    """Names without suffix, a number put to those that come twice."""
    taken: dict[str, int] = {}
    stems = []
    for name in names:
        stem = re.sub(r"\.(exr\.js|\w+)$", "", name)
        taken[stem] = taken.get(stem, 0) + 1
        stems.append(stem if taken[stem] == 1 else f"{stem}_{taken[stem]}")
    return stems
