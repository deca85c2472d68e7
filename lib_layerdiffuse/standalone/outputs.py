"""Files of a run: a folder of pictures, and a contact sheet of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..core.picture.alpha import checkerboard_preview
from ..files.names import SLUG_SEEN
from ..files.whole_files import check_folder
from .picture_files import file_stem, write_into
from .pictures import Picture

SHEET_STEM = "contact-sheet"
FEW_RESULTS = 3  # of several frames, which stand one below the other
CELL_MAX, MARGIN, LABEL_HEIGHT = 512, 12, 34
PAPER, INK = (255, 255, 255), (40, 40, 40)


class PictureFolder:
    """A folder that pictures are written to, made with the first of them; never overwrites another file."""

    def __init__(self, folder: str | Path):
        self.folder = check_folder(folder)
        self.paths: list[Path] = []

    def save(self, picture: Picture) -> Path:
        """Write one picture as PNG, `parameters` in its text; returns the path."""
        stem = file_stem(picture.prompt, picture.seed, picture.frame)
        path = write_into(self.folder, stem, picture.image, picture.parameters)
        self.paths.append(path)
        return path

    def save_sheet(self, pictures: Sequence[Picture]) -> Path:
        """Write the contact sheet of all `pictures`; returns the path."""
        return write_into(self.folder, SHEET_STEM, contact_sheet(pictures))


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
        for line, text in enumerate((picture.prompt, picture.caption)):
            draw.text((left, top + height + 3 + 14 * line), shortened(text, width, font), INK, font=font)
    return sheet


def _fitted(picture: Picture) -> Image.Image:
    image = checkerboard_preview(picture.image) if picture.transparent else picture.image.convert("RGB")
    image.thumbnail((CELL_MAX, CELL_MAX))
    return image


def _columns(pictures: Sequence[Picture]) -> int:
    """The frames of one result a row, of two where there are many; else up to four pictures, or eight of many."""
    frames = len({picture.frame for picture in pictures})
    if frames > 1:
        return frames if len(pictures) <= FEW_RESULTS * frames else 2 * frames
    return min(len(pictures), 4 if len(pictures) <= 16 else 8)


def shortened(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """`text` in one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text[: SLUG_SEEN + width].split())
    text = text.encode("latin-1", "replace").decode("latin-1")  # Pillow's built-in bitmap font knows no more
    if font.getlength(text) <= width:
        return text
    fitting = bisect_right(range(1, len(text) + 1), width, key=lambda end: font.getlength(text[:end] + "..."))
    return text[:fitting] + "..."
