"""Scene files: what they say, what is wrong with them, and the stack that they make."""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image

from lib_layerdiffuse.core.errors import InputError, MissingExtraError
from lib_layerdiffuse.sets.scene import check_files, paint_scene, read_scene
from lib_layerdiffuse.sets.stack import Stopped

WHOLE = {
    "size": "48x40",
    "seed": 7,
    "background": "a beach",
    "layers": [
        "a red apple",
        {"prompt": "a banana", "seed": 3, "weight": 0.5, "left": 5, "top": -2, "scale": 0.5, "opacity": 0.25},
        {"prompt": "a pear", "name": "Pear", "visible": False},
    ],
}


class Painter:
    def __init__(self, most: int = 100):
        self.requests, self.most = [], most

    def __call__(self, request):
        if len(self.requests) == self.most:
            raise Stopped
        self.requests.append(request)
        return Image.new("RGBA", (request.width, request.height), (request.seed % 256, 0, 0, 255))


def write(folder, values, name="scene.json"):
    path = folder / name
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def test_a_scene_of_a_file_is_painted_layer_by_layer(tmp_path):
    painter = Painter()
    made = paint_scene(read_scene(write(tmp_path, WHOLE | {"size": "64x80"})), painter, 512)
    told = [(request.prompt, request.seed, request.weight, request.role) for request in painter.requests]
    assert told == [
        ("a beach", 7, 1.0, "background"),
        ("a red apple", 8, 1.0, "foreground"),
        ("a banana", 3, 0.5, "foreground"),
        ("a pear", 10, 1.0, "foreground"),
    ]
    state = made.stack.state
    assert (state.width, state.height) == (64, 80) and not made.stopped
    banana, pear = state.layers[2:]
    assert (banana.left, banana.top, banana.scale, banana.opacity) == (5, -2, 0.5, 0.25)
    assert pear.name == "Pear" and not pear.visible
    assert painter.requests[3].background.getpixel((10, 10)) == state.composite(3).getpixel((10, 10))


def test_yaml_says_the_same(tmp_path):
    yaml = pytest.importorskip("yaml")
    values = WHOLE | {"size": "64x80"}
    path = write(tmp_path, yaml.safe_dump(values, allow_unicode=True), "scene.yaml")
    assert read_scene(path) == read_scene(write(tmp_path, values)) == read_scene(values)


def test_yaml_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match="pip install PyYAML"):
        read_scene(write(tmp_path, "background: a beach", "scene.yaml"))
    assert read_scene(write(tmp_path, {"background": "a beach"})).background.prompt == "a beach"


def test_files_lie_beside_the_scene_and_give_the_size(tmp_path):
    Image.new("RGB", (100, 70), "blue").save(tmp_path / "sky.png")
    Image.new("RGBA", (10, 10), "red").save(tmp_path / "logo.png")
    scene = read_scene(
        write(tmp_path, {"background": {"file": "sky.png"}, "layers": [{"file": "logo.png", "left": 1}]})
    )
    check_files(scene)
    state = paint_scene(scene, Painter(), 512).stack.state
    assert (state.width, state.height) == (100, 70)
    assert [layer.name for layer in state.layers] == ["sky", "logo"] and state.layers[1].left == 1
    with pytest.raises(InputError, match=r"missing\.png"):
        check_files(read_scene({"layers": [{"file": str(tmp_path / "missing.png")}]}))


def test_what_was_painted_stays_when_somebody_stops(tmp_path):
    made = paint_scene(read_scene(WHOLE | {"size": 64}), Painter(2), 512)
    assert made.stopped and [layer.name for layer in made.stack.state.layers] == ["a beach", "a red apple"]


def test_a_model_s_own_size_and_drawn_seeds():
    made = paint_scene(read_scene({"layers": ["a cat"]}), Painter(), 72)
    assert made.stack.state.width == 72 and made.stack.state.layers[0].seed >= 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"backgroud": "a beach"}, "did you mean background"),
        ({"layers": [{"promt": "a cat"}]}, "'promt' in layer 1.*did you mean prompt"),
        ({"layers": [{"prompt": "a cat", "zzz": 1}]}, "one of prompt, file"),
        ({"background": {"prompt": "x", "weight": 1}}, "'weight' in the background"),
        ({}, "without background and layers"),
        ({"layers": []}, "without background and layers"),
        ({"layers": "a cat"}, "no list"),
        ({"layers": [5]}, "layer 1 that is int"),
        ({"layers": [{}]}, "neither prompt nor file"),
        ({"layers": [{"prompt": "a", "file": "b"}]}, "both prompt and file"),
        ({"layers": [" "]}, "prompt ' ' of layer 1"),
        ({"layers": [{"prompt": 5}]}, "prompt 5"),
        ({"layers": [{"prompt": "a", "opacity": 2}]}, "opacity 2 of layer 1.*0 to 1"),
        ({"layers": [{"prompt": "a", "scale": "big"}]}, "scale 'big'"),
        ({"layers": [{"prompt": "a", "left": 1.5}]}, "left 1.5"),
        ({"layers": [{"prompt": "a", "visible": "no"}]}, "visible 'no'"),
        ({"layers": ["a"], "seed": "x"}, "seed 'x'"),
        ({"layers": ["a"], "size": "huge"}, "width 0"),
        ({"layers": ["a"], "size": "512x5x512"}, "width 0"),
        ({"layers": ["a"], "width": 100000}, "width 100000"),
        ({"layers": ["a"] * 300}, "at most 256"),
        ([1], "the scene that is list"),
        ("text", "the scene that is str"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told(tmp_path, values, said):
    with pytest.raises(InputError, match=said):
        read_scene(write(tmp_path, json.dumps(values)))


def test_files_that_are_no_scene(tmp_path):
    for name, text in (("a.json", "{"), ("b.json", "[" * 100_000), ("c.json", "")):
        with pytest.raises(InputError, match=name):
            read_scene(write(tmp_path, text, name))
    (tmp_path / "d.json").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "d.json", tmp_path / "missing.json", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_scene(path)
    with pytest.raises(InputError, match="at most"):
        read_scene(write(tmp_path, " " * (2**20 + 1)))
    pytest.importorskip("yaml")
    for text in ("a: [", "!!python/object/apply:os.system ['true']", "a: &x [*x]"):
        with pytest.raises(InputError):
            read_scene(write(tmp_path, text, "e.yaml"))
