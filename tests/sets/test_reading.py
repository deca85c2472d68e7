"""What is read: layered files of other programs, and files that are broken, hostile or of another kind."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import PIL
import pytest
from examples import HEIGHT, WIDTH, example, noise, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_layerdiffuse.core.errors import InputError, MissingExtraError
from lib_layerdiffuse.sets import archives, psd_reading
from lib_layerdiffuse.sets.formats import pack_set, save_set
from lib_layerdiffuse.sets.layer_set import Layer, LayerSet
from lib_layerdiffuse.sets.reading import frames_of, is_layered, read_set
from lib_layerdiffuse.sets.save_options import SaveOptions

WALL, BALL = Image.new("RGB", (WIDTH, HEIGHT), (0, 0, 200)), Image.new("RGBA", (8, 8), (200, 0, 0, 255))


def document(mode: str = "RGB", **made):
    """A Photoshop document of psd-tools with an opaque ground."""
    psd_tools = pytest.importorskip("psd_tools", "1.18", "older ones cannot make such files")
    found = psd_tools.PSDImage.new(mode, (WIDTH, HEIGHT), **made)
    add(found, WALL if mode == "RGB" else WALL.convert(mode), "wall")
    return found


def add(parent, picture: Image.Image, name: str, left: int = 0, top: int = 0):
    from psd_tools.api.layers import PixelLayer

    made = PixelLayer.frompil(picture, getattr(parent, "_psd", None) or parent, name, top, left)
    parent.append(made)
    return made


def saved(made) -> bytes:
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


def grouped(opacity: int = 255):
    """Two balls that overlap, in a group."""
    from psd_tools.api.layers import Group

    made = document()
    group = Group.new(made, "pair")
    add(group, BALL, "left", 2, 2)
    add(group, Image.new("RGBA", (8, 8), (0, 200, 0, 255)), "right", 6, 2)
    group.opacity = opacity
    return made, group


def test_groups_masks_and_hidden_layers_of_a_psd():
    made, group = grouped()
    ball = BALL.copy()
    ball.putpixel((3, 3), (9, 9, 9, 0))  # becomes a mask in this document
    add(made, ball, "masked", 20, 20).opacity = 128
    add(made, BALL, "hidden").visible = False
    read = read_set(saved(made), "a.psd")
    assert [(layer.name, layer.visible) for layer in read] == [
        ("wall", True), ("left", True), ("right", True), ("masked", True), ("hidden", False),
    ]  # fmt: skip
    assert read.layers[0].role == "background" and read.layers[3].picture.getpixel((3, 3))[3] == 0
    assert read.layers[3].opacity == 128 / 255 and read.composite().getpixel((24, 24)) == (100, 0, 100, 255)
    group.visible = False
    assert [layer.visible for layer in read_set(saved(made), "a.psd")][:3] == [True, False, False]


def test_a_group_of_half_opacity_is_one_layer():
    made, _ = grouped(128)
    read = read_set(saved(made), "a.psd")
    assert [layer.name for layer in read] == ["wall", "pair"]
    shown = np.asarray(made.composite(force=True).convert("RGB")).astype(int)
    assert np.abs(shown - np.asarray(read.composite())[..., :3]).max() <= 1


def test_a_psd_without_layers_is_its_picture():
    psd_tools = pytest.importorskip("psd_tools")
    read = read_set(saved(psd_tools.PSDImage.frompil(noise().convert("RGB"))), "a.psd")
    assert len(read) == 1 and same(read.composite(), noise().convert("RGB"))


def test_sixteen_bits_become_eight():
    made = document(depth=16)
    assert same(read_set(saved(made), "a.psd").composite(), WALL)


def with_tag(name: str):
    def change(made, ball):
        from psd_tools.constants import Tag

        ball.tagged_blocks.set_data(getattr(Tag, name))

    return change


def clipped(made, ball):
    ball.clipping = True


def multiplied(made, ball):
    from psd_tools.constants import BlendMode

    ball.blend_mode = BlendMode.MULTIPLY


def masked_group(made, ball):
    from psd_tools.api.layers import Group

    group = Group.group_layers(made, [ball], name="g") if not hasattr(Group, "new") else Group.new(made, "g")
    add(group, BALL, "inner")
    group._record.mask_data = ball._record.mask_data or mask_data()


def mask_data():
    from psd_tools.psd.layer_and_mask import MaskData

    return MaskData(top=0, left=0, bottom=4, right=4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (multiplied, "'ball' with blend mode multiply"),
        (clipped, "'ball' is clipped"),
        (with_tag("INVERT"), "'ball' without pixels \\(invert\\)"),
        (masked_group, "'g' is a group with a mask"),
    ],
)
def test_what_blends_otherwise_is_refused_where_it_shows(change, reason):
    made = document()
    ball = add(made, BALL, "ball")
    change(made, ball)
    with pytest.raises(InputError, match=f"a.psd: layer {reason}"):
        read_set(saved(made), "a.psd")
    made[-1].visible = False
    assert "ball" not in [layer.name for layer in read_set(saved(made), "a.psd").visible] or change is masked_group


@pytest.mark.parametrize(
    ("mode", "made", "reason"), [("CMYK", {}, "CMYK of 8 bits"), ("RGB", {"depth": 32}, "32 bits")]
)
def test_other_colours_are_refused_before_pixels_are_read(mode, made, reason):
    with pytest.raises(InputError, match=f"{reason}; convert it to RGB of 8 bits"):
        read_set(saved(document(mode, **made)), "a.psd")


def test_without_psd_tools_the_line_to_type_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psd_tools", None)
    with pytest.raises(MissingExtraError, match=rf'pip install psd-tools "Pillow=={PIL.__version__}"'):
        read_set(pack_set(example(), "psd").content, "a.psd")
    assert len(read_set(pack_set(example(), "ora").content, "a.ora")) == 4


def test_too_many_or_too_large_layers_are_refused(monkeypatch):
    pytest.importorskip("psd_tools")
    content = pack_set(example(), "psd").content
    monkeypatch.setattr(psd_reading, "MOST_LAYERS", 3)
    with pytest.raises(InputError, match="4 layers, more than 3"):
        read_set(content, "a.psd")
    monkeypatch.setattr(psd_reading, "MOST_LAYERS", 4)
    monkeypatch.setattr(psd_reading, "MOST_PIXELS", 100)
    with pytest.raises(InputError, match="pixels in all, more than 100"):
        read_set(content, "a.psd")


@pytest.mark.parametrize("kind", ["psd", "ora", "zip"])
def test_a_file_is_told_by_what_is_in_it(tmp_path, kind):
    if kind == "psd":
        pytest.importorskip("psd_tools")
    content = pack_set(example(), kind).content
    assert len(read_set(content)) == len(read_set(content, "upload.bin")) == 4
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    assert is_layered(path) and len(read_set(path)) == 4 and not is_layered(tmp_path / "a.png")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(["psd", "ora", "zip"]))
def test_damaged_files_give_a_set_or_a_reason(data, kind):
    if kind == "psd":
        pytest.importorskip("psd_tools")
    content = bytearray(pack_set(example(), kind).content)
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(4, min(600, len(content) - 1)))] = data.draw(st.integers(0, 255))
    try:
        read_set(bytes(content[: data.draw(st.integers(0, len(content)))]), f"a.{kind}")
    except InputError as error:
        assert str(error).startswith(f"got a.{kind}: ") and error.what_to_do


@pytest.mark.parametrize("kind", ["psd", "ora", "zip"])
@pytest.mark.parametrize("share", [0, 0.2, 0.6, 0.95])
def test_truncated_files_are_refused(kind, share):
    """All but a PSD that lacks nothing but the picture of its layers."""
    if kind == "psd":
        pytest.importorskip("psd_tools")
    content = pack_set(example(), kind).content
    with pytest.raises(InputError) if (kind, share) != ("psd", 0.95) else nullcontext():
        read_set(content[: int(share * len(content))], f"a.{kind}")


def zip_of(**changes) -> bytes:
    """A ZIP of ours with other values in its table; a member more for the key `extra`."""
    extra = changes.pop("extra", {})
    table = {"kind": "layerdiffuse layer set", "version": 1, "width": 4, "height": 4, "layers": [], **changes}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("layers.json", json.dumps(table))
        for name, content in extra.items():
            archive.writestr(name, content)
    return buffer.getvalue()


ROW = {"name": "a", "file": "a.png", "left": 0, "top": 0}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "other"}, "does not describe"),
        ({"version": 2}, "version 2"),
        ({"layers": 3}, "does not describe"),
        ({"layers": [{**ROW, "file": "/etc/passwd"}]}, "no '/etc/passwd' in the archive"),
        ({"layers": [{**ROW, "file": "../a.png"}]}, "no '../a.png' in the archive"),
        ({"layers": [ROW], "extra": {"a.png": b"no picture"}}, "a.png: cannot identify"),
        ({"layers": [3]}, "int"),
        ({"layers": [{**ROW, "left": "x"}], "extra": {"a.png": b""}}, "a.png"),
        ({"width": -4}, "1 to 8192"),
        ({"width": None}, "width"),
    ],
)
def test_a_table_that_cannot_be_says_why(changes, reason):
    with pytest.raises(InputError, match=reason):
        read_set(zip_of(**changes), "a.zip")


def test_a_folder_opens_no_file_outside_of_it(tmp_path):
    folder = save_set(example(), tmp_path, "set", "webp").path
    table = json.loads((folder / "layers.json").read_text("utf-8"))
    for outside in (str(Path(__file__)), "../x.png", "..", ""):
        table["layers"][0]["file"] = outside
        (folder / "layers.json").write_text(json.dumps(table), "utf-8")
        with pytest.raises(InputError, match="no file of this folder"):
            read_set(folder)


@pytest.mark.parametrize("name", ["a.ora", "a.zip"])
def test_an_archive_that_would_fill_the_memory_is_not_unpacked(monkeypatch, name):
    with pytest.raises(InputError, match=r"(layers.json|stack.xml) of [0-9]+ bytes, more than"):
        read_set(zip_of(extra={"stack.xml": b" " * (2**20 + 1)}, padding=" " * 2**24), name)
    monkeypatch.setattr(archives, "MOST_TOTAL", 1000)
    with pytest.raises(InputError, match="more than"):
        read_set(pack_set(example(), name[2:]).content, name)
    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    with pytest.raises(InputError, match="members"):
        read_set(pack_set(example(), name[2:]).content, name)


def test_an_archive_that_lies_about_a_size_is_found_out():
    content = bytearray(zip_of(layers=[ROW], extra={"a.png": b"x" * 5000}))
    place = content.rindex(b"a.png") - 46 + 24  # the size that the list of members tells
    content[place : place + 4] = (10).to_bytes(4, "little")
    with pytest.raises(InputError):
        read_set(bytes(content), "a.zip")


@pytest.mark.parametrize(
    ("source", "reason"),
    [("nowhere.psd", "no such file"), (".", "without layers.json"), (b"GIF89a", "kind .gif"), (b"", "kind .gif")],
)
def test_what_is_no_layered_file(source, reason):
    with pytest.raises(InputError, match=reason):
        read_set(source, "a.gif" if isinstance(source, bytes) else "")


def test_premultiplied_pictures_are_read_as_straight_ones(tmp_path):
    folder = save_set(example(), tmp_path, "set", "webp", SaveOptions(premultiplied=True)).path
    read = read_set(folder)
    assert np.abs(read.composited()[..., 3] - example().composited()[..., 3]).max() < 1e-6
    assert np.abs(np.asarray(read.composite()).astype(int) - np.asarray(example().composite())).max() <= 2


def test_frames_are_the_ground_and_all_that_lies_on_it():
    frames = frames_of(example())
    assert list(frames) == ["foreground", "background", "blended"] and same(
        frames["background"], noise().convert("RGB")
    )
    above = Image.alpha_composite(frames["background"], frames["foreground"])
    assert np.abs(np.asarray(above).astype(int) - np.asarray(frames["blended"])).max() <= 2
    painted = LayerSet(WIDTH, HEIGHT, example().layers, noise(seed=5))
    assert frames_of(painted)["blended"] is painted.blended
    alone = LayerSet(8, 8, [Layer("a", BALL, left=2), Layer("b", BALL, visible=False)])
    assert list(frames_of(alone)) == ["foreground"] and frames_of(alone)["foreground"].getpixel((0, 0))[3] == 0
    assert list(frames_of(LayerSet(8, 8, [Layer("a", BALL)]))) == ["background"]
