"""The command line: what it writes and says, and the exit codes of everything that can go wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from commands import started
from PIL import Image
from safetensors.torch import save_file

from lib_layerdiffuse import __version__, api
from lib_layerdiffuse.cli.main import COMMANDS, Command, main
from lib_layerdiffuse.core.codec.decoder import TransparencyUNet
from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.methods import METHODS
from lib_layerdiffuse.files.downloads import LayerFiles
from lib_layerdiffuse.form.ways import CHAINS
from lib_layerdiffuse.sets.reading import read_set
from lib_layerdiffuse.standalone import extras, loading
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost

FAST = ["--steps", "1", "--passes", "1"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    return tiny.write_demo_folder(tmp_path_factory.mktemp("demo"))


def generate(demo: Path, out: Path, *arguments: str) -> int:
    return main(["generate", "--demo", str(demo), "--out", str(out), *FAST, *arguments])


def only_error(capsys) -> str:
    """The last line of stderr; the rest may be the progress bar, but no traceback and no second error."""
    text = capsys.readouterr().err
    assert "Traceback" not in text and text.count("error:") == 1
    return text.strip().splitlines()[-1]


def test_generate_writes_rgba_files_and_a_sheet_and_says_where(demo, tmp_path, capsys):
    out = tmp_path / "out"
    assert generate(demo, out, "a red apple", "-n", "2", "--seed", "1") == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "a-red-apple-1.png",
        "a-red-apple-2.png",
        "contact-sheet.png",
    ]
    with Image.open(out / "a-red-apple-2.png") as image:
        assert image.mode == "RGBA" and "Seed: 2" in image.text["parameters"]
    captured = capsys.readouterr()
    assert captured.out == f"2 pictures and contact-sheet.png are in {out}\n"
    assert "100%" in captured.err


def test_plain_pictures_hints_and_rounded_sizes(demo, tmp_path, capsys):
    assert generate(demo, tmp_path, "a zebra", "-n", "1", "--seed", "1", "--plain", "--size", "70x64") == 0
    with Image.open(tmp_path / "a-zebra-1.png") as image:
        assert image.mode == "RGB" and image.size == (72, 64)
    notes = capsys.readouterr().err
    assert "note: width 70 rounded up to 72" in notes and "note: the demo model does not know the word 'zebra'" in notes


def test_image_in_image_out(demo, tmp_path):
    Image.new("RGBA", (30, 50), (0, 200, 0, 128)).save(tmp_path / "in.png")
    arguments = ["a red apple", "-n", "1", "--seed", "3", "--init", str(tmp_path / "in.png"), "--denoise", "0"]
    assert generate(demo, tmp_path / "out", *arguments) == 0
    assert (tmp_path / "out" / "a-red-apple-3.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["  "], 2, "empty prompt"),
        (["a cat", "--size", "1x1"], 2, "64"),
        (["a cat", "--size", "16000x16000"], 2, "GiB"),
        (["a cat", "--size", "large"], 2, "WIDTHxHEIGHT"),
        (["a cat", "--passes", "3"], 2, "--passes"),
        (["a cat", "--nonsense"], 2, "--nonsense"),
        (["a cat", "--method", "nothing"], 2, "demo_fg"),
        (["a cat", "--sampler", "magic"], 2, "euler-a"),
        (["a cat", "--init", "no-such.png"], 2, "no-such.png"),
        (["a cat", "--init", __file__], 2, "no image"),
        (["a cat", "--checkpoint", "no-such.safetensors"], 2, "no-such.safetensors"),
        (["a cat", "--checkpoint", __file__], 3, "test_cli.py"),
        (["a cat", "--models", "/no/such/folder"], 3, "/no/such/folder"),
        (["a cat", "--mode", "from-foreground"], 2, "foreground image"),
        (["a cat", "--method", "sd15_joint"], 4, "SD1.5"),
        (["a cat", "--method", "xl_fg_attn"], 4, "SDXL"),
    ],
)
def test_bad_input_is_one_line_and_a_code(demo, tmp_path, capsys, arguments, code, message):
    try:
        result = generate(demo, tmp_path, *arguments)
    except SystemExit as leaving:  # argparse leaves by itself
        result = leaving.code
    assert result == code
    line = only_error(capsys)
    assert line.startswith("error:") and message in line
    assert list(tmp_path.iterdir()) == []


def test_full_disk(demo, tmp_path, capsys, monkeypatch):
    def save(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    assert generate(demo, tmp_path, "a red apple", "-n", "1") == 5
    assert "No space left" in only_error(capsys)
    assert list(tmp_path.iterdir()) == []


def test_out_is_a_file(demo, tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")
    assert generate(demo, tmp_path / "out", "a red apple") == 5
    assert "--out" in only_error(capsys)


def test_a_missing_module_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(extras.MODULES, "standalone", ("torch", "no_such_module"))
    assert main(["generate", "a cat"]) == 6
    line = only_error(capsys)
    assert "no_such_module" in line and 'pip install ".[standalone]" in the folder of this project' in line


@pytest.mark.parametrize("place", ["at import", "when run"])
def test_a_command_without_its_extra_names_it(place, tmp_path, monkeypatch, capsys):
    body = "import no_such_package" if place == "at import" else ""
    lines = [body, "def run(arguments):", "    import no_such_package", "def add_parser(subparsers):"]
    lines.append("    subparsers.add_parser('train').set_defaults(run=run)")
    (tmp_path / "needs_a_package.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "needs_a_package", raising=False)
    monkeypatch.setitem(COMMANDS, "train", Command("needs_a_package", "help", "training"))
    assert main(["train"]) == 6
    assert 'pip install ".[training]"' in only_error(capsys)


def test_unexpected_errors_are_one_line_unless_verbose(demo, tmp_path, capsys, monkeypatch):
    def fail(*_args, **_options):
        raise ZeroDivisionError("something odd")

    monkeypatch.setattr(api, "generate", fail)
    assert generate(demo, tmp_path, "a cat") == 1
    assert "ZeroDivisionError: something odd" in only_error(capsys)


def test_interrupted_in_process(demo, tmp_path, capsys, monkeypatch):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "generate", interrupt)
    assert generate(demo, tmp_path, "a cat") == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(("layers", "told"), [(0, ""), (1, "1 layer is in "), (2, "2 layers are in ")])
def test_ctrl_c_in_a_scene_keeps_the_layers_that_are_done(demo, tmp_path, capsys, monkeypatch, layers, told):
    def paint(run, request, choices, watchers):
        if len(asked) == layers:
            signal.raise_signal(signal.SIGINT)
        asked.append(request)
        return Image.new("RGBA", (request.width, request.height), (200, 0, 0, 255)), []

    asked: list = []
    monkeypatch.setattr("lib_layerdiffuse.standalone.scenes.paint", paint)
    (tmp_path / "beach.json").write_text('{"seed": 7, "background": "a beach", "layers": ["a red apple", "a banana"]}')
    out = tmp_path / "out"
    command = ["scene", str(tmp_path / "beach.json"), "--demo", str(demo), "--out", str(out), "--format", "ora"]
    assert main(command) == 130
    output = capsys.readouterr()
    assert "interrupted" in output.err and output.out.startswith(told)
    files = sorted(out.iterdir()) if out.exists() else []
    assert [path.name for path in files] == ["beach-unfinished.layers", "beach-unfinished.ora"] * bool(layers)
    for path in files[1:]:
        assert len(read_set(path)) == layers and str(path) in output.out and "--resume" in output.err


def test_a_scene_goes_on_from_its_finished_layers(demo, tmp_path, capsys, monkeypatch):
    """After an error as after Ctrl-C; only what the scene still says, and nothing of it when it is not wanted."""

    def paint(run, request, choices, watchers):
        asked.append(request.prompt)
        if request.prompt in fails:
            raise RuntimeError("no memory")
        return Image.new("RGBA", (request.width, request.height), (len(asked), 0, 0, 255)), []

    def scene(*names, **more):
        asked.clear()
        background, *layers = names
        (tmp_path / "beach.json").write_text(json.dumps({"background": background, "layers": layers, **more}))
        command = ["scene", str(tmp_path / "beach.json"), "--demo", str(demo), "--out", str(out), "--format", "zip"]
        return main([*command, "--steps", "2"]), main([*command, "--steps", "2", "--resume"])

    asked, fails, out = list[str](), {"a banana"}, tmp_path / "out"
    monkeypatch.setattr("lib_layerdiffuse.standalone.scenes.paint", paint)
    assert scene("a beach", "a red apple", "a banana") == (1, 1)
    assert asked == ["a beach", "a red apple", "a banana", "a banana"], "the layers that are done are not painted again"
    fails.clear()
    assert scene("a beach", "a green pear", "a banana")[0] == 0
    first = read_set(out / "beach.zip")
    assert asked[:3] == ["a beach", "a green pear", "a banana"] and len(first) == 3
    assert not (out / "beach-unfinished.layers").exists()
    assert "already" not in capsys.readouterr().err


def test_a_resumed_scene_is_the_whole_one(demo, tmp_path, capsys, monkeypatch):
    from lib_layerdiffuse.standalone import scenes

    def paint(run, request, choices, watchers):
        asked.append(request.prompt)
        if fails and request.prompt == "a banana":
            raise RuntimeError("no memory")
        return original(run, request, choices, watchers)

    original, asked, fails = scenes.paint, list[str](), [True]
    monkeypatch.setattr("lib_layerdiffuse.standalone.scenes.paint", paint)
    layers = [{"prompt": "a red apple", "scale": 0.5, "left": 9}, "a banana"]
    (tmp_path / "beach.json").write_text(json.dumps({"seed": 7, "background": "a beach", "layers": layers}))
    command = ["scene", str(tmp_path / "beach.json"), "--demo", str(demo), "--format", "zip", "--steps", "2"]
    assert main([*command, "--out", str(tmp_path / "cut")]) == 1
    fails.clear()
    asked.clear()
    assert main([*command, "--out", str(tmp_path / "cut"), "--resume"]) == 0 and asked == ["a banana"]
    assert "2 of 3 layers were there already" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "whole"), "--resume"]) == 0 and len(asked) == 4
    cut, whole = (read_set(tmp_path / name / "beach.zip") for name in ("cut", "whole"))
    told = [[(layer.name, layer.box, layer.seed, layer.picture.tobytes()) for layer in made] for made in (cut, whole)]
    assert told[0] == told[1]


def test_somebody_elses_folder_is_left_alone(demo, tmp_path, capsys):
    (tmp_path / "beach.json").write_text('{"background": "a beach"}')
    (tmp_path / "out/beach-unfinished.layers").mkdir(parents=True)
    (tmp_path / "out/beach-unfinished.layers/mine.png").write_bytes(b"mine")
    assert main(["scene", str(tmp_path / "beach.json"), "--demo", str(demo), "--out", str(tmp_path / "out")]) == 5
    assert "something else" in only_error(capsys)
    assert (tmp_path / "out/beach-unfinished.layers/mine.png").read_bytes() == b"mine"


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_ctrl_c_leaves_whole_files_only(demo, tmp_path):
    out = tmp_path / "out"
    command = ["generate", "a red apple", "--demo", str(demo), "--out", str(out), "-n", "1000", "--batch", "1"]
    printed = tmp_path / "printed.txt"
    process = started([*command, "--steps", "2"], printed)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.is_alive() and not list(out.glob("*.png")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.join(120)
    errors = printed.read_text(encoding="utf-8")
    assert process.exitcode == 130 and "interrupted" in errors and "Traceback" not in errors
    files = list(out.iterdir())
    assert files and all(path.suffix == ".png" and not path.name.startswith(".") for path in files)
    for path in files:
        with Image.open(path) as image:
            image.load()


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize(("presses", "code"), [(2, 0), (3, 130)])
def test_more_ctrl_c_changes_nothing_until_the_third(tmp_path, presses, code):
    program = """
import signal, sys
from lib_layerdiffuse.cli.interrupts import Interrupts
with Interrupts():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        for _ in range(int(sys.argv[1]) - 1):
            signal.raise_signal(signal.SIGINT)  # while the command writes its last file
        print("finished")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    done = subprocess.run([sys.executable, "-c", program, str(presses)], capture_output=True, text=True)
    assert done.returncode == code and done.stderr == ""
    assert done.stdout == ("finished\n" if presses == 2 else "")


@pytest.mark.skipif(os.name == "nt", reason="a POSIX command line")
def test_bytes_that_are_no_text_are_refused_in_one_line(tmp_path):
    command = [sys.executable, "-m", "lib_layerdiffuse", "generate", b"a \xff cat", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no text" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_failed_run_leaves_no_folder(demo, tmp_path, capsys):
    assert generate(demo, tmp_path / "a" / "out", "a cat", "--method", "sd15_joint") == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder that nobody can write to")
def test_a_folder_that_takes_no_file_is_told_before_the_model_is_loaded(demo, capsys, monkeypatch):
    monkeypatch.setattr(api, "generate", lambda *_args, **_options: pytest.fail("loaded the model"))
    assert generate(demo, Path("/proc/self/out"), "a red apple") == 5
    assert "/proc/self/out" in only_error(capsys)


@pytest.mark.parametrize("file", ["demo_vae_transparent_decoder", "layer_demo_transparent"])
@pytest.mark.parametrize("content", ["encoder", "checkpoint", "other channels", "pointer"])
def test_a_foreign_file_in_the_demo_folder_is_named(demo, tmp_path, capsys, file, content):
    folder = shutil.copytree(demo, tmp_path / "demo")
    path = folder / f"{file}.safetensors"
    if content == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    elif content == "other channels":
        wide = TransparencyUNet(channels=(8, 8, 16, 16), latent_channels=16, latent_level=3, attention_levels=1)
        save_file(dict(wide.state_dict()), str(path))
    else:
        other = {"encoder": "demo_vae_transparent_encoder", "checkpoint": "demo"}[content]
        shutil.copyfile(folder / f"{other}.safetensors", path)
    assert generate(folder, tmp_path / "out", "a red apple", "-n", "1") in (3, 4)
    assert only_error(capsys).startswith("error: got ") and not (tmp_path / "out").exists()


def test_words(demo, capsys):
    assert main(["words", "--demo", str(demo), "apple"]) == 0
    assert capsys.readouterr().out == "concepts (2 things, 3 names)\n  green apple, or apple\n  red apple, or apple\n"
    assert main(["words", "--demo", str(demo), "zzz"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "note: the demo model knows no name that contains 'zzz'\n"


def test_methods(capsys):
    assert main(["methods", "--base", "sd15", "--mode", "joint"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("sd15_joint:") and "foreground (RGBA), background (RGB), blended (RGB)" in text
    assert main(["methods"]) == 0
    text = capsys.readouterr().out
    assert text.count("  needs ") == len(METHODS) + len(CHAINS)
    assert "xl_fg2bg: Foreground to blended, then background, SDXL, --chain" in text


@pytest.mark.parametrize("names", [("--chain", "joint"), ("--mode", "joint")])
def test_a_chain_writes_every_layer_once(demo, tmp_path, capsys, names):
    seeds = ("--seed", "1", "--background-seed", "9")
    assert generate(demo, tmp_path, "a red apple", "-n", "1", *seeds, *names) == 0
    layers = ("foreground", "background", "blended")
    expected = {*(f"a-red-apple-1-{layer}.png" for layer in layers), "contact-sheet.png"}
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert "3 pictures" in capsys.readouterr().out


def test_a_chain_of_several_methods(tmp_path, monkeypatch, capsys):
    host = DiffusersHost(tiny.write_sdxl_folder(tmp_path), "sdxl", LayerFiles([tmp_path], offline=True))
    monkeypatch.setattr(loading, "base_of", lambda model: "sdxl")
    monkeypatch.setattr(loading, "load_host", lambda model: host)
    out, prompts = tmp_path / "out", ("--foreground-prompt", "a cat", "--blended-prompt", "a cat")
    shape = ("--size", "64", "--format", "ora", "-n", "2", "--seed", "5")
    assert main(["generate", "in a wood", "--chain", "joint", *FAST, *shape, *prompts, "--out", str(out)]) == 0
    layers = [f"in-a-wood-{seed}-{layer}.png" for seed in (5, 6) for layer in ("foreground", "background", "blended")]
    files = [f"in-a-wood-{seed}.ora" for seed in (5, 6)]
    assert {path.name for path in out.iterdir()} == {*layers, *files, "contact-sheet.png"}
    captured = capsys.readouterr()
    assert captured.out.startswith("6 pictures, in-a-wood-5.ora, in-a-wood-6.ora")
    assert "step 3 of 3: sampling" in captured.err and "not used" not in captured.err


def test_a_chain_that_lacks_its_image(demo, tmp_path, capsys):
    assert generate(demo, tmp_path, "a red apple", "--chain", "from-background") == 2
    assert "no background image for chain demo_bg2fg" in only_error(capsys)


def test_version_and_help(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0 and __version__ in capsys.readouterr().out
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS) and "exit codes" in text


def test_the_api_has_the_same_names(demo):
    pictures = api.generate("a red apple", mode="single", count=1, seed=1, steps=1, model=api.ModelSettings(demo=demo))
    assert pictures[0].transparent and pictures[0].seed == 1 and len(pictures) == 1
    with pytest.raises(InputError, match="colour"):
        api.generate("a cat", colour="red")
    assert "banana" in api.words(api.ModelSettings(demo=demo))["concepts"]
