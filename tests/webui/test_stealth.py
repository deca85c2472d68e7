"""The Forge family's infotext in pixels: it would make layers opaque."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from fakes.running import picture
from fakes.webui import make_module
from PIL import Image

from lib_layerdiffuse.webui import files, stealth


@pytest.fixture
def writer(a1111, monkeypatch):
    """A WebUI's module that writes it, after the page was loaded again."""

    def add_stealth_pnginfo(parameters) -> None:
        parameters.image.putalpha(255)

    module = make_module("modules.stealth_infotext", add_stealth_pnginfo=add_stealth_pnginfo)
    monkeypatch.setitem(sys.modules, "modules.stealth_infotext", module)
    a1111.reload_ui().reload_ui()
    yield module
    stealth.remove()
    assert module.add_stealth_pnginfo is add_stealth_pnginfo


def written(writer, image: Image.Image, text: str | None = None) -> Image.Image:
    """The image after it was written into."""
    writer.add_stealth_pnginfo(SimpleNamespace(image=image, pnginfo=text and {"parameters": text}))
    return image


def test_layers_keep_their_alpha(writer) -> None:
    assert written(writer, files.mark(picture(), "", several=False)).getextrema()[3] == (0, 255)
    assert written(writer, picture(), "an apple\nlayerdiffusion_method: x").getextrema()[3] == (0, 255)


def test_other_pictures_are_written_into(writer) -> None:
    assert written(writer, picture()).getextrema()[3] == (255, 255)
    assert written(writer, files.mark(picture(alpha=False), "background", several=True)).mode == "RGBA"
