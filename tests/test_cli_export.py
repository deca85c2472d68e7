"""The command `export`, `generate --format`, and the same by Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from commands import exit_code
from PIL import Image

from lib_layerdiffuse import api
from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.picture.alpha import TRIM_THRESHOLD
from lib_layerdiffuse.sets.formats import FORMATS
from lib_layerdiffuse.sets.layer_set import Layer, LayerSet
from lib_layerdiffuse.sets.save_options import KINDS, VISIBLE


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    return tiny.write_demo_folder(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def frames(tmp_path) -> Path:
    """A folder with the frames of a set, as `generate` names them."""
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (16, 16), (0, 0, 250)).save(folder / "a-cat-1-background.png")
    ball = Image.new("RGBA", (16, 16))
    ball.paste((200, 0, 0, 128), (4, 4, 9, 9))
    ball.save(folder / "a-cat-1-foreground.png")
    Image.new("RGB", (16, 16), (90, 0, 90)).save(folder / "a-cat-1-blended.png")
    return folder


def test_rows_and_thresholds_are_those_of_the_writers():
    assert list(FORMATS) == list(KINDS) and VISIBLE == TRIM_THRESHOLD


def test_a_folder_of_frames_becomes_one_file(frames, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(frames), "--format", "ora", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'a-cat-1.ora'}\n"
    made = api.read_layers(out / "a-cat-1.ora")
    assert [layer.name for layer in made] == ["Background", "Foreground"]
    assert made.blended.getpixel((0, 0)) == (90, 0, 90, 255)


def test_options_reach_the_file(frames, tmp_path, capsys):
    words = ["export", str(frames), "--out", str(tmp_path), "--name", "名前 !"]
    assert main([*words, "--format", "webp", "--trim", "--padding", "1", "--premultiplied", "--no-blended"]) == 0
    table = json.loads((tmp_path / "名前" / "layers.json").read_text("utf-8"))
    assert table["premultiplied"] and len(table["layers"]) == 2
    assert [table["layers"][1][side] for side in ("left", "top", "width", "height")] == [3, 3, 7, 7]
    assert main([*words, "--recomposite"]) == 0
    told = capsys.readouterr()
    assert told.err.startswith("note: the layers blend to the blended picture to ") and "名前.psd" in told.out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere.png"], "no file nowhere.png"),
        (["nowhere.psd"], "no file nowhere.psd"),
        (["IN", "--premultiplied"], "premultiplied colours in Photoshop"),
        (["IN", "--format", "gif"], "--format"),
        (["IN", "--threshold", "0"], "whole number from 1 to 255"),
        (["IN", "IN/a-cat-1-foreground.png", "--name", "x"], "--name for 2 sets"),
        ([], "required"),
    ],
)
def test_what_cannot_be_exported_is_one_line(frames, tmp_path, capsys, words, reason):
    words = [word.replace("IN", str(frames)) for word in words]
    code = exit_code(["export", *words, "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert code == 2 and told.count("error:") == 1 and reason in told and not (tmp_path / "out").exists()


def test_a_generated_set_leaves_as_a_file_too(demo, tmp_path, capsys):
    words = ["a red apple", "-n", "2", "--seed", "5", "--steps", "1", "--passes", "1", "--format", "ora"]
    assert main(["generate", "--demo", str(demo), "--out", str(tmp_path), *words]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"a-red-apple-{seed}.{kind}" for seed in (5, 6) for kind in ("ora", "png")] + ["contact-sheet.png"]
    assert "2 pictures, a-red-apple-5.ora, a-red-apple-6.ora and contact-sheet.png are in" in capsys.readouterr().out
    made = api.read_layers(tmp_path / "a-red-apple-6.ora")
    with Image.open(tmp_path / "a-red-apple-6.png") as picture:
        assert made.layers[0].picture.tobytes() == picture.tobytes()
    assert main(["generate", "--demo", str(demo), "--out", str(tmp_path), *words, "--premultiplied"]) == 2


def test_layers_by_python(tmp_path):
    made = LayerSet(8, 8, [Layer("a", Image.new("RGBA", (4, 4), "red"), left=2)])
    saved = api.save_layers(made, tmp_path, "x", "zip", trim=True)
    assert saved.path == tmp_path / "x.zip" and saved.notes == ()
    for source in (saved.path, str(saved.path), saved.path.read_bytes()):
        assert api.read_layers(source).layers[0].box == (2, 0, 6, 4)
    for wrong in (
        lambda: api.save_layers("x", tmp_path),
        lambda: api.save_layers(made, None),
        lambda: api.save_layers(made, tmp_path, 3),
        lambda: api.save_layers(made, tmp_path, kind="x"),
        lambda: api.save_layers(made, tmp_path, colour="red"),
        lambda: api.save_layers(made, tmp_path, trim="x"),
        lambda: api.read_layers(None),
        lambda: api.read_layers(""),
    ):
        with pytest.raises(InputError):
            wrong()
