"""What the files of a source show: frames, drawings, icon sets, panoramas."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from lib_layerdiffuse.core.errors import MissingExtraError
from lib_layerdiffuse.training.pictures import formats
from lib_layerdiffuse.training.pictures.data import prepare
from lib_layerdiffuse.training.pictures.formats import Wanted, file_stem, perspective, pictures_of, tone_mapped
from lib_layerdiffuse.training.pictures.recipe import Source

from .toys import SIDE, disc

SPACE = "http://www.w3.org/2000/svg"
DRAWING = '<svg xmlns="' + SPACE + '" viewBox="0 0 10 {height}"><rect width="5" height="{height}" {paint}/></svg>'
HALF_RED = DRAWING.format(height=10, paint='fill="red" fill-opacity=".5"')


def animation(frames: list[Image.Image]) -> bytes:
    """An animated WebP file."""
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=50)
    return buffer.getvalue()


def loaded(name: str, content: bytes, **wanted) -> dict[str, Image.Image]:
    """All pictures of a file."""
    return {name: load() for name, load in pictures_of(name, content, Wanted(SIDE, **wanted))}


def test_frames_are_spread_over_an_animation_and_a_leaving_thing_is_left_out(tmp_path):
    frames = [disc(5 * number) for number in range(9)]  # of one size
    frames[4] = Image.new("RGBA", frames[0].size)
    frames[4].paste(frames[0].crop((0, 0, 12, 12)), (0, 0))  # nearly out of the picture
    found = loaded("1f34e.webp", animation(frames), frames=9)
    assert list(found) == [f"1f34e~{number:03d}.webp" for number in range(9) if number != 4]
    assert np.array_equal(np.asarray(found["1f34e~008.webp"])[16, 16], np.asarray(frames[8])[16, 16])
    assert list(loaded("a.webp", animation(frames), frames=3)) == ["a~000.webp", "a~003.webp", "a~006.webp"]
    assert list(loaded("a.webp", animation(frames))) == ["a.webp"]


@pytest.mark.parametrize("name", ["x/1f34e~003.webp", "1f34e.png", "1f34e~021.exr", "b/1f34e.exr.js"])
def test_a_frame_has_the_stem_of_its_file(name):
    assert file_stem(name) == "1f34e"


def test_drawings_keep_their_shape_and_soft_alpha():
    pytest.importorskip("resvg_py")
    image = loaded("half.svg", HALF_RED.encode())["half.svg"]
    assert image.size == (SIDE, SIDE) and image.getpixel((4, 16))[3] in (127, 128) and image.getpixel((28, 16))[3] == 0
    tall = loaded("tall.svg", DRAWING.format(height=40, paint='fill="red"').encode())["tall.svg"]
    assert tall.height == SIDE and tall.width == SIDE // 4


def test_one_bad_drawing_of_an_icon_set_is_skipped(tmp_path):
    pytest.importorskip("resvg_py")
    body = '<rect width="8" height="16" fill="red"/>'
    icons = {"red-box": {"body": body}, "broken": {"body": "<rect"}, "secret": {"body": body, "hidden": True}}
    (tmp_path / "icons.json").write_text(json.dumps({"icons": icons, "width": 16, "height": 16}))
    captions = {"red-box": "red box", "broken": "broken box", "secret": "secret"}
    data = prepare([Source(tmp_path, captions=captions, style="flat drawing of")], SIDE)
    assert data.captions == ["flat drawing of a red box"]
    assert len(data.skipped) == 1 and data.skipped[0].startswith("broken.svg")


def test_without_the_extra_its_pip_line_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "resvg_py", None)
    with pytest.raises(MissingExtraError, match=r"pip install"):
        loaded("half.svg", HALF_RED.encode())


def test_a_view_looks_where_it_is_turned():
    panorama = np.zeros((64, 128, 3), dtype=np.float32)
    panorama[:, 64:] = (1, 0, 0)  # behind to the left
    panorama[:20] = (0, 0, 1)  # above
    ahead, back = perspective(panorama, 90, 0, 32), perspective(panorama, 270, 0, 32)
    assert ahead[20, 16].tolist() == [0, 0, 0] and back[20, 16].tolist() == [1, 0, 0]
    assert perspective(panorama, 90, 60, 32)[16, 16].tolist() == [0, 0, 1]


def test_tone_mapping_bears_any_light():
    light = np.full((8, 16, 3), 0.01, dtype=np.float16)
    light[0, 0], light[0, 1] = np.inf, np.nan
    mapped = tone_mapped(light)
    assert np.isfinite(mapped).all() and mapped.min() >= 0 and mapped.max() <= 1
    assert (mapped[0, :2] > 0.99).all() and 0.35 < mapped[4, 4, 0] < 0.65


def test_a_sun_that_overflowed_is_white(tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR")
    pixels = np.full((32, 64, 3), 0.5, dtype=np.float32)
    pixels[8:16, 16:24] = (0, 0, -900)
    pixels[0, 0] = -1e-5  # rounding, no sun
    pixels[0, 1] = (0.3, -2, 0.4)  # ringing beside a lamp
    OpenEXR.File({}, {"RGB": OpenEXR.Channel(pixels)}).write(str(tmp_path / "sun.exr"))
    mapped = tone_mapped(formats.read_exr((tmp_path / "sun.exr").read_bytes()))
    assert (
        (mapped[8:16, 16:24] > 0.99).all()
        and mapped[4, 4].max() < 0.7
        and mapped[0, 0].max() < 0.1
        and mapped[0, 1].min() == 0
    )


def test_panoramas_give_views(tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR")
    path = tmp_path / "forest.exr"
    pixels = np.random.default_rng(0).random((32, 64, 3), dtype=np.float32)
    OpenEXR.File({}, {"RGB": OpenEXR.Channel(pixels)}).write(str(path))
    found = loaded("forest.exr", path.read_bytes(), views=5)
    assert list(found) == [f"forest~{number:03d}.exr" for number in range(5)]
    module = b"export default 'data:application/exr;base64," + base64.b64encode(path.read_bytes()) + b"'"
    named = loaded("forest.exr.js", module, views=5)
    assert [image.tobytes() for image in named.values()] == [image.tobytes() for image in found.values()]
    with pytest.raises(ValueError, match="no data URL"):
        loaded("forest.exr.js", b"export default 7")
