"""Finished layers of a scene: used again as long as what is said of them and of all below them is the same."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from lib_layerdiffuse.core.errors import OutputError
from lib_layerdiffuse.sets.kept_scene import MARKS, KeptScene, marks_of
from lib_layerdiffuse.sets.scene import paint_scene, read_scene

LAYERS = ["a red apple", {"prompt": "a banana", "left": 4}, {"file": "logo.png"}]
HOW = {"model": "demo", "steps": 2}


@pytest.fixture
def logo(tmp_path):
    Image.new("RGBA", (8, 8), "red").save(tmp_path / "logo.png")
    return tmp_path / "logo.png"


def scene_of(folder, layers=LAYERS, **more):
    (folder / "scene.json").write_text(
        json.dumps({"size": 64, "seed": 7, "background": "a beach", "layers": layers} | more)
    )
    return read_scene(folder / "scene.json")


def painter(request):
    return Image.new("RGBA", (request.width, request.height), (request.seed % 256, 0, 0, 255))


def keep(folder, scene):
    kept = KeptScene(scene, folder / "kept", resume=True)
    marks = marks_of(scene, 64, HOW)
    return kept, paint_scene(scene, painter, 64, lambda stack: kept.keep(stack, marks))


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ({}, 4),
        ({"background": "a forest"}, 0),
        ({"size": 72}, 0),
        ({"seed": 8}, 0),
        ({"layers": ["a red pear", *LAYERS[1:]]}, 1),
        ({"layers": [LAYERS[0], {"prompt": "a banana", "left": 5}, LAYERS[2]]}, 2),
        ({"layers": LAYERS[:2]}, 3),
        ({"layers": [*LAYERS, "a ball"]}, 4),
    ],
    ids=str,
)
def test_layers_are_used_as_far_as_the_scene_says_the_same(tmp_path, logo, changed, left):
    kept, made = keep(tmp_path, scene_of(tmp_path))
    other = scene_of(tmp_path, **changed)
    done = KeptScene(other, kept.folder, resume=True).begin(marks_of(other, 64, HOW))
    assert [layer.name for layer in done] == [layer.name for layer in made.stack.state.layers][:left]
    asked = []
    again = paint_scene(other, lambda request: asked.append(request) or painter(request), 64, None, done)
    assert len(again.stack.state.layers) == 1 + len(other.layers)
    pictures = [[layer.picture.tobytes() for layer in one.stack.state.layers[:left]] for one in (made, again)]
    assert pictures[0] == pictures[1]


def test_another_model_settings_or_file_paint_anew(tmp_path, logo):
    kept, _ = keep(tmp_path, scene_of(tmp_path))
    assert kept.begin(marks_of(kept.scene, 64, HOW | {"steps": 3})) == []
    Image.new("RGBA", (8, 8), "blue").save(logo)
    assert len(kept.begin(marks_of(kept.scene, 64, HOW))) == 3


def test_what_was_cut_off_while_it_was_kept_counts_for_nothing(tmp_path, logo):
    kept, _ = keep(tmp_path, scene_of(tmp_path))
    marks = marks_of(kept.scene, 64, HOW)
    (kept.folder / MARKS).write_text("[]")
    assert kept.begin(marks) == []
    for broken in ("{", "5", '["x"]'):
        (kept.folder / MARKS).write_text(broken)
        assert kept.begin(marks) == []
    (kept.folder / MARKS).write_text(json.dumps(marks))
    next(kept.folder.glob("*.png")).unlink()
    assert kept.begin(marks) == []


def test_without_resume_nothing_is_used_and_in_the_end_nothing_is_left(tmp_path, logo):
    kept, _ = keep(tmp_path, scene_of(tmp_path))
    (kept.folder / "note.txt").write_text("mine")
    assert KeptScene(kept.scene, kept.folder).begin(marks_of(kept.scene, 64, HOW)) == []
    assert [path.name for path in kept.folder.iterdir()] == ["note.txt"]
    with pytest.raises(OutputError, match="something else"):
        kept.check()
