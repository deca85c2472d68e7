"""What a WebUI's `images` does: resizing, grids, files, and the API's base64."""

from __future__ import annotations

import base64
import importlib
import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image, PngImagePlugin

LANCZOS = Image.Resampling.LANCZOS
WITHOUT_ALPHA = (".jpg", ".jpeg", ".webp")


class Images:
    """`modules.images` of one WebUI; `saved` are the paths in order."""

    def __init__(self, webui: Any):
        self.webui, self.saved = webui, []

    def flatten(self, image: Image.Image, background: str) -> Image.Image:
        """RGB on a colour."""
        if image.mode == "RGBA":
            ground = Image.new("RGBA", image.size, background)
            ground.paste(image, mask=image)
            image = ground
        return image.convert("RGB")

    def resize_image(
        self, resize_mode: int, im: Image.Image, width: int, height: int, upscaler_name: Any = None
    ) -> Image.Image:
        """0: as it is, 1: cropped, 2: with edges filled; modes 1 and 2 make RGB."""
        if resize_mode == 0:
            return im.resize((width, height), LANCZOS)
        wider = width / height > im.width / im.height
        full = (width, im.height * width // im.width)
        high = (im.width * height // im.height, height)
        resized = im.resize(full if wider == (resize_mode == 1) else high, LANCZOS)
        result = Image.new("RGB", (width, height))
        left, top = (width - resized.width) // 2, (height - resized.height) // 2
        if resize_mode == 2 and top > 0:
            for edge, place in ((0, 0), (resized.height - 1, top + resized.height)):
                strip = resized.crop((0, edge, resized.width, edge + 1)).resize((width, height - resized.height - top))
                result.paste(strip, (0, place))
        if resize_mode == 2 and left > 0:
            for edge, place in ((0, 0), (resized.width - 1, left + resized.width)):
                strip = resized.crop((edge, 0, edge + 1, resized.height)).resize((width - resized.width - left, height))
                result.paste(strip, (place, 0))
        result.paste(resized, (left, top))
        return result

    def image_grid(self, imgs: list[Image.Image], batch_size: int = 1, rows: int | None = None) -> Image.Image:
        """All pictures in one, without alpha."""
        rows = min(rows or round(math.sqrt(len(imgs))), len(imgs))
        columns = math.ceil(len(imgs) / rows)
        parameters = SimpleNamespace(imgs=imgs, cols=columns, rows=rows)
        host("script_callbacks").image_grid_callback(parameters)
        width, height = (max(image.size[axis] for image in imgs) for axis in (0, 1))
        grid = Image.new("RGB", (columns * width, rows * height), "#ffffff")
        for place, image in enumerate(parameters.imgs):
            grid.paste(image, (place % columns * width, place // columns * height))
        return grid

    def save_image(self, image: Image.Image, path: str, basename: str, seed: Any = None, *others: Any, **named: Any):
        """Save with the callbacks before and after; returns the paths of the picture and of its text."""
        extension = others[1] if len(others) > 1 else named.get("extension", "png")
        Path(path).mkdir(parents=True, exist_ok=True)
        stem = named.get("forced_filename") or numbered(path, basename, seed, named)
        pnginfo, info = named.get("existing_info") or {}, named.get("info")
        if info is not None:
            pnginfo[named.get("pnginfo_section_name", "parameters")] = info
        target = str(Path(path, f"{stem}.{extension}"))
        parameters = SimpleNamespace(image=image, p=named.get("p"), filename=target, pnginfo=pnginfo)
        host("script_callbacks").before_image_saved_callback(parameters)
        self._write(parameters, info)
        parameters.image.already_saved_as = parameters.filename
        self.saved.append(parameters.filename)
        host("script_callbacks").image_saved_callback(parameters)
        text = Path(parameters.filename).with_suffix(".txt")
        return parameters.filename, str(text) if text.exists() else None

    def _write(self, parameters: Any, info: str | None) -> None:
        """The file, and by the settings a JPEG of a large picture and a text beside it."""
        opts, image = self.webui.opts, parameters.image
        extension = Path(parameters.filename).suffix
        stem = parameters.filename.removesuffix(extension)
        files = [(image, extension)]
        if opts.export_for_4chan and max(image.size) > opts.target_side_length:
            share = opts.target_side_length / max(image.size)
            files.append((image.resize(tuple(round(side * share) for side in image.size), LANCZOS), ".jpg"))
        for picture, kind in files:
            temporary = f"{stem}.tmp"
            host("images").save_image_with_geninfo(picture, info, temporary, kind, existing_pnginfo=parameters.pnginfo)
            Path(temporary).replace(stem + kind)
        if opts.save_txt and info is not None:
            Path(f"{stem}.txt").write_text(info, encoding="utf-8")

    def encode_pil_to_base64(self, image: Any) -> str:
        """What the API sends; texts pass as they are."""
        if isinstance(image, str):
            return image
        kind = self.webui.opts.samples_format.lower()
        buffer = io.BytesIO()
        if kind == "png":
            image.save(buffer, "PNG", pnginfo=text_chunks(image.info))
        else:
            image.convert("RGB").save(buffer, {"jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}[kind])
        return base64.b64encode(buffer.getvalue()).decode("ascii")


def next_number(path: str, basename: str) -> int:
    """One more than the highest number of the files in this folder."""
    prefix = f"{basename}-" if basename else ""
    names = [file.name for file in Path(path).iterdir()]
    starts = [name.removeprefix(prefix).split(".")[0].split("-")[0] for name in names if prefix in name]
    return max([int(start) for start in starts if start.isdigit()], default=-1) + 1


def host(name: str) -> Any:
    """A module of the WebUI, whose functions extensions may have wrapped."""
    return importlib.import_module(f"modules.{name}")


def numbered(path: str, basename: str, seed: Any, named: dict[str, Any]) -> str:
    """A name with the next number and the seed; a grid's has none where names of grids are short."""
    number, suffix = next_number(path, basename), named.get("suffix", "")
    stem = f"{basename}-{number:04}" if basename else f"{number:05}"
    return stem + (suffix if named.get("short_filename") else f"-{seed}{suffix}")


def write_file(
    opts: Any, image: Image.Image, geninfo: str | None, filename: str, extension: str | None = None,
    existing_pnginfo: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """A PNG with its texts; JPEG and WebP lose their alpha."""
    extension = extension or Path(filename).suffix
    kind = Image.registered_extensions()[extension]
    if extension == ".png":
        image.save(filename, kind, pnginfo=text_chunks(existing_pnginfo or {}) if opts.enable_pnginfo else None)
    else:
        image = image.convert("RGB") if extension.lower() in WITHOUT_ALPHA and image.mode == "RGBA" else image
        image.save(filename, kind, quality=opts.jpeg_quality)


def text_chunks(texts: dict[Any, Any]) -> PngImagePlugin.PngInfo:
    """PNG text of whatever is text."""
    chunks = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        if isinstance(key, str) and isinstance(text, str):
            chunks.add_text(key, text)
    return chunks
