"""The WebUI's API as tests use it: small jobs, their pictures and what the reply says about them."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from lib_layerdiffuse.core.methods import Method
from lib_layerdiffuse.form.arguments import ARGUMENTS

TITLE = "LayerDiffuse"
ERROR_KEY = "layerdiffusion_error"
PATIENCE = 900  # seconds for one job; full-size models on a CPU are slow
SIZE = 64
PLAIN = {
    "prompt": "a red apple",
    "negative_prompt": "blurry",
    "seed": 7,
    "steps": 2,
    "width": SIZE,
    "height": SIZE,
    "cfg_scale": 5,
    "sampler_name": "Euler",
    "batch_size": 1,
}

# Forge fails where its own last field is left out
HIRES = {"enable_hr": True, "denoising_strength": 0.6, "hr_additional_modules": ["Use same choices"]}


class HttpError(Exception):
    """An answer other than 200."""


@dataclass
class Result:
    """The pictures of a job, and what its `info` says."""

    images: list[Image.Image]
    info: dict[str, Any] = field(repr=False)

    @property
    def infotexts(self) -> list[str]:
        """The generation parameters of each picture."""
        return self.info.get("infotexts") or []

    @property
    def error(self) -> str:
        """What LayerDiffuse complained about; empty when it did not."""
        told = self.info.get("extra_generation_params") or {}
        return str(told.get(ERROR_KEY, "")) or next((text for text in self.infotexts if ERROR_KEY in text), "")

    @property
    def modes(self) -> list[str]:
        """The picture modes, in order."""
        return [image.mode for image in self.images]

    @property
    def pixels(self) -> list[np.ndarray]:
        """The pictures as arrays."""
        return [np.asarray(image) for image in self.images]


class Client:
    """The API of one WebUI."""

    def __init__(self, url: str):
        self.url = url
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        """The JSON of an address."""
        return self._open(urllib.request.Request(self.url + path))

    def post(self, path: str, payload: dict[str, Any]) -> Any:
        """The JSON that an address answers to this one; HttpError with the answer's text for any fault."""
        head = {"Content-Type": "application/json"}
        return self._open(urllib.request.Request(self.url + path, json.dumps(payload).encode(), head))

    def _open(self, request: urllib.request.Request) -> Any:
        try:
            with self.opener.open(request, timeout=PATIENCE) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            raise HttpError(f"HTTP {error.code} from {request.full_url}: {text[:2000]}") from error

    def txt2img(self, **choices: Any) -> Result:
        """A small job from text; `choices` are fields of the API."""
        return result_of(self.post("/sdapi/v1/txt2img", PLAIN | choices))

    def img2img(self, *images: Image.Image, **choices: Any) -> Result:
        """A small job from pictures."""
        chosen = {"denoising_strength": 0.6, "init_images": [as_base64(image) for image in images]}
        return result_of(self.post("/sdapi/v1/img2img", PLAIN | chosen | choices))


def result_of(answer: dict[str, Any]) -> Result:
    """The decoded answer of a job."""
    images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in answer["images"] or []]
    for image in images:
        image.load()
    return Result(images, json.loads(answer["info"] or "{}"))


def as_base64(image: Image.Image) -> str:
    """Base64 of a PNG, without a data-URL head."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def arguments(method: Method | str, **choices: Any) -> list[Any]:
    """The script's positional arguments: ticked, this method with the pictures it needs, quick decoding."""
    chosen: dict[str, Any] = {"enabled": True, "passes": 1}
    if isinstance(method, Method):
        chosen |= {"method": method.label, **given_images(method)}
    else:
        chosen["method"] = method
    values = chosen | choices
    return [values.get(argument.name, argument.default) for argument in ARGUMENTS]


def script(values: list[Any]) -> dict[str, Any]:
    """The API's field that hands arguments to the script."""
    return {"alwayson_scripts": {TITLE: {"args": values}}}


def layered(method: Method | str, **choices: Any) -> dict[str, Any]:
    """The API's field that switches a method on."""
    return script(arguments(method, **choices))


def given_images(method: Method) -> dict[str, str]:
    """Made-up pictures for all that a method needs, by argument name."""
    return {f"{ARGUMENT_OF.get(frame, frame)}_image": as_base64(picture(frame)) for frame in method.images}


ARGUMENT_OF = {"foreground": "fg", "background": "bg", "blended": "blend"}
COLOURS = {"foreground": (220, 40, 30), "background": (30, 120, 220), "blended": (90, 160, 60)}


def picture(frame: str = "foreground", size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """A picture that differs from place to place; the foreground is a disc with soft edges on nothing."""
    width, height = size
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    shade = (0.75 + 0.25 * np.sin(5 * across + 3 * down))[..., None]
    colour = (np.array(COLOURS[frame]) * shade).astype(np.uint8)
    if frame != "foreground":
        return Image.fromarray(colour, "RGB")
    alpha = (255 * np.clip(4 * (0.7 - np.hypot(across, down)), 0, 1)).astype(np.uint8)
    return Image.fromarray(np.dstack([colour, alpha]), "RGBA")


def same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures are bit-identical, alpha included."""
    return one.mode == other.mode and np.array_equal(np.asarray(one), np.asarray(other))


def is_transparent(image: Image.Image) -> bool:
    """Whether a picture has an alpha channel in which something happens, more than a text hidden in its last bits."""
    return image.mode == "RGBA" and int(np.ptp(np.asarray(image)[..., 3])) > 8
