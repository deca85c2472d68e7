"""The Forge family's infotext in pixels: it would make layers opaque."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from fakes.pictures import text_chunks
from fakes.running import picture
from fakes.webui import make_module
from PIL import Image

from lib_layerdiffuse.webui.saving import files, stealth


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


def test_layers_without_alpha_stay_without(writer) -> None:
    assert written(writer, files.mark(picture(alpha=False), "background", several=True)).mode == "RGB"


def test_other_pictures_are_written_into(writer) -> None:
    assert written(writer, picture()).getextrema()[3] == (255, 255)
    assert written(writer, picture(alpha=False), "an apple\nlayerdiffusion_method: x").mode == "RGBA"


# --- the gallery's buttons


@pytest.fixture
def send(a1111, monkeypatch):
    """What an extension makes of that, which was loaded after ours: it drops alpha."""

    def send_image_and_dimensions(sent):
        image = read(sent)
        return image.convert("RGB"), image.width, image.height

    def read(sent):
        return sent if isinstance(sent, Image.Image) else Image.open(sent)

    module = make_module(
        "modules.infotext_utils", image_from_url_text=read, send_image_and_dimensions=send_image_and_dimensions
    )
    monkeypatch.setitem(sys.modules, "modules.infotext_utils", module)
    images = sys.modules["modules.images"]
    monkeypatch.setattr(images, "read_info_from_image", lambda image: (image.info.get("parameters"), {}), raising=False)
    a1111.reload_ui()
    yield lambda sent: module.send_image_and_dimensions(sent)
    stealth.remove()
    assert module.send_image_and_dimensions is send_image_and_dimensions


@pytest.mark.parametrize(
    ("text", "wanted"), [("an apple\nlayerdiffusion_method: x", "RGBA"), ("an apple", "RGB"), (None, "RGB")]
)
@pytest.mark.parametrize("as_file", [True, False])
def test_layers_are_sent_with_alpha(send, tmp_path, text, wanted, as_file) -> None:
    image = picture()
    if text:
        image.info["parameters"] = text
    image.save(tmp_path / "layer.png", pnginfo=text_chunks(image.info))
    sent, width, height = send(str(tmp_path / "layer.png") if as_file else image)
    assert sent.mode == wanted and (width, height) == (64, 64)


def test_opaque_pictures_are_sent_as_ever(send) -> None:
    assert send(picture(alpha=False))[0].mode == "RGB"
