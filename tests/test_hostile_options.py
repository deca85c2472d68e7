"""Every option of every command with hostile values: one line that says what was wrong, or the work begins.

Nothing heavy is done: where a model would be loaded or trained, the command has passed.
LAYERDIFFUSE_FUZZ_SEED chooses other pairs of values.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from commands import exit_code
from PIL import Image
from training.toys import toy_set, toy_vae

from lib_layerdiffuse import api
from lib_layerdiffuse.cli import main as main_module
from lib_layerdiffuse.cli.main import COMMANDS, build_parser
from lib_layerdiffuse.core.errors import LayerDiffuseError
from lib_layerdiffuse.standalone import loading
from lib_layerdiffuse.training.cli import commands as training_commands
from lib_layerdiffuse.training.cli import control_commands, layer_commands, nearest
from lib_layerdiffuse.training.layers import layers_report
from lib_layerdiffuse.training.pictures import captions
from lib_layerdiffuse.training.pictures.sources import Limits, iterate_files

SEED = int(os.environ.get("LAYERDIFFUSE_FUZZ_SEED", "1"))
CODES = {0, 2, 3, 4, 5, 6}
HOSTILE = (
    "", " ", "nan", "inf", "-inf", "-1", "0", "1", "0.5", "1e400", "1e-400", "9" * 30, "9" * 5000, "1_000", "0x10",
    "١٢", "True", "None", "[]", "{}", "a\0b", "a\nb", "a\udcffb", "%s%d", "$HOME", "'; DROP TABLE", "../../etc/passwd",
    "~", "x" * 300, "y/" * 3000, "🐱" * 80, "\u202etxt.exe", "/", ".", "/dev/null", "/proc/self", "nowhere",
    "folder", "text.png", "cut.png", "fine.png", "empty.safetensors", "pointer.safetensors", "page.safetensors", "pipe",
    "locked", "set.safetensors", "vae", "demo", "http://127.0.0.1:9/x.png", "16384x16384", "64x", "auto", "cuda:99",
    "meta",
)  # fmt: skip
NEEDED = {
    "generate": ["a cat"], "words": [], "methods": [], "page": [], "export": ["fine.png"],
    "scene": ["scene.json"], "diagnose": ["a cat"], "cut": ["fine.png", "fine.png", "--out", "out"],
    "fingerprint": ["set.safetensors", "--out", "out"],
    "transplant": ["set.safetensors", "set.safetensors", "--layer-file", "set.safetensors", "--out", "out"],
    "train prepare": [".", "--out", "out"], "train pack": ["set.safetensors", "--out", "out.zip"],
    "train nearest": ["set.safetensors", "."],
    "train statistics": ["set.safetensors"],
    "train vae": ["set.safetensors", "--out", "out"],
    "train whiten": ["set.safetensors", "--vae", "vae", "--out", "out"],
    "train codec": ["set.safetensors", "--vae", "vae", "--out", "out"],
    "train latents": ["set.safetensors", "--vae", "vae", "--out", "out"],
    "train text2image": ["latents", "--vae", "vae", "--out", "out"],
    "train diffusion": ["latents", "--model", "demo", "--out", "out"], "train export": ["demo", "--out", "out"],
    "train controlnet": ["set.safetensors", "--model", "demo", "--out", "out"],
    "train compose": ["set.safetensors", "--out", "out"], "train read-layers": [".", "--out", "out"],
    "train layer-latents": ["layers.safetensors", "--vae", "vae", "--codec", "vae", "--out", "out"],
    "train layers": ["layers.safetensors", "--model", "demo", "--out", "out"],
    "layers-report": ["--out", "out"],
    "harmlessness": ["set.safetensors", "--vae", "vae", "--codec", "vae"],
}  # fmt: skip


class Reached(LayerDiffuseError):
    """The command has passed every check and would begin its work."""

    exit_code = 0

    def __init__(self, *_arguments, **_options):
        super().__init__("a command that may begin", "that", "begin")


def reached(*_arguments, **_options):
    raise Reached


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with what the values above name."""
    place = tmp_path_factory.mktemp("hostile")
    tiny.write_demo_folder(place / "demo")
    toy_set(4).save(place / "set.safetensors")
    toy_vae().save_pretrained(place / "vae")
    (place / "folder").mkdir()
    Image.new("RGBA", (8, 8)).save(place / "fine.png")
    (place / "cut.png").write_bytes((place / "fine.png").read_bytes()[:40])
    (place / "text.png").write_text("no picture")
    (place / "empty.safetensors").write_bytes(b"")
    (place / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    (place / "page.safetensors").write_text("<!DOCTYPE html>")
    (place / "locked").touch(mode=0)
    if hasattr(os, "mkfifo"):
        os.mkfifo(place / "pipe")
    return place


@pytest.fixture(autouse=True)
def nothing_heavy(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(main_module, "build_parser", cached_parser)
    monkeypatch.setattr(main_module, "prepare_logging", prepared_logging)
    monkeypatch.setattr(layers_report, "held_out_prompts", cached_prompts)
    monkeypatch.setattr(loading, "load_checkpoint", reached)
    monkeypatch.setattr(loading, "_demo_host", reached)
    monkeypatch.setattr("lib_layerdiffuse.page.model.PageModel.load", lambda settings, *_more: api.load(settings))
    for name in ("open_vae", "load_vae", "load_pipeline"):
        monkeypatch.setattr(training_commands, name, CACHED[name])
    for name in ("train_vae", "train_codec", "train_text2image", "train_diffusion", "evaluate_codec", "export_demo"):
        monkeypatch.setattr(training_commands, name, reached)
    for name in ("open_backdrops", "compose", "encode_layers", "read_layers"):
        monkeypatch.setattr(layer_commands, name, reached)
    for name in ("encode_mixture", "encode_views", "draw_images", "whiten", "prepare", "pack", "evaluate_vae"):
        monkeypatch.setattr(training_commands, name, reached)
    monkeypatch.setattr(nearest, "prepare", reached)
    monkeypatch.setattr(captions, "iterate_files", functools.partial(iterate_files, limits=Limits(members=500)))
    monkeypatch.setattr("lib_layerdiffuse.sets.formats.save_set", reached)
    monkeypatch.setattr("lib_layerdiffuse.core.picture.cutting.cut", reached)
    monkeypatch.setattr(control_commands, "load_pipeline", CACHED["load_pipeline"])
    monkeypatch.setattr(control_commands, "train_controlnet", reached)


cached_parser = functools.cache(build_parser)
prepared_logging = functools.cache(main_module.prepare_logging)
cached_prompts = functools.cache(layers_report.held_out_prompts)
CACHED = {name: functools.cache(getattr(training_commands, name)) for name in ("open_vae", "load_vae", "load_pipeline")}


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command, as the program builds it."""
    parser = cached_parser(command.split()[0])
    for word in command.split():
        parser = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices[word]
    return parser


def options_of(command: str) -> Iterator[argparse.Action]:
    """What a user can give a value to."""
    for action in parser_of(command)._actions:
        if action.nargs != 0 and not isinstance(action, (argparse._HelpAction, argparse.BooleanOptionalAction)):
            yield action


def tried(capsys, command: str, words: list[str]) -> str:
    """What a command says of `words`, after checks that it says one thing and leaves nothing."""
    before = sorted(Path.cwd().iterdir())
    code = exit_code([*command.split(), *words])
    captured = capsys.readouterr()
    shown = re.sub(r"\r[^\n]*?\|", "", captured.err).strip()
    assert code in CODES, (words, shown)
    assert "Traceback" not in shown and "unexpected" not in shown, (words, shown)
    refusals = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert len(refusals) == (1 if code or "that may begin" in shown else 0), (words, shown)
    assert all(len(line) < 2100 for line in refusals), words
    assert sorted(Path.cwd().iterdir()) == before, words
    return shown


def test_every_command_is_in_the_table():
    steps = next(a for a in parser_of("train")._actions if isinstance(a, argparse._SubParsersAction)).choices
    names = {name for name in COMMANDS if name != "train"} | {f"train {name}" for name in steps}
    assert names == set(NEEDED)


@pytest.mark.parametrize("command", NEEDED)
def test_a_switch_has_no_reader_of_values(command):
    """From Python 3.12 on argparse warns of one, and 3.14 knows none."""
    assert [action.dest for action in parser_of(command)._actions if action.nargs == 0 and action.type] == []


def reader_of(action: argparse.Action) -> tuple:
    """What code reads the values of an option."""
    reader = getattr(action.type, "__func__", action.type), getattr(action.type, "__self__", None)
    whole = getattr(reader[1], "whole", None)  # of a range of numbers
    return reader[0], whole, action.nargs, action.choices is None, bool(action.option_strings)


@functools.cache
def first_of_each_kind() -> dict[tuple, tuple[str, int]]:
    """The command and the place in it of the first option that each code reads."""
    every = [(reader_of(action), (name, place)) for name in NEEDED for place, action in enumerate(options_of(name))]
    return dict(reversed(every))


def shared_out(command: str, place: int, action: argparse.Action) -> tuple[str, ...]:
    """The values for an option: the first that is read by the same code gets all, the others share them out."""
    if first_of_each_kind()[reader_of(action)] == (command, place):
        return HOSTILE
    return HOSTILE[(place + list(NEEDED).index(command)) % 6 :: 6]


@pytest.mark.parametrize("command", NEEDED)
def test_every_option_with_hostile_values(capsys, command):
    words = NEEDED[command]
    heavy = command not in ("words", "methods", "train statistics")
    if heavy:
        for form in ([], ["--verbose"]):
            assert "error: " in tried(capsys, command, [*words, *form]) or command.startswith("train")
    for place, action in enumerate(options_of(command)):
        for value in shared_out(command, place, action):
            if action.option_strings:
                tried(capsys, command, [*words, f"{action.option_strings[-1]}={value}"])
            elif not value.startswith("-"):
                tried(capsys, command, [value, *words[1:]])


@pytest.mark.parametrize("command", NEEDED)
def test_pairs_of_hostile_values(capsys, command):
    chance = random.Random(f"{SEED}-{command}")
    options = [action for action in options_of(command) if action.option_strings]
    for _ in range(20 if len(options) > 1 else 0):
        pair = chance.sample(options, 2)
        tried(capsys, command, [*NEEDED[command], *(f"{a.option_strings[-1]}={chance.choice(HOSTILE)}" for a in pair)])


@pytest.mark.parametrize("value", HOSTILE)
def test_settings_and_model_by_python(place, value):
    """The same values, as texts and as what they may mean, in every field of the Python API."""
    meant = [
        value,
        *(kind(value) for kind in (float, int) if _reads(kind, value)),
        [value],
        {"a": value},
        value.encode(errors="replace"),
    ]
    for name in (*api.GenerateSettings.__dataclass_fields__, *api.ModelSettings.__dataclass_fields__):
        for each in (*meant, None, object(), True):
            model = name in api.ModelSettings.__dataclass_fields__
            given = {"model": api.ModelSettings(**{name: each})} if model else {name: each}
            with pytest.raises(LayerDiffuseError):
                api.generate(given.pop("prompt", "a cat"), **given)


def _reads(kind: type, value: str) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True
