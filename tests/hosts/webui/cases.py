"""Parameters of the tests, and what they ask of a result again and again."""

from __future__ import annotations

import numpy as np
import pytest
from client import SIZE, Client, HttpError, Result, is_transparent
from PIL import Image

from lib_layerdiffuse.core.bases import NETWORKS
from lib_layerdiffuse.core.methods import METHODS, Method, find_method

OFFERED = tuple(method for method in METHODS if method.codec.kind == NETWORKS)  # by WebUIs
TRANSPARENT = tuple(method.id for method in OFFERED if method.transparent_frames)
WITH_IMAGES = tuple(method.id for method in OFFERED if method.images)


def for_bases(*bases: str) -> pytest.MarkDecorator:
    """Run a test with each of these bases."""
    return pytest.mark.parametrize("base", bases)


def for_methods(*names: str) -> pytest.MarkDecorator:
    """Run a test with each of these methods, on a checkpoint of its base; without names, with all."""
    methods = [find_method(name) for name in names] or OFFERED
    return pytest.mark.parametrize(("base", "method"), [pytest.param(m.base, m, id=m.id) for m in methods])


def check_layers(result: Result, method: Method, groups: int = 1, size: tuple[int, int] = (SIZE, SIZE)) -> None:
    """As many pictures as the method's frames make, with alpha where the frame has it, all of this size."""
    assert result.error == ""
    assert len(result.images) == groups * len(method.frames), result.modes
    for place, image in enumerate(result.images):
        assert image.size == size
        if method.is_transparent(place):
            assert is_transparent(image), f"picture {place}, the {method.frame_of(place)}, is {image.mode}"
        else:
            assert image.mode == "RGB", f"picture {place}, the {method.frame_of(place)}, is {image.mode}"


def check_refused(result: Result, *words: str) -> None:
    """No picture, and a message with what was got, what was expected, what to do, and these words."""
    assert result.images == []
    for word in ("got ", "expected ", "What to do: ", *words):
        assert word in result.error


def opaque_pictures(result: Result, method: Method) -> list[Image.Image]:
    """The pictures before their transparency was decoded, of a job that kept them."""
    frames = len(method.frames)
    count = len(result.images) * frames // (frames + method.transparent_frames)
    layers, kept = result.images[:count], iter(result.images[count:])
    found = [next(kept) if method.is_transparent(place) else layer for place, layer in enumerate(layers)]
    assert [image.mode for image in found] == ["RGB"] * count
    return found


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two pictures of one mode, in levels of 255."""
    assert one.mode == other.mode and one.size == other.size
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())


def skip_without(host, upscaler: str) -> None:
    """Skip what needs an upscaler that this WebUI does not have (Neo enlarges pixels only)."""
    if upscaler not in upscalers(host.client):
        pytest.skip(f"this WebUI has no upscaler {upscaler}")


def some_upscaler(client: Client) -> str:
    """For tests that are not about the upscaler: Latent, or what this WebUI has in its place."""
    return next(name for name in ("Latent", "Lanczos", "None") if name in upscalers(client))


def upscalers(client: Client) -> set[str]:
    """Names of all upscalers of a WebUI."""
    lists = [client.get(f"/sdapi/v1/{name}") for name in ("upscalers", "latent-upscale-modes")]
    return {entry["name"] for known in lists for entry in known}


def skip_without_infotexts(host) -> None:
    """Skip what needs an API that takes infotexts; that of Neo 2.26 fails on any, as list[str] has no instances."""
    plain = "a red apple\nSteps: 1, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 64x64"
    try:
        host.client.post("/sdapi/v1/txt2img", {"infotext": plain})
    except HttpError:
        pytest.skip("the API of this WebUI fails on a plain picture's infotext")
