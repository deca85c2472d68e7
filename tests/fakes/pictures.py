"""What a WebUI's `images` does: resizing, grids, files, and the API's base64."""

from __future__ import annotations

import base64
import io
import math
import os
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
        self.webui.callbacks.fire("image_grid", parameters)
        width, height = (max(image.size[axis] for image in imgs) for axis in (0, 1))
        grid = Image.new("RGB", (columns * width, rows * height), "#ffffff")
        for place, image in enumerate(parameters.imgs):
            grid.paste(image, (place % columns * width, place // columns * height))
        return grid

    def save_image(self, image: Image.Image, path: str, basename: str, seed: Any = None, *others: Any, **named: Any):
        """Save with the callbacks before and after; returns the path and no text file."""
        extension = others[1] if len(others) > 1 else named.get("extension", "png")
        info, p, suffix = named.get("info"), named.get("p"), named.get("suffix", "")
        os.makedirs(path, exist_ok=True)
        number = next_number(path, basename)
        stem = f"{basename}-{number:04}" if basename else f"{number:05}"
        decoration = f"-{seed}{suffix}" if not named.get("grid") else suffix
        target = os.path.join(path, f"{stem}{decoration}.{extension}")
        pnginfo = {"parameters": info} if info is not None else {}
        parameters = SimpleNamespace(image=image, p=p, filename=target, pnginfo=pnginfo)
        self.webui.callbacks.fire("before_image_saved", parameters)
        image = parameters.image
        write_file(image, parameters.filename, parameters.pnginfo, self.webui.opts.jpeg_quality)
        image.already_saved_as = parameters.filename
        self.saved.append(parameters.filename)
        self.webui.callbacks.fire("image_saved", parameters)
        return parameters.filename, None

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
    starts = [name.removeprefix(prefix).split(".")[0].split("-")[0] for name in os.listdir(path) if prefix in name]
    return max([int(start) for start in starts if start.isdigit()], default=-1) + 1


def write_file(image: Image.Image, target: str, pnginfo: dict[str, Any], quality: int) -> None:
    """A PNG with its texts; JPEG and WebP lose their alpha. Older files of that name are replaced."""
    stem, extension = os.path.splitext(target)
    kind = Image.registered_extensions()[extension]
    temporary = Path(stem + ".tmp")
    if extension == ".png":
        image.save(temporary, kind, pnginfo=text_chunks(pnginfo))
    else:
        image = image.convert("RGB") if extension.lower() in WITHOUT_ALPHA and image.mode == "RGBA" else image
        image.save(temporary, kind, quality=quality)
    os.replace(temporary, target)


def text_chunks(texts: dict[Any, Any]) -> PngImagePlugin.PngInfo:
    """PNG text of whatever is text."""
    chunks = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        if isinstance(key, str) and isinstance(text, str):
            chunks.add_text(key, text)
    return chunks
