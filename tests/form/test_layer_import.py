"""A layered file into the accordion's pictures: which of them it fills, and what it says otherwise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PIL import Image

from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.form.accordion import LayerAccordion
from lib_layerdiffuse.form.layer_import import IMAGES, take_file
from lib_layerdiffuse.form.surroundings import Surroundings
from lib_layerdiffuse.sets.formats import save_set
from lib_layerdiffuse.sets.layer_set import Layer, LayerSet

WALL, BALL = Image.new("RGB", (16, 12), (0, 0, 200)), Image.new("RGBA", (4, 4), (200, 0, 0, 255))


@pytest.fixture
def accordion():
    place = Surroundings(base=lambda: "sdxl")
    return LayerAccordion(SimpleNamespace(update=lambda **changes: changes), place)


@pytest.fixture
def files(tmp_path):
    """Files with a background and something on it, and with the latter alone."""
    ball = Layer("ball", BALL, left=2)
    whole = LayerSet(16, 12, [Layer("wall", WALL), ball])
    saved = {"whole": whole, "ball": LayerSet(16, 12, [ball])}
    return {name: save_set(made, tmp_path, name, "ora").path for name, made in saved.items()}


@pytest.mark.parametrize(
    ("method", "filled"),
    [
        ("xl_fg2blend", ["fg_image"]),
        ("xl_bg2blend", ["bg_image"]),
        ("xl_fgblend2bg", ["fg_image", "blend_image"]),
        ("xl_fg_attn", []),
    ],
)
def test_what_the_method_needs_is_filled(accordion, files, method, filled):
    *pictures, told = take_file(accordion, SimpleNamespace(name=str(files["whole"])), method)
    found = {name: update["value"] for name, update in zip(IMAGES, pictures, strict=True) if update}
    assert list(found) == filled and told == {"value": "", "visible": False}
    assert all(picture.size == (16, 12) and picture.mode == "RGBA" for picture in found.values())
    if "fg_image" in found:
        assert found["fg_image"].getpixel((0, 0))[3] == 0 and found["fg_image"].getpixel((3, 1)) == (200, 0, 0, 255)


def test_what_a_file_lacks_is_told(accordion, files):
    *pictures, told = take_file(accordion, str(files["ball"]), "xl_bg2blend")
    assert pictures == [{}, {}, {}] and told == {"value": "No background in this file", "visible": True}


def test_a_file_that_cannot_be_read_changes_nothing_and_is_told(accordion, tmp_path):
    (tmp_path / "a<b>.ora").write_bytes(b"PK no zip")
    *pictures, told = take_file(accordion, str(tmp_path / "a<b>.ora"), find_method("xl_fg2blend").id)
    assert pictures == [{}, {}, {}] and "a&lt;b&gt;.ora: not readable as OpenRaster" in told["value"]
    *pictures, told = take_file(accordion, None, None)
    assert pictures == [{}, {}, {}] and not told["visible"]
