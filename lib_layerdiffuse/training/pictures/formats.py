"""What one file of a source shows: a picture, frames of an animation, a drawing (SVG), views of a panorama (EXR).

`pictures_of` turns a file's bytes into named RGBA images; a row of `READERS` for each kind of file. Drawings need
resvg, panoramas OpenEXR: the extra `pictures`. Everything else is Pillow's.
"""

from __future__ import annotations

import base64
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...core.errors import MissingExtraError
from ...core.picture.sizes import check_pixels
from ...standalone.extras import install_line
from .sources import IMAGE_SUFFIXES

ICON_SET = "icons.json"
SUFFIXES = (*IMAGE_SUFFIXES, ".svg", ".exr", ".exr.js", ICON_SET)
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
NAMED_PANORAMA = re.compile(rb"base64,([A-Za-z0-9+/=\s]+)")
VIEW_ANGLE = 75.0  # degrees, of a panorama's views
BRIGHTEST, VANISHED = 6e4, 1e-4
PITCHES = (-12.0, 0.0, 10.0)


FRAME = "~"  # between a file's stem and the number of a frame or view
LEAST_FRAME = 0.6  # of the largest frame's visible area: where a thing is falling out of the picture, it is left out


@dataclass(frozen=True)
class Wanted:
    """Size of the pictures in pixels, how many a file may give, and which icons of a set."""

    size: int
    frames: int = 1  # of an animation
    views: int = 24  # of a panorama
    admits: Callable[[str], bool] = lambda name: True


Named = Iterator[tuple[str, Callable[[], Image.Image]]]


def pictures_of(name: str, content: bytes, wanted: Wanted) -> Named:
    """Names of the pictures in one file, and what loads each as RGBA; both raise what a bad file makes them raise."""
    lower = name.lower()
    suffix = next((suffix for suffix in READERS if lower.endswith(suffix)), None)
    yield from (READERS[suffix] if suffix else _raster)(name, content, wanted)


def is_set(name: str) -> bool:
    """Whether a file holds many pictures, each with a name of its own."""
    return name.lower().endswith(ICON_SET)


def file_stem(name: str) -> str:
    """The stem of the file that a picture came from, without the number of its frame."""
    return Path(name).name.removesuffix(".js").rsplit(".", 1)[0].split(FRAME)[0]


def _raster(name: str, content: bytes, wanted: Wanted) -> Named:
    image = Image.open(io.BytesIO(content))
    check_pixels(image, "a picture")
    count = getattr(image, "n_frames", 1)
    if wanted.frames == 1 or count == 1:
        yield name, lambda: image.convert("RGBA")
        return
    stem, suffix = name.rsplit(".", 1)
    frames = {}
    for number in dict.fromkeys(index * count // wanted.frames for index in range(wanted.frames)):
        image.seek(number)
        frames[number] = image.convert("RGBA")
    area = {number: np.count_nonzero(np.asarray(frame)[..., 3]) for number, frame in frames.items()}
    for number, frame in frames.items():
        if area[number] >= LEAST_FRAME * max(area.values()):
            yield f"{stem}{FRAME}{number:03d}.{suffix}", lambda frame=frame: frame


def _drawing(name: str, content: bytes, wanted: Wanted) -> Named:
    yield name, lambda: _rendered(content.decode("utf-8"), wanted.size)


def _rendered(drawing: str, size: int) -> Image.Image:
    render = _resvg()
    image = Image.open(io.BytesIO(render(svg_string=drawing, width=size, skip_system_fonts=True)))
    if image.height > size:
        image = Image.open(io.BytesIO(render(svg_string=drawing, height=size, skip_system_fonts=True)))
    return image.convert("RGBA")


def _resvg() -> Callable[..., bytes]:
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise MissingExtraError("an SVG drawing", "the module resvg_py", install_line("pictures")) from error
    return svg_to_bytes


def _icon_set(name: str, content: bytes, wanted: Wanted) -> Named:
    """Drawings of an icon set in Iconify's JSON; those marked as hidden are left out."""
    icons = json.loads(content)
    for key, icon in icons["icons"].items():
        if not icon.get("hidden") and wanted.admits(f"{key}.svg"):
            width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
            box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
            drawing = f'<svg {NAMESPACES} viewBox="{box}">{icon["body"]}</svg>'
            yield f"{key}.svg", lambda drawing=drawing: _rendered(drawing, wanted.size)


def _panorama(name: str, content: bytes, wanted: Wanted) -> Named:
    picture = tone_mapped(read_exr(content))
    for number in range(wanted.views):
        turn, pitch = 360 * number / wanted.views, PITCHES[number % len(PITCHES)]
        view = perspective(picture, turn, pitch, wanted.size)
        image = Image.fromarray((view * 255).round().astype(np.uint8)).convert("RGBA")
        yield f"{file_stem(name)}{FRAME}{number:03d}.exr", lambda image=image: image


def _named_panorama(name: str, content: bytes, wanted: Wanted) -> Named:
    """A panorama as a data URL in a JavaScript module."""
    found = NAMED_PANORAMA.search(content)
    if not found:
        raise ValueError("no data URL in it")
    yield from _panorama(name, base64.b64decode(found.group(1)), wanted)


READERS = {
    ".svg": _drawing,
    ICON_SET: _icon_set,
    ".exr.js": _named_panorama,
    ".exr": _panorama,
}


def read_exr(content: bytes) -> np.ndarray:
    """Linear light float32 [H,W,3] of an OpenEXR file.

    ValueError for one without colours, MissingExtraError without the library.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingExtraError("an OpenEXR panorama", "the module OpenEXR", install_line("pictures")) from error
    with tempfile.TemporaryDirectory() as folder:  # the library reads files only
        path = Path(folder) / "panorama.exr"
        path.write_bytes(content)
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: channel.pixels.astype(np.float32) for name, channel in file.channels().items()}
    if not {"R", "G", "B"} <= set(channels):
        raise ValueError(f"channels {', '.join(channels)}, no R, G and B")
    return _without_overflow(np.stack([channels[name] for name in "RGB"], axis=-1))


def _without_overflow(light: np.ndarray) -> np.ndarray:
    """Pixels of a sun that overflowed (DWA), as bright as can be: two channels vanished, and the third is wild."""
    channels = np.sort(np.abs(light), axis=-1)
    light[(channels[..., 1] < VANISHED) & (channels[..., 2] > 100 * VANISHED)] = BRIGHTEST
    return light


def tone_mapped(light: np.ndarray) -> np.ndarray:
    """Linear light [H,W,3] to sRGB in [0,1]: the median at a middle grey, highlights compressed (Reinhard 2002)."""
    light = np.nan_to_num(light.astype(np.float32), nan=BRIGHTEST, posinf=BRIGHTEST).clip(
        0, BRIGHTEST
    )  # nan: the sun, overflown
    luminance = light @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
    exposed = luminance * (0.22 / max(float(np.median(luminance)), 1e-4))
    mapped = exposed * (1 + exposed / 9) / (1 + exposed)
    linear = light * (mapped / luminance.clip(1e-6))[..., None]
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clip(1e-8) ** (1 / 2.4) - 0.055).clip(0, 1)


def perspective(panorama: np.ndarray, turn: float, pitch: float, size: int) -> np.ndarray:
    """A view [size,size,3] of an equirectangular picture [H,W,3], `turn` and `pitch` in degrees, bilinear."""
    height, width = panorama.shape[:2]
    reach = np.tan(np.radians(VIEW_ANGLE) / 2)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    across, down = np.meshgrid(axis * reach, axis * reach)
    tilt = np.radians(pitch)
    up = np.sin(tilt) - down * np.cos(tilt)
    forward = np.cos(tilt) + down * np.sin(tilt)
    longitude = np.arctan2(across, forward) + np.radians(turn)
    latitude = np.arctan2(up, np.hypot(across, forward))
    column = (longitude / (2 * np.pi) % 1) * width - 0.5
    row = ((0.5 - latitude / np.pi) * height - 0.5).clip(0, height - 1)
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    part_x, part_y = (column - left)[..., None], (row - top)[..., None]
    pick = lambda y, x: panorama[np.minimum(y, height - 1), x % width]  # noqa: E731
    upper = pick(top, left) * (1 - part_x) + pick(top, left + 1) * part_x
    lower = pick(top + 1, left) * (1 - part_x) + pick(top + 1, left + 1) * part_x
    return upper * (1 - part_y) + lower * part_y
