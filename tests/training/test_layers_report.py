"""`layers-report` on tiny random models: what it paints, writes, says, and refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from PIL import Image

from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.errors import InputError, WeightsError
from lib_layerdiffuse.core.methods import METHODS, find_method, methods_for
from lib_layerdiffuse.standalone.settings import GenerateSettings
from lib_layerdiffuse.training.layer_sets.compose import is_held_out_pair
from lib_layerdiffuse.training.layers import layers_report
from lib_layerdiffuse.training.layers.layers_report import SetPainter, SetPrompt, read_prompts, report_on
from lib_layerdiffuse.training.pictures.vocabulary import RECIPE, Vocabulary

PROMPT = SetPrompt("a red apple on a beach", "a red apple", "a beach")


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    return tiny.write_demo_folder(tmp_path_factory.mktemp("demo"))


def report(demo: Path, out: Path, *arguments: str) -> int:
    steps = "--steps 2 --count 2".split()
    return main(["layers-report", "--demo", str(demo), "--out", str(out), *steps, *arguments])


def test_figures_table_and_grids_are_written(demo, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a red apple on a beach\n\nbanana on a meadow\nsoap bubbles\n")
    assert report(demo, tmp_path / "out", "--prompts", str(tmp_path / "prompts.txt")) == 0
    shown = capsys.readouterr().out
    names = [method.id for method in methods_for("demo") if len(method.frames) > 1]
    written = {"figures.json", "table.md", *(f"{name}.png" for name in names)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == written
    assert (tmp_path / "out/table.md").read_text() == shown
    found = json.loads((tmp_path / "out/figures.json").read_text())
    assert (found["prompts"], found["seed"], found["base"], list(found["methods"])) == (2, 1, "demo", names)
    for name in names:
        assert found["methods"][name]["sets"] == 2 and name in shown
        figures = found["methods"][name]["composite_psnr"]
        assert figures["method"]["sets"] == figures["plain"]["sets"] == 2
        with Image.open(tmp_path / f"out/{name}.png") as grid:
            assert grid.width == 2 * (4 * 64 + 10) + 10
    assert found["methods"]["demo_joint"]["foregrounds"]["plain"] == {"neither": 0.0, "empty": 0.0, "everything": 1.0}
    assert "foregrounds" not in found["methods"]["demo_fg2bg"]


def test_the_same_seed_gives_the_same_figures_and_one_method_can_be_asked_for(demo, tmp_path, capsys):
    (tmp_path / "prompts.json").write_text(json.dumps([vars(PROMPT)]))
    options = ["--prompts", str(tmp_path / "prompts.json"), "--methods", "demo_bg2fg", "--grid", "1"]
    tables = []
    for out in ("one", "two"):
        assert report(demo, tmp_path / out, *options) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1] and "demo_joint" not in tables[0]


@dataclass
class Brush:
    """A host that paints flat pictures, and remembers what it was asked for; the seed decides the colour."""

    base: str = "demo"
    asked: list[GenerateSettings] = field(default_factory=list)

    def run(self, settings: GenerateSettings) -> list:
        """A picture for each frame of the method, or for each of the count."""
        self.asked.append(settings)
        method = find_method(settings.method) if settings.transparent else None
        frames = len(method.frames) * settings.count if method else settings.count
        colours = [((settings.seed + row) % 256, 0, 0, 255) for row in range(frames)]
        modes = ["RGBA" if method and method.is_transparent(row) else "RGB" for row in range(frames)]
        return [
            SimpleNamespace(image=Image.new("RGBA", (4, 4), colour).convert(mode))
            for colour, mode in zip(colours, modes, strict=True)
        ]


def test_what_a_method_needs_is_painted_once_and_the_plain_pictures_have_the_same_seeds():
    brush = Brush()
    painter = SetPainter(brush, GenerateSettings("-", seed=10, passes=1))
    methods = [find_method(name) for name in ("demo_joint", "demo_fg2bg", "demo_bg2fg")]
    reports = report_on(painter, methods, [PROMPT], keep=1)
    asked = [(one.prompt[0], one.method if one.transparent else "plain", one.count, one.seed) for one in brush.asked]
    assert asked == [
        ("a red apple on a beach", "demo_joint", 1, 10),
        ("a red apple on a beach", "plain", 3, 10),
        ("a red apple", "demo_fg", 1, 10),
        ("a red apple on a beach", "demo_fg2bg", 1, 10),
        ("a beach", "plain", 1, 10),
        ("a red apple on a beach", "demo_bg2fg", 1, 10),
    ]
    assert brush.asked[3].foreground.mode == "RGBA" and brush.asked[5].background.mode == "RGB"
    joint = reports[0].figures()["composite_psnr"]
    # an opaque foreground of seed 10 over anything, against the blended picture of seed 12
    assert joint["method"]["median"] == pytest.approx(-10 * np.log10((2 / 255) ** 2 / 3), abs=1e-3)
    assert joint["plain"] == joint["method"]
    assert reports[2].figures()["background_kept_psnr"]["method"]["sets"] == 0


def test_sets_do_not_share_seeds():
    brush = Brush()
    painter = SetPainter(brush, GenerateSettings("-", seed=10, passes=1))
    report_on(painter, [find_method("demo_joint")], [PROMPT, PROMPT], keep=0)
    seeds = [set(range(one.seed, one.seed + 3)) for one in brush.asked]
    assert seeds[0] == seeds[1] and not seeds[0] & seeds[2] and painter.settings.seed == 10


@pytest.mark.parametrize(
    "method", [row for row in METHODS if row.images or len(row.frames) > 1], ids=lambda row: row.id
)
def test_every_layer_method_of_every_base_can_be_reported_on(method):
    painter = SetPainter(Brush(method.base), GenerateSettings("-", seed=1, passes=1))
    (found,) = report_on(painter, [method], [PROMPT], keep=1)
    assert found.figures()["sets"] == 1 and set(found.kept[0].layers) == {*method.frames, *method.images}


def test_the_prompts_are_pairs_that_were_held_out(tmp_path):
    (tmp_path / "vocabulary.json").write_bytes(RECIPE.read_bytes())
    prompts = layers_report.held_out_prompts(tmp_path, 64)
    assert len(prompts) == len(set(prompts)) == 64
    assert prompts == layers_report.held_out_prompts(tmp_path, 64) and prompts[:8] == layers_report.held_out_prompts(
        tmp_path, 8
    )
    concepts = {concept.caption for concept in Vocabulary.load(RECIPE).concepts}
    scenes = {row["captions"][0]: row["scene"] for row in json.loads(RECIPE.read_text())["scenes"]}
    for prompt in prompts:
        thing = prompt.foreground.split(" ", 1)[1] if prompt.foreground.split(" ")[0] in "an" else prompt.foreground
        assert thing in concepts and is_held_out_pair(thing, scenes[prompt.background])
        assert prompt.prompt.startswith(prompt.foreground)


@pytest.mark.parametrize(
    "content",
    ["", "\n\n", "[", "[3]", '[{"foreground": "x"}]', '[{"prompt": ""}]', '[{"prompt": "x", "y": ""}]', "\xff"],
)
def test_files_that_hold_no_prompts_are_named(tmp_path, content):
    path = tmp_path / "prompts"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"prompts.*a prompt a line"):
        read_prompts(path)


def test_a_model_without_layer_methods_is_told(demo, tmp_path, capsys):
    for path in demo.iterdir():
        if not path.name.startswith("layer_demo_") or "transparent" in path.name:
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "prompts.txt").write_text("a banana")
    assert report(tmp_path, tmp_path / "out", "--prompts", str(tmp_path / "prompts.txt")) == WeightsError.exit_code
    assert "layer_demo_joint.safetensors" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_words_without_scenes_are_told(demo, tmp_path):
    (tmp_path / "vocabulary.json").write_text('["red apple"]')
    with pytest.raises(InputError, match="--prompts"):
        layers_report.held_out_prompts(tmp_path, 4)


def test_the_recipes_scenes_are_the_painted_ones():
    from lib_layerdiffuse.training.layer_sets.scenes import SCENES

    listed = json.loads(RECIPE.read_text(encoding="utf-8"))["scenes"]
    wanted = [{"scene": one.name, "captions": list(one.captions), "phrases": list(one.phrases)} for one in SCENES]
    assert listed == wanted
