"""Names, formats and folders of saved layers, apart from any WebUI."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from fakes.running import picture
from PIL import Image

from lib_layerdiffuse.webui.page.options import Options

USER_COMMENT, EXIF_FOLDER = 0x9286, 0x8769


@pytest.fixture(autouse=True)
def webui(make_webui):
    """The modules of a running WebUI."""
    return make_webui("a1111", "sd15")


@pytest.fixture
def files(webui):
    """The module, which is imported with a WebUI running."""
    from lib_layerdiffuse.webui.saving import files as module

    return module


def saving(image: Image.Image, path: str, text: str | None = None) -> SimpleNamespace:
    """What a WebUI tells before and after it saves."""
    return SimpleNamespace(
        image=image, filename=str(path), pnginfo={} if text is None else {"parameters": text}, p=None
    )


@pytest.mark.parametrize(
    ("several", "given", "wanted"),
    [
        (False, "a/00000-1.png", "a/00000-1.png"),
        (True, "a/00000-1.png", "a/00000-1-foreground.png"),
        (False, "a/00000-1.jpg", "a/00000-1.png"),
        (False, "a/00000-1.WEBP", "a/00000-1.png"),
        (True, "a/b.c/d.e.jpeg", "a/b.c/d.e-foreground.png"),
    ],
)
def test_names(files, tmp_path, several, given, wanted) -> None:
    told = saving(files.mark(picture(), "foreground", several), tmp_path / given)
    files.before_saving(told, Options())
    assert told.filename == str(tmp_path / wanted)


def test_an_opaque_layer_keeps_its_format(files, tmp_path) -> None:
    told = saving(files.mark(picture(alpha=False), "background", True), tmp_path / "00000-1.jpg")
    files.before_saving(told, Options(subfolder="layers"))
    assert told.filename == str(tmp_path / "layers" / "00000-1-background.jpg")
    assert (tmp_path / "layers").is_dir()


def test_foreign_pictures_are_left_alone(files, tmp_path) -> None:
    for text in (None, "a cat\nSteps: 20"):
        told = saving(picture(), tmp_path / "00000-1.jpg", text)
        files.before_saving(told, Options(subfolder="layers", file_format="webp"))
        assert told.filename == str(tmp_path / "00000-1.jpg")
    assert not list(tmp_path.glob("layers"))


def test_issue_144_a_picture_from_the_gallery_is_known_by_its_infotext(files, tmp_path) -> None:
    """The gallery's Save button reads the picture again, without our mark."""
    told = saving(picture(), tmp_path / "saved.jpg", "a cat\nlayerdiffusion_method: (SD1.5) Only Generate ...")
    files.before_saving(told, Options(subfolder="layers"))
    assert told.filename == str(tmp_path / "saved.png")


def test_a_folder_that_cannot_be_made(files, tmp_path) -> None:
    (tmp_path / "layers").write_text("a file")
    told = saving(files.mark(picture(), "foreground", False), tmp_path / "00000-1.png")
    files.before_saving(told, Options(subfolder="layers"))
    assert told.filename.startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("size", "has_webp", "wanted"),
    [((64, 64), True, ".webp"), ((16384, 1), True, ".png"), ((1, 16384), True, ".png"), ((64, 64), False, ".png")],
)
def test_png_where_webp_cannot_be(files, tmp_path, monkeypatch, size, has_webp, wanted) -> None:
    monkeypatch.setattr(files.features, "check", lambda _name: has_webp)
    told = saving(files.mark(Image.new("RGBA", size), "", False), tmp_path / "00000-1.jpg")
    files.before_saving(told, Options(file_format="webp"))
    assert told.filename == str(tmp_path / f"00000-1{wanted}")


def test_t_libdragon_797_webp_has_the_very_pixels_hidden_colours_too(files, tmp_path) -> None:
    image = files.mark(picture(), "foreground", False)
    path = tmp_path / "00000-1.webp"
    files.write_webp(image, str(path), "ä, \u4e2d")
    with Image.open(path) as saved:
        assert saved.mode == "RGBA" and np.array_equal(np.asarray(saved), np.asarray(image))
        text = saved.getexif().get_ifd(EXIF_FOLDER)[USER_COMMENT]
        field = saved.info["exif"].index(USER_COMMENT.to_bytes(2, "big"))
    assert text[:8] == b"UNICODE\0" and text[8:].decode("utf-16-be") == "ä, \u4e2d"
    assert saved.info["exif"][field + 2 : field + 4] == b"\0\x07"  # UNDEFINED: as numbers, WebUIs could not read it


def test_no_infotext_where_the_webui_writes_none(files, webui, tmp_path) -> None:
    with webui.settings(enable_pnginfo=False):
        files.write_webp(picture(), str(tmp_path / "a.webp"), "secret")
    files.write_webp(picture(), str(tmp_path / "b.webp"), None)
    for path in tmp_path.glob("*.webp"):
        with Image.open(path) as saved:
            assert not dict(saved.getexif())


def test_a_text_of_any_characters(files) -> None:
    for text in ("", "\U0001f34e", "half of a pair: \ud83c"):
        exif = Image.Exif()
        exif.load(files.user_comment(text))
        written = exif.get_ifd(EXIF_FOLDER)[USER_COMMENT]
        assert written[8:].decode("utf-16-be", "surrogatepass") == text


@pytest.mark.parametrize("colour", ["#00ff00", "no colour"])
def test_a_format_without_alpha_shows_what_viewers_show(files, webui, colour) -> None:
    image = picture()
    with webui.settings(img2img_background_color=colour):
        flat = files.without_alpha(image)
    ground = Image.new("RGBA", image.size, colour if colour[0] == "#" else "white")
    ground.alpha_composite(image)
    assert np.array_equal(np.asarray(flat), np.asarray(ground.convert("RGB")))


def test_base64_of_a_png_with_texts(files) -> None:
    image = picture()
    image.info = {"parameters": "a cat\nSteps: 1", "dpi": (72, 72), 3: "three"}
    with Image.open(io.BytesIO(base64.b64decode(files.as_png_text(image)))) as read:
        assert read.mode == "RGBA" and read.info["parameters"] == "a cat\nSteps: 1"
        assert np.array_equal(np.asarray(read), np.asarray(image))


def test_only_layers_lie_on_a_checkerboard(files) -> None:
    ours, theirs = files.mark(picture(), "foreground", False), picture(seed=4)
    told = SimpleNamespace(imgs=[ours, theirs, picture(alpha=False)])
    files.on_checkerboard(told)
    assert [image.mode for image in told.imgs] == ["RGB", "RGBA", "RGB"] and told.imgs[1] is theirs
    assert ours.mode == "RGBA"
