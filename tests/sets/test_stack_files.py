"""A stack's file and its saved folder: there and back, broken by every kind of hand."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import zipfile

import pytest
from PIL import Image

from lib_layerdiffuse.core.errors import InputError, LayerDiffuseError, OutputError
from lib_layerdiffuse.sets import stack_files
from lib_layerdiffuse.sets.stack import Stack
from lib_layerdiffuse.sets.stack_files import (
    DOCUMENT,
    load_stack,
    read_folder,
    read_project,
    write_folder,
    write_project,
)
from lib_layerdiffuse.sets.stack_store import StackStore

TOKEN, OTHER = "0123456789abcdef" * 2, "f" * 32


def small_stack() -> Stack:
    stack = Stack.of_size(20, 16)
    stack.set_background(Image.radial_gradient("L").resize((20, 16)), prompt="a meadow", seed=2**32 - 1)
    shared = Image.linear_gradient("L").resize((9, 7)).convert("RGBA")
    shared.putpixel((0, 0), (9, 8, 7, 0))  # a hidden colour
    key = stack.add_picture(shared, "苹果 🍎", role="foreground", prompt='a red apple\nof "gold"', weight=0.3).key
    stack.update(key, left=-3, top=5, scale=1.7, opacity=0.25, visible=False)
    stack.duplicate(key)
    return stack


def same(one, other) -> bool:
    rows = [[(*(getattr(layer, name) for name in stack_files.RULES), layer.picture.tobytes()) for layer in state.layers]
            for state in (one, other)]  # fmt: skip
    return (one.width, one.height) == (other.width, other.height) and rows[0] == rows[1]


def test_a_project_comes_back_as_it_was(tmp_path):
    stack = small_stack()
    path = write_project(stack.state, tmp_path / "project.zip")
    again = load_stack(path)
    assert same(again.state, stack.state)
    assert again.state.layers[1].picture is again.state.layers[2].picture, "shared pictures stay shared"
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == [DOCUMENT, "layers/001.png", "layers/002.png"]
        assert json.loads(archive.read(DOCUMENT))["layers"][1]["name"] == "苹果 🍎"
    assert not same(load_stack(write_project(Stack.of_size(8, 8).state, path)).state, stack.state)


def test_a_project_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    old = write_project(Stack.of_size(8, 8).state, tmp_path / "project.zip").read_bytes()

    def full(picture, level=6):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stack_files, "png_bytes", full)
    with pytest.raises(OutputError):
        write_project(small_stack().state, tmp_path / "project.zip")
    assert list(tmp_path.iterdir()) == [tmp_path / "project.zip"]
    assert (tmp_path / "project.zip").read_bytes() == old


def edited(tmp_path, edit=None, **files) -> str:
    """The small project after an edit of its text, or with other files in it."""
    source, target = tmp_path / "whole.zip", tmp_path / "edited.zip"
    write_project(small_stack().state, source)
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as made:
        for name in archive.namelist():
            data = archive.read(name)
            if name == DOCUMENT and edit is not None:
                document = json.loads(data)
                edit(document)
                data = json.dumps(document).encode()
            made.writestr(name, files.get(name.split("/")[-1].split(".")[0], data))
    return target


def put(name, value):
    return lambda document: document["layers"][1].__setitem__(name, value)


BROKEN = {
    "no layers": lambda document: document.pop("layers"),
    "another kind": lambda document: document.update(format="x"),
    "newer": lambda document: document.update(version=2),
    "huge canvas": lambda document: document.update(width=10**6),
    "no canvas": lambda document: document.update(height=0),
    "a flag as canvas": lambda document: document.update(height=True),
    "layers of another kind": lambda document: document.update(layers=[1, 2]),
    "too many layers": lambda document: document.update(layers=document["layers"][:1] * 300),
    "a path": put("file", "../../etc/passwd"),
    "a path that ends well": put("file", "/etc/secret.png"),
    "no file": put("file", None),
    "a name that is a number": put("name", 5),
    "a long name": put("name", "x" * 5000),
    "a zero in a name": put("name", "a\0b"),
    "opacity": put("opacity", "1"),
    "opacity out of range": put("opacity", 2),
    "scale": put("scale", 0),
    "huge scale": put("scale", 8.0),
    "left": put("left", 1.5),
    "far left": put("left", 2**50),
    "visible": put("visible", 1),
    "role": put("role", "king"),
    "seed": put("seed", "x"),
    "weight": put("weight", -1),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_in_the_text_is_told(tmp_path, kind):
    path = edited(tmp_path, BROKEN[kind])
    if kind == "huge scale":  # as large as a layer may be
        assert len(read_project(path).layers) == 3
        return
    with pytest.raises(InputError, match=r"edited.zip: "):
        read_project(path)


def test_numbers_that_json_should_not_have(tmp_path):
    for text in ("NaN", "Infinity", "1e999"):
        data = b'{"format": "layerdiffuse-stack", "version": 1, "width": 8, "height": %s, "layers": []}'
        with pytest.raises(InputError):
            read_project(edited(tmp_path, layers=data % text.encode()))
    for data in (b"[" * 100_000, b"\xff\xfe", b"", b"[]", b"null"):
        with pytest.raises(InputError):
            read_project(edited(tmp_path, layers=data))


def test_unknown_keys_are_passed_over_and_missing_ones_as_usual(tmp_path):
    def edit(document):
        document["later"] = [1]
        document["layers"][1] = {"file": document["layers"][1]["file"], "mask": {}}

    layer = read_project(edited(tmp_path, edit)).layers[1]
    assert (layer.name, layer.opacity, layer.visible, layer.seed) == ("Layer 2", 1.0, True, None)


def test_pictures_that_are_none(tmp_path):
    whole = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(whole, "PNG")
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(jpeg, "JPEG")
    for data in (b"", b"no picture", whole.getvalue()[:60], jpeg.getvalue()):
        with pytest.raises(InputError, match="no whole PNG"):
            read_project(edited(tmp_path, **{"002": data}))


def test_a_picture_of_a_million_columns_is_refused_before_it_is_unpacked(tmp_path):
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    with pytest.raises(InputError):
        read_project(edited(tmp_path, **{"002": bomb.getvalue()}))


def test_much_too_much_in_all_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(stack_files, "MOST_BYTES", 1300)
    with pytest.raises(InputError):
        read_project(edited(tmp_path))


def test_a_zip_bomb_is_read_to_its_limit_only(tmp_path, monkeypatch):
    monkeypatch.setattr(stack_files, "MOST_DOCUMENT", 1000)
    with pytest.raises(InputError, match="more than 1000 bytes"):
        read_project(edited(tmp_path, layers=b" " * 10_000))


def test_files_that_are_no_project(tmp_path):
    path = tmp_path / "some.zip"
    for data in (b"", b"PK\3\4 no", b"text" * 1000):
        path.write_bytes(data)
        with pytest.raises(InputError, match="no whole ZIP"):
            read_project(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"without 'layers.json'"):
        read_project(path)
    with pytest.raises(InputError, match="no file"):
        read_project(tmp_path / "missing.zip")
    with pytest.raises(InputError):
        read_project(tmp_path)


def test_a_project_cut_or_changed_anywhere_is_read_or_told(tmp_path):
    data = write_project(small_stack().state, tmp_path / "whole.zip").read_bytes()
    path, draw = tmp_path / "broken.zip", random.Random(1)
    for _ in range(150):
        cut = bytearray(data[: draw.randrange(len(data))] if draw.random() < 0.5 else data)
        for _ in range(draw.randrange(4)):
            if cut:
                cut[draw.randrange(len(cut))] = draw.randrange(256)
        path.write_bytes(cut)
        with contextlib.suppress(LayerDiffuseError):
            read_project(path)


def test_a_folder_is_written_anew_in_part_only(tmp_path):
    stack, folder = small_stack(), tmp_path / "a"
    write_folder(stack.state, folder)
    assert same(read_folder(folder), stack.state)
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    key = stack.state.layers[1].key
    stack.update(key, opacity=0.75)
    stack.replace_picture(stack.state.background.key, Image.new("RGB", (20, 16), "red"))
    write_folder(stack.state, folder)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    assert len(after) == 2 and len(set(times.items()) & set(after.items())) == 1
    assert same(read_folder(folder), stack.state)


def test_an_edited_copy_of_a_saved_picture_is_another_picture(tmp_path):
    stack = small_stack()
    write_folder(stack.state, tmp_path / "a")
    copy = stack.state.layers[1].picture.copy()
    copy.putpixel((3, 3), (1, 2, 3, 4))
    stack.replace_picture(stack.state.layers[1].key, copy)
    write_folder(stack.state, tmp_path / "a")
    assert read_folder(tmp_path / "a").layers[1].picture.getpixel((3, 3)) == (1, 2, 3, 4)


def test_a_store_brings_back_what_a_browser_had(tmp_path):
    store, stack = StackStore(tmp_path), small_stack()
    store.save(TOKEN, stack)
    assert store.of(TOKEN, Stack) is stack, "in memory, with undo"
    again = StackStore(tmp_path).of(TOKEN, lambda: pytest.fail("it is saved"))
    assert same(again.state, stack.state)
    assert StackStore(tmp_path).of(OTHER, lambda: Stack.of_size(9, 9)).state.width == 9
    store.forget(TOKEN)
    assert store.of(TOKEN, lambda: Stack.of_size(9, 9)).state.width == 9


@pytest.mark.parametrize("token", ["", "..", "a/../b", None, 5, "0" * 31, "G" * 32, "0" * 31 + "/"])
def test_a_store_takes_no_names_but_tokens(tmp_path, token):
    with pytest.raises(InputError):
        StackStore(tmp_path).of(token, lambda: Stack.of_size(8, 8))
    StackStore(tmp_path / "below").forget(token)
    assert tmp_path.exists()


def test_a_store_is_bounded_in_number_age_and_memory(tmp_path):
    store = StackStore(tmp_path, most=3, seconds=1000.0, in_memory=2)
    (tmp_path / "not a token").mkdir()
    tokens = [f"{number:032x}" for number in range(6)]
    for age, token in enumerate(tokens):
        store.save(token, small_stack())
        os.utime(tmp_path / token / DOCUMENT, (1e9 + age, 1e9 + age) if age < 2 else None)
    store.tidy()
    left = {path.name for path in tmp_path.iterdir()}
    assert "not a token" in left and tokens[5] in left and not {tokens[0], tokens[1]} & left
    assert len(left) <= 4 and len(store._stacks) == 2


def test_what_could_not_be_saved_stays_in_memory(tmp_path, monkeypatch):
    store, stack = StackStore(tmp_path, in_memory=1), small_stack()

    def full(*_):
        raise OutputError("a full disk", "room", "free some")

    with monkeypatch.context() as patch:
        patch.setattr("lib_layerdiffuse.sets.stack_store.write_folder", full)
        with pytest.raises(OutputError):
            store.save(TOKEN, stack)
    store.save(OTHER, small_stack())
    assert store.of(TOKEN, lambda: pytest.fail("lost")) is stack


def test_a_saved_stack_that_is_broken_is_as_if_there_were_none(tmp_path):
    StackStore(tmp_path).save(TOKEN, small_stack())
    (tmp_path / TOKEN / DOCUMENT).write_text("{")
    assert StackStore(tmp_path).of(TOKEN, lambda: Stack.of_size(9, 9)).state.width == 9
