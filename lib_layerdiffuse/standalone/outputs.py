"""Files of a run: PNGs with their settings as text, a contact sheet; written whole or not at all."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import ExifTags, Image, ImageDraw, ImageFont, PngImagePlugin

from ..core.errors import InputError
from ..core.picture.alpha import checkerboard_preview
from ..files.whole_files import check_folder, unwritable, write_new, write_whole
from .pictures import Picture

SHEET_STEM = "contact-sheet"
SLUG_LENGTH, SLUG_BYTES = 60, 120
SLUG_SEEN = 1000  # characters that are looked at: a prompt may be a book
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
        path = self._write(file_stem(picture), lambda partial: save_png(picture.image, partial, picture.parameters))
        self.paths.append(path)
        return path

    def save_sheet(self, pictures: Sequence[Picture]) -> Path:
        """Write the contact sheet of all `pictures`; returns the path."""
        sheet = contact_sheet(pictures)
        return self._write(SHEET_STEM, lambda partial: save_png(sheet, partial))

    def _write(self, stem: str, write: Callable[[Path], object]) -> Path:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        return write_new(self.folder, stem, ".png", write)


def file_stem(picture: Picture) -> str:
    """`a-red-apple-1` or `a-red-apple-1-foreground`: prompt, seed and frame, safe on every file system."""
    parts = [slug(picture.prompt), str(picture.seed), picture.frame]
    return "-".join(part for part in parts if part)


def slug(text: str) -> str:
    """Lower-case words of any script, joined by hyphens, at most 60 characters and 120 bytes; "picture" for none."""
    # marks are parts of letters in many scripts, and no letters to regular expressions
    plain = unicodedata.normalize("NFC", text[:SLUG_SEEN].lower())
    kept = "".join(letter if unicodedata.category(letter)[0] in "LNM" else " " for letter in plain)
    words = "-".join(kept.split())[:SLUG_LENGTH].encode()[:SLUG_BYTES].decode(errors="ignore")
    return words.strip("-") or "picture"


def save_picture(picture: Picture, path: Path) -> Path:
    """Write a picture as PNG or lossless WebP with its settings; into a folder under a name of its own."""
    if path.is_dir() or not path.suffix:
        return PictureFolder(path).save(picture)
    save = SAVERS.get(path.suffix.lower())
    if save is None:
        raise InputError(f"the file name {path.name}", f"one that ends in {' or '.join(SAVERS)}", "rename it")
    check_folder(path.parent, "path")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda partial: save(picture.image, partial, picture.parameters))
    return path


def save_png(image: Image.Image, path: Path, parameters: str = "") -> None:
    """Write a PNG with the text chunk that WebUIs read settings from."""
    info = PngImagePlugin.PngInfo()
    if parameters:
        info.add_text("parameters", parameters)
    image.save(path, format="PNG", pnginfo=info)


def save_webp(image: Image.Image, path: Path, parameters: str = "") -> None:
    """Write a lossless WebP, colours under alpha 0 too, with the EXIF comment that WebUIs read settings from."""
    exif = Image.Exif()
    if parameters:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + parameters.encode("utf-16-be")
    image.save(path, format="WEBP", lossless=True, exact=True, exif=exif)


SAVERS = {".png": save_png, ".webp": save_webp}


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
    """The frames of one result a row, of two where there are many; else up to four pictures, or eight of many."""
    frames = len({picture.frame for picture in pictures})
    if frames > 1:
        return frames if len(pictures) <= FEW_RESULTS * frames else 2 * frames
    return min(len(pictures), 4 if len(pictures) <= 16 else 8)


def _details(picture: Picture) -> str:
    return f"seed {picture.seed}" + (f", {picture.frame}" if picture.frame else "")


def shortened(text: str, width: int, font: ImageFont.ImageFont) -> str:
    """`text` in one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text[: SLUG_SEEN + width].split())
    text = text.encode("latin-1", "replace").decode("latin-1")  # Pillow's built-in bitmap font knows no more
    if font.getlength(text) <= width:
        return text
    fitting = bisect_right(range(1, len(text) + 1), width, key=lambda end: font.getlength(text[:end] + "..."))
    return text[:fitting] + "..."
