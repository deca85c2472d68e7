"""`train layers` on the command line: a run, two processes, an interruption, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from commands import exit_code
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.training.layers import layers as layers_module

from .layer_toys import layers_pipeline, toy_layers
from .two_processes import ALONE, run_two

RUN = "--batch 2 --log-every 1 --warmup 1 --rank 4 --control-channels 16 --sample-sets 2 --sample-steps 2".split()
TRAIN = "train layers layers.safetensors --model model --out run".split()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Latents, a pipeline's folder and a codec's."""
    folder = tmp_path_factory.mktemp("made")
    toy_layers().save(folder / "layers.safetensors")
    layers_pipeline().save_pretrained(folder / "model")
    (folder / "codec").mkdir()
    tiny.write_codec(folder / "codec")
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of them, which is the working folder."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "folder"))
    return tmp_path / "folder"


def steps_in(folder: Path) -> list[str]:
    with (folder / "log.csv").open(newline="") as file:
        return [row["step"] for row in csv.DictReader(file)]


def test_a_run_on_the_command_line(folder, capsys):
    words = [*TRAIN, "--codec", "codec", "--method", "bg2fg", "--name", "layer_mine", "--steps", "2", *RUN]
    assert main(words) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["loss"] > 0
    assert "hookers.layers.0.to_q_lora.1.down.weight" in load_file("run/layer_mine.safetensors")
    assert steps_in(folder / "run") == ["1", "2"]


def test_an_interrupted_run_goes_on(folder, capsys, monkeypatch):
    forward, calls = layers_module.LayerTrainer.forward, []

    def interrupted(self, batch):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, batch)

    monkeypatch.setattr(layers_module.LayerTrainer, "forward", interrupted)
    code = main([*TRAIN, "--steps", "4", *RUN])
    assert code == 130 and list(Path("run").glob("layer_*.safetensors"))
    assert main([*TRAIN, "--steps", "4", *RUN]) == 0
    assert steps_in(folder / "run") == ["1", "2", "3", "4"]


@ALONE
def test_two_processes_train(folder):
    """How they are launched and go on with a run is tested with the codec's, by the same engine."""
    assert run_two([*TRAIN, "--method", "fg2bg", *RUN, "--steps", "2"], folder).count('"loss"') == 1
    assert steps_in(folder / "run") == ["1", "2"]
    assert json.loads(Path("run/run.json").read_text())["processes"] == 2


DAMAGES = {
    "three channels": lambda data: replace(data, latents=data.latents[:, :, :3]),
    "two frames": lambda data: replace(data, latents=data.latents[:, :2]),
    "other size": lambda data: replace(data, latents=data.latents[..., :4]),
    "other scale": lambda data: replace(data, scale_factor=0.18215),
    "all held out": lambda data: replace(data, held_out=[True] * len(data)),
    "no caption": lambda data: replace(data, captions=[[*texts[:2], [""]] for texts in data.captions]),
}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("three channels", "latents of 3 channels"),
        ("two frames", "3 frames"),
        ("other size", "(8, 8)"),
        ("other scale", "scale 0.18215"),
        ("all held out", "no set to train on"),
        ("no caption", "10 sets without a caption"),
    ],
)
def test_sets_that_do_not_fit_are_refused_in_one_line(folder, capsys, damage, said):
    DAMAGES[damage](toy_layers()).save("layers.safetensors")
    assert main([*TRAIN, "--steps", "2", *RUN]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: got ") and said in message and not Path("run").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--method joined", 2, "--method"),
        ("--rank 0", 2, "--rank"),
        ("--control-channels 7", 2, "a multiple of 8"),
        ("--own-captions 2", 2, "--own-captions"),
        ("--model nowhere", 3, "nowhere"),
        ("--codec nowhere", 3, "exactly one"),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_one_line(folder, capsys, words, code, said):
    assert exit_code([*TRAIN, *RUN, *words.split()]) == code
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not Path("run").exists()


def test_a_unet_without_attention_is_refused(folder, capsys):
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32),
        down_block_types=["DownBlock2D"] * 2,
        up_block_types=["UpBlock2D"] * 2,
        mid_block_type="UNetMidBlock2D",
        cross_attention_dim=tiny.CONTEXT,
    ).save_pretrained("model/unet")
    assert main([*TRAIN, "--steps", "2", *RUN]) == 4
    assert "without attention" in capsys.readouterr().err and not Path("run").exists()
