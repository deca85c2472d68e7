"""The training's command line, from a folder of pictures to a transparent model, and on two processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from commands import exit_code
from safetensors import safe_open
from safetensors.torch import load_file

from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.files.layer_files import METHOD, read_contents
from lib_layerdiffuse.core.methods import find_method, methods_for
from lib_layerdiffuse.standalone.demo import load_demo
from lib_layerdiffuse.training import engine
from lib_layerdiffuse.training.settings import DEMO_LAYERS

from .toys import toy_set, toy_vae, write_discs
from .two_processes import ALONE, place_of, run_two

RUN = "--steps 2 --batch 4 --log-every 1 --warmup 1".split()
SMALL_CODEC = "--encoder-widths 8 8 16 --decoder-channels 8 8 16 --attention-levels 1 --crop 16".split()


def run(capsys, *words) -> dict:
    """Run a command that must succeed; its figures."""
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def test_from_pictures_to_a_transparent_model(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_discs(tmp_path)
    (folder / "cut.png").write_bytes(b"\x89PNG")
    (tmp_path / "captions.json").write_text(json.dumps({file.stem: f"disc {file.stem}" for file in folder.iterdir()}))
    (tmp_path / "keep.json").write_text(json.dumps([f"disc {letter}" for letter in "abcdefgh"]))

    figures = run(
        capsys, *"train prepare discs --captions captions.json --size 32 --keep keep.json --out set.safetensors".split()
    )
    assert figures["images"] == 12 and figures["skipped_files"][0].startswith("cut.png")
    assert run(capsys, "train", "statistics", "set.safetensors")["images"] == 12

    vae = "--channels 32 32 --latent-channels 4".split()
    assert run(capsys, "train", "vae", "set.safetensors", "--out", "vae", *vae, *RUN)["held_out_psnr"] > 3
    figures = run(capsys, *"train whiten set.safetensors --vae vae/vae --images 8 --out white".split())
    assert figures["held_out_psnr"] == pytest.approx(figures["held_out_psnr_before"], abs=0.01)

    widths = ["--encoder-widths", "8", "16", *SMALL_CODEC[4:]]
    run(capsys, *"train codec set.safetensors --vae white --out codec --evaluate".split(), *widths, *RUN)
    measured = run(
        capsys, *"harmlessness set.safetensors --vae white --codec codec --all --limit 5 --out figures.json".split()
    )
    assert measured["images"] == 5 and json.loads(Path("figures.json").read_text()) == measured
    assert {"alpha_mae", "alpha_mae_soft", "harmlessness_loss_db", "offset_rms_sigma"} <= set(measured)

    latents = "train latents set.safetensors --vae white --views 1".split()
    assert run(capsys, *latents, "--out", "opaque.safetensors")["deviation"] > 0.1
    run(capsys, *latents, "--codec", "codec", "--vocabulary", "keep.json", "--out", "clear.safetensors")

    shape = "--channels 32 32 --head 16 --context 32 --sample-steps 2 --merges 20".split()
    run(capsys, *"train text2image opaque.safetensors --vae white --out base".split(), *shape, *RUN)
    tune = "--codec codec --rank 2 --sample-steps 2 --name layer_mine".split()
    run(capsys, *"train diffusion clear.safetensors --model base/pipeline --out tuned".split(), *tune, *RUN)
    offsets = load_file("tuned/layer_mine.safetensors")
    assert all(key.startswith("diffusion_model.") and "::lora::" in key for key in offsets)

    written = run(capsys, "train", "export", "base/pipeline", "--out", "shipped")["written"]
    assert written == ["demo.safetensors", "demo.yaml", "tokenizer"]
    parts = "--codec codec --offsets tuned/layer_mine.safetensors --vocabulary keep.json --out shipped".split()
    written = run(capsys, "train", "export", "base/pipeline", *parts)["written"]
    weights = {name for name in written if name.endswith(".safetensors")} - {"demo.safetensors"}
    assert weights == {
        "demo_vae_transparent_decoder.safetensors",
        "demo_vae_transparent_encoder.safetensors",
        "layer_demo_transparent.safetensors",
    }
    assert all(tensor.dtype == torch.float16 for name in weights for tensor in load_file(f"shipped/{name}").values())
    with safe_open("shipped/demo_vae_transparent_encoder.safetensors", framework="pt") as file:
        assert file.metadata()["unit"] == "posterior"
    assert json.loads(Path("shipped/vocabulary.json").read_text()) == json.loads(Path("keep.json").read_text())
    run(capsys, *"train diffusion clear.safetensors --model shipped --out again".split(), *tune, *RUN)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A folder with a set, a VAE, and what should be one."""
    folder = tmp_path_factory.mktemp("started")
    toy_set().save(folder / "set.safetensors")
    toy_vae().save_pretrained(folder / "vae")
    (folder / "broken").mkdir()
    (folder / "broken/config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("train prepare nowhere --out s", 2, "nowhere"),
        ("train prepare . --size 2 --out s", 2, "--size: got '2'; expected"),
        ("train prepare . --size 100000 --out s", 2, "a whole number from 8 to 2048"),
        ("train statistics nothing", 2, "train prepare"),
        ("train vae set.safetensors --out run --steps 0", 2, "--steps: got '0'; expected a whole number from 1"),
        ("train vae set.safetensors --out run --batch 0", 2, "--batch"),
        ("train vae set.safetensors --out run --learning-rate nan", 2, "a number above 0 to 10"),
        ("train vae set.safetensors --out run --learning-rate 0", 2, "--learning-rate"),
        ("train vae set.safetensors --out run --seed -1", 2, "--seed"),
        ("train vae set.safetensors --out run --channels 7 7", 2, "a multiple of 32 from 32 to 4096"),
        ("train vae set.safetensors --out run --channels 32 32 32 32 32 32 32 --latent-noise 0 0 0 0", 2, "levels"),
        ("train vae set.safetensors --out run --tracker paper", 2, "csv or tensorboard"),
        ("train vae set.safetensors --out run --decoder-only", 2, "name its folder with --start"),
        ("train vae set.safetensors --out run --encoder-only", 2, "got --encoder-only alone"),
        ("train vae set.safetensors --out run --grow 1", 2, "got --grow alone"),
        ("train vae set.safetensors --out run --start vae --encoder-only --decoder-only", 2, "leave one away"),
        ("train vae set.safetensors --out set.safetensors", 5, "no folder"),
        ("train vae set.safetensors --out set.safetensors/run", 5, "Not a directory"),
        ("train vae set.safetensors --out /proc/self/run", 5, "/proc/self/run"),
        ("train prepare . --out vae", 5, "which is a folder"),
        ("train latents set.safetensors --vae vae --views 0 --out s", 2, "--views"),
        ("train latents set.safetensors --vae vae --out vae", 5, "which is a folder"),
        ("train text2image l --vae vae --out run --channels 32 32 --head 24", 2, "--head 24"),
        ("train diffusion l --model vae --out run --name ../x", 2, "--name"),
        ("train codec set.safetensors --vae vae --out run --prefix a/b", 2, "--prefix"),
        ("harmlessness set.safetensors --vae vae --codec vae --out vae", 5, "which is a folder"),
        ("harmlessness set.safetensors --vae vae --codec vae --passes 3", 2, "--passes"),
        ("train codec set.safetensors --vae nowhere --out run", 3, "nowhere"),
        ("train codec set.safetensors --vae broken --out run", 3, "AutoencoderKL"),
        ("train codec set.safetensors --out run", 2, "--vae"),
        ("train export nowhere --codec codec --out shipped", 2, "--offsets"),
        ("train diffusion latents --model nowhere --out run", 2, "train latents"),
        ("train text2image set.safetensors --vae broken --out run", 2, "train latents"),
        ("harmlessness set.safetensors --vae vae --codec nowhere", 3, "exactly one"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(started, capsys, monkeypatch, words, code, said):
    monkeypatch.chdir(started)
    before = sorted(started.rglob("*"))
    result = exit_code(words.split())
    message = capsys.readouterr().err.strip()
    assert result == code and said in message
    assert len(message.splitlines()) == 1 and sorted(started.rglob("*")) == before


def test_a_tracker_that_is_not_installed_is_told_before_anything_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    assert main("train vae set.safetensors --out run --tracker tensorboard".split()) == 6
    assert "no module tensorboard" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def exportable(tmp_path_factory):
    """A folder with a pipeline and whatever goes with it, right and wrong."""
    folder = tmp_path_factory.mktemp("exportable")
    (folder / "base").mkdir()
    tiny.sd15_pipeline(folder).save_pretrained(folder / "base" / "pipeline")
    (folder / "codec").mkdir()
    tiny.write_codec(folder / "codec")
    tiny.write_offsets(folder, tiny.sd15_unet(), "offsets")
    tiny.write_sharing(folder, "pair", 2, control=True)
    tiny.write_demo_sharing(folder)
    (folder / "layer_demo_fg2bg.safetensors").rename(folder / "other.safetensors")
    (folder / "words.json").write_text('["red apple"]')
    return folder


@pytest.mark.parametrize(
    ("option", "file", "refusal"),
    [
        ("--offsets", "codec/vae_transparent_decoder.safetensors", (3, "vae_transparent_decoder")),
        ("--offsets", "codec/vae_transparent_encoder.safetensors", (3, "vae_transparent_encoder")),
        ("--offsets", "gone.safetensors", (3, "gone")),
        ("--codec", "base", (3, "exactly one")),
        ("--joint", "offsets.safetensors", (3, "attention sharing")),
        ("--joint", "pair.safetensors", (3, "2 frames with control")),
        ("--fg2bg", "other.safetensors", (4, "attention layers")),
        ("--vocabulary", "codec/vae_transparent_decoder.safetensors", (2, "JSON")),
    ],
)
def test_what_is_exported_is_checked_first(exportable, capsys, monkeypatch, option, file, refusal):
    monkeypatch.chdir(exportable)
    right = {"--codec": "codec", "--offsets": "offsets.safetensors", "--vocabulary": "words.json", "--out": "shipped"}
    words = [word for pair in {**right, option: file}.items() for word in pair]
    assert main(["train", "export", "base/pipeline", *words]) == refusal[0]
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: got ") and refusal[1] in message and not (exportable / "shipped").exists()


def test_files_have_the_mode_that_the_users_files_have(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o027)
    try:
        toy_set().save("set.safetensors")
        run(capsys, *"train vae set.safetensors --out vae --channels 32 32 --latent-channels 4".split(), *RUN)
        run(capsys, *"train whiten set.safetensors --vae vae/vae --images 8 --out white".split())
        run(capsys, *"train latents set.safetensors --vae white --views 1 --out latents.safetensors".split())
    finally:
        os.umask(before)
    files = list(tmp_path.rglob("*.safetensors"))
    assert len(files) == 4 and {path.stat().st_mode & 0o777 for path in files} == {0o640}


def test_the_help_needs_no_torch():
    code = "import sys; from lib_layerdiffuse.cli.main import main\n"
    code += "for words in (['train', '--help'], ['train', 'codec', '--help'], ['harmlessness', '--help']):\n"
    code += "    try: main(words)\n    except SystemExit as done: assert done.code == 0\n"
    code += "assert not {'torch', 'diffusers', 'PIL', 'numpy'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    for name in "prepare statistics vae whiten codec latents text2image diffusion export".split():
        assert name in shown


@ALONE
def test_two_processes_train_and_resume(tmp_path, monkeypatch):
    toy_set(6).save(tmp_path / "set.safetensors")
    toy_vae().save_pretrained(tmp_path / "vae")
    words = ["train", "codec", "set.safetensors", "--vae", "vae", "--out", "run", *SMALL_CODEC, *RUN]
    words += ["--adversarial-from", "0.3", "--steps"]
    monkeypatch.chdir(tmp_path)
    for steps in ("3", "5"):  # one process speaks, and both are there: the figures are printed once
        assert run_two([*words, steps], tmp_path).count('"alpha_mae"') == 1
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    assert (tmp_path / "run" / "vae_transparent_decoder.safetensors").exists()


def test_a_launcher_tells_its_processes_what_the_two_of_tests_are_told(tmp_path):
    (tmp_path / "lib_layerdiffuse.py").write_text("import json, os\nprint(json.dumps(dict(os.environ)), flush=True)\n")
    launch = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    launch += " --dynamo_backend no --main_process_port 0 -m lib_layerdiffuse"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", *launch.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads(line) for line in done.stdout.replace("}{", "}\n{").splitlines()]
    for rank in range(2):
        (mine,) = (each for each in told if each["RANK"] == str(rank))
        wanted = place_of(rank, int(mine["MASTER_PORT"]))
        assert {name: mine[name] for name in wanted} == wanted


def test_layer_files_are_exported_under_their_names_and_say_what_they_are(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    methods = {name: find_method(f"demo_{name}") for name in DEMO_LAYERS}
    assert set(methods.values()) == {method for method in methods_for("demo") if len(method.frames) > 1}
    load_demo(tiny.write_demo_folder(tmp_path / "made")).save_pretrained("base")
    (tmp_path / "made").rename("layers")
    words = [f"--{name} layers/{method.weights}.safetensors" for name, method in methods.items()]
    written = run(capsys, *f"train export base --out shipped {' '.join(words)}".split())["written"]
    for method in methods.values():
        assert f"{method.weights}.safetensors" in written
        contents = read_contents(Path("shipped") / f"{method.weights}.safetensors")
        assert (contents.part, contents.bases, contents.methods) == (METHOD, ("demo",), (method.id,))
        tensors = load_file(f"shipped/{method.weights}.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
