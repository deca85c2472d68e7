"""Files of a run: PNGs with their settings as text, a contact sheet; written whole or not at all."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from ..core.alpha import checkerboard_preview
from ..core.errors import OutputError
from ..pictures import Picture

SHEET_NAME = "contact-sheet.png"
SLUG_LENGTH = 60
CELL_MAX, MARGIN, LABEL_HEIGHT = 512, 12, 34
PAPER, INK = (255, 255, 255), (40, 40, 40)


class PictureFolder:
    """A folder that pictures are written to; never overwrites another picture."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.paths: list[Path] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def save(self, picture: Picture) -> Path:
        """Write one picture as PNG, `parameters` in its text; returns the path."""
        path = free_path(self.folder, file_stem(picture))
        save_png(picture.image, path, picture.parameters)
        self.paths.append(path)
        return path

    def save_sheet(self, pictures: Sequence[Picture]) -> Path:
        """Write the contact sheet of all `pictures`, in place of an older one."""
        path = self.folder / SHEET_NAME
        save_png(contact_sheet(pictures), path)
        return path


def file_stem(picture: Picture) -> str:
    """`a-red-apple-1` or `a-red-apple-1-foreground`: prompt, seed and frame, safe on every file system."""
    parts = [slug(picture.prompt), str(picture.seed), picture.frame]
    return "-".join(part for part in parts if part)


def slug(text: str) -> str:
    """Lower-case words joined by hyphens, at most 60 characters; "picture" when nothing is left of `text`."""
    plain = unicodedata.normalize("NFKD", text).lower()
    words = re.sub(r"[^\w]+|_", "-", plain, flags=re.UNICODE).strip("-")
    return words[:SLUG_LENGTH].strip("-") or "picture"


def free_path(folder: Path, stem: str) -> Path:
    """`stem.png`, or `stem_2.png` and so on when that is taken."""
    path, number = folder / f"{stem}.png", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}_{number}.png"
    return path


def save_png(image: Image.Image, path: Path, parameters: str = "") -> None:
    """Write a PNG with the text chunk that WebUIs read settings from."""
    info = PngImagePlugin.PngInfo()
    if parameters:
        info.add_text("parameters", parameters)
    write_whole(path, lambda partial: image.save(partial, format="PNG", pnginfo=info))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, then name it; OutputError, and nothing left behind, when that fails."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:  # also on Ctrl-C
        partial.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> OutputError:
    """The OutputError for a path that could not be written."""
    reason = error.strerror or str(error)
    return OutputError(
        f"{reason} while writing {path}", "room and permission to write there", "free space or choose another --out"
    )


def contact_sheet(pictures: Sequence[Picture]) -> Image.Image:
    """All pictures on a checkerboard (opaque ones as they are), in rows, each with its prompt and seed below."""
    cells = [_fitted(picture) for picture in pictures]
    width, height = (max(cell.size[axis] for cell in cells) for axis in (0, 1))
    columns = _columns(pictures)
    rows = -(-len(cells) // columns)
    step_x, step_y = width + MARGIN, height + LABEL_HEIGHT + MARGIN
    sheet = Image.new("RGB", (columns * step_x + MARGIN, rows * step_y + MARGIN), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, (picture, cell) in enumerate(zip(pictures, cells, strict=True)):
        left = MARGIN + number % columns * step_x
        top = MARGIN + number // columns * step_y
        sheet.paste(cell, (left, top))
        for line, text in enumerate((picture.prompt, _details(picture))):
            draw.text((left, top + height + 3 + 14 * line), shortened(text, width, font), INK, font=font)
    return sheet


def _fitted(picture: Picture) -> Image.Image:
    image = checkerboard_preview(picture.image) if picture.transparent else picture.image.convert("RGB")
    image.thumbnail((CELL_MAX, CELL_MAX))
    return image


def _columns(pictures: Sequence[Picture]) -> int:
    """Frames of a result stay in one row; else rows of up to four, or eight when there are many."""
    frames = len({picture.frame for picture in pictures})
    return frames if frames > 1 else min(len(pictures), 4 if len(pictures) <= 16 else 8)


def _details(picture: Picture) -> str:
    return f"seed {picture.seed}" + (f", {picture.frame}" if picture.frame else "")


def shortened(text: str, width: int, font: ImageFont.ImageFont) -> str:
    """`text`, cut with an ellipsis where it is wider than `width` pixels."""
    text = text.encode("latin-1", "replace").decode("latin-1")  # Pillow's built-in bitmap font knows no more
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
