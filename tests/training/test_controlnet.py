"""Training a ControlNet: what it is shown, that it learns to follow lines, and that the model stays as it is."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from commands import exit_code
from diffusers import ControlNetModel
from safetensors.torch import load_file

from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.picture.edges import followed
from lib_layerdiffuse.standalone.controlnet_files import read_controlnet, write_controlnet
from lib_layerdiffuse.standalone.demo import load_demo
from lib_layerdiffuse.training.cli import control_commands
from lib_layerdiffuse.training.diffusion.control_data import (
    ControlBatches,
    ControlSet,
    encode_pictures,
    from_layers,
    from_prepared,
    joined,
)
from lib_layerdiffuse.training.diffusion.controlnet import train_controlnet
from lib_layerdiffuse.training.layer_sets.layer_sets import LayerSet
from lib_layerdiffuse.training.settings import ControlOptions

from .toys import short_run, toy_set

SIDE = 32
OPTIONS = ControlOptions(sample_steps=2, measured=2, average=0.5)
ONLY_OWN = ControlOptions(subject_share=0, stray_share=0, thick_share=0, blank_share=0, caption_dropout=0)


def layer_sets(count: int = 3) -> ControlSet:
    """Sets whose foreground is a white square in one place, on backgrounds with a white stripe."""
    foreground = torch.zeros(count, 4, SIDE, SIDE, dtype=torch.uint8)
    foreground[..., 10:20, 10:20] = 255
    background = torch.zeros(count, 3, SIDE, SIDE, dtype=torch.uint8)
    background[..., 26:, :] = 255
    blended = torch.maximum(background, foreground[:, :3])
    captions = [[["a square"], ["a stripe"], ["a square on a stripe", "a square"]]] * count
    return from_layers(foreground, background, blended, captions)


def drawn(data: ControlSet, options: ControlOptions, rows: list[int]) -> torch.Tensor:
    batches = ControlBatches(data, torch.zeros(len(data), 4, 4, 4), options)
    return batches.lines(torch.tensor(rows), torch.Generator().manual_seed(0))


def test_lines_of_layers_are_those_of_the_picture_or_of_the_thing_alone():
    data = layer_sets()
    assert data.asked.tolist() == [True] * 3 + [False] * 3 and data.captions[3] == ["a stripe"]
    own = drawn(data, ONLY_OWN, [0, 3])
    assert own.shape == (2, 3, SIDE, SIDE)
    square, stripe = (..., slice(8, 22), slice(8, 22)), (..., slice(24, 28), slice(0, SIDE))
    assert own[0][square].any() and own[0][stripe].any()
    assert not own[1][square].any() and own[1][stripe].any()
    alone = drawn(data, ControlOptions(subject_share=1, stray_share=1, thick_share=0, blank_share=0), [0, 3])
    for lines in alone:  # the background is shown with lines that its caption does not ask for
        assert lines[square].any() and not lines[stripe].any()
    assert not drawn(data, ControlOptions(blank_share=1), [0, 1]).any()
    thick = drawn(data, ControlOptions(**{**vars(ONLY_OWN), "thick_share": 1.0}), [0])
    assert thick.sum() > 2 * own[0].sum()


def test_a_prepared_set_is_shown_on_backgrounds_and_joins_others():
    prepared = from_prepared(toy_set(4), views=2)
    assert len(prepared) == 8 and len(prepared.subjects) == 8 and prepared.size == (SIDE, SIDE)
    both = joined([layer_sets(), prepared])
    assert len(both) == 14 and both.subject.tolist() == [0, 1, 2, 0, 1, 2, *range(3, 11)]
    assert torch.equal(both.subjects[3], prepared.subjects[0])
    other = from_prepared(toy_set(4), views=1)
    other.pictures = other.pictures[..., :16]
    with pytest.raises(InputError, match="one size"):
        joined([prepared, other])


@pytest.fixture
def pipeline(tmp_path):
    """The demo model's layout with random weights."""
    return load_demo(tiny.write_demo_folder(tmp_path / "demo"))


def test_it_learns_and_the_model_stays_as_it_is(tmp_path, pipeline):
    data = from_prepared(toy_set(4), views=2)
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    losses = {}
    for name, rate in {"still": 1e-12, "run": 2e-2}.items():  # of the same batches
        run = short_run(tmp_path / name, steps=10, batch=8, learning_rate=rate)
        figures = train_controlnet(pipeline, (data, data), run, OPTIONS)
        _, *rows = (tmp_path / name / "log.csv").read_text().splitlines()
        losses[name] = [float(row.split(",")[2]) for row in rows]
    assert {"loss", "lines_followed_with", "lines_followed_without"} <= set(figures)
    assert losses["run"][0] == pytest.approx(losses["still"][0])
    assert all(learnt < still for learnt, still in list(zip(losses["run"], losses["still"], strict=True))[3:])
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipeline.unet.state_dict().items())
    state = load_file(tmp_path / "run/control_lines.safetensors")
    assert all(name.startswith("control_model.") and tensor.dtype == torch.float16 for name, tensor in state.items())
    assert state["control_model.zero_convs.0.0.weight"].any()
    read = read_controlnet(tmp_path / "run/control_lines.safetensors", pipeline.unet).state_dict()
    ours = ControlNetModel.from_pretrained(tmp_path / "run/controlnet").state_dict()
    assert all(torch.allclose(tensor, ours[name], atol=2e-3) for name, tensor in read.items())
    assert (tmp_path / "run/samples/step-000010.png").is_file()


def test_a_run_goes_on_where_it_was_left(tmp_path, pipeline):
    data = from_prepared(toy_set(4), views=1)
    train_controlnet(pipeline, (data, data), short_run(tmp_path / "run", steps=2), OPTIONS)
    train_controlnet(pipeline, (data, data), short_run(tmp_path / "run", steps=3), OPTIONS)
    assert len((tmp_path / "run/log.csv").read_text().splitlines()) == 4


def test_a_model_of_sdxls_shape_is_trained(tmp_path):
    data = from_prepared(toy_set(4), views=1)
    data.pictures, data.subjects = data.pictures.repeat(1, 1, 2, 2), data.subjects.repeat(1, 1, 2, 2)
    pipeline = tiny.sdxl_pipeline(tmp_path)
    train_controlnet(pipeline, (data, data), short_run(tmp_path / "run", steps=2), OPTIONS)
    read_controlnet(tmp_path / "run/control_lines.safetensors", pipeline.unet)


def test_latents_are_in_the_samplers_scale(tmp_path):
    vae = tiny.sd15_pipeline(tmp_path).vae
    pictures = from_prepared(toy_set(4), views=1).pictures
    latents = encode_pictures(vae, pictures)
    whole = vae.encode(pictures.float().div(127.5).sub(1)).latent_dist.mean * vae.config.scaling_factor
    assert latents.dtype == torch.float16 and torch.allclose(latents.float(), whole, atol=1e-2)


def test_the_share_of_lines_that_are_followed():
    data = layer_sets(1)
    lines = drawn(data, ONLY_OWN, [0])[:, :1]
    assert followed(lines, data.pictures[:1].float() / 255) == 1
    assert followed(lines, torch.zeros(1, 3, SIDE, SIDE)) == 0
    assert 0.3 < followed(lines, data.pictures[1:].float() / 255) < 0.8


def test_the_command(tmp_path, capsys):
    tiny.write_demo_folder(tmp_path / "demo")
    toy_set(12).save(tmp_path / "set.safetensors")
    words = f"train controlnet {tmp_path}/set.safetensors --model {tmp_path}/demo --views 1 --out {tmp_path}/run"
    short = "--steps 2 --batch 2 --sample-steps 2 --measured 2 --name control_mine"
    assert main([*words.split(), *short.split()]) == 0
    assert "lines_followed_with" in json.loads(capsys.readouterr().out)
    assert (tmp_path / "run/control_mine.safetensors").is_file()


def test_layer_sets_and_prepared_sets_go_together_and_held_out_pictures_are_measured(tmp_path, capsys, monkeypatch):
    tiny.write_demo_folder(tmp_path / "demo")
    toy_set(4).save(tmp_path / "set.safetensors")  # two of the four are held out
    layers = torch.randint(0, 255, (3, 10, SIDE, SIDE), dtype=torch.uint8)
    captions = [[["a"], ["b"], ["a on b", "a"]]] * 3
    parts = LayerSet(layers[:, :4], layers[:, 4:7], layers[:, 7:], captions, list("abc"), [False, False, True])
    parts.save(tmp_path / "layers.safetensors")
    seen = {}

    def train(pipeline, sets, *others):
        seen.update(zip(("data", "measured"), sets, strict=True))
        return {}

    monkeypatch.setattr(control_commands, "train_controlnet", train)
    words = f"train controlnet {tmp_path}/set.safetensors {tmp_path}/layers.safetensors --model {tmp_path}/demo"
    assert main([*words.split(), "--views", "3", "--out", str(tmp_path / "run")]) == 0
    data, measured = seen["data"], seen["measured"]
    assert (len(data), len(measured)) == (2 * 3 + 2 * 2, 2 + 2)
    assert torch.equal(measured.pictures[2], layers[2, 7:]) and torch.equal(measured.pictures[3], layers[2, 4:7])
    assert data.captions[6] == ["a on b", "a"] and data.captions[8] == ["b"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("train controlnet nothing --model nowhere --out run", 2, "train prepare"),
        ("train controlnet s --model m --out run --thick-share 2", 2, "--thick-share"),
        ("train controlnet s --model m --out run --name a/b", 2, "--name"),
    ],
)
def test_bad_input(words, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code(words.split()) == code
    assert said in capsys.readouterr().err


def test_a_size_that_the_model_cannot_take(tmp_path, pipeline):
    data = from_prepared(toy_set(4), views=1)
    data.pictures = data.pictures[..., :30, :30]
    with pytest.raises(InputError, match="multiples of 8"):
        train_controlnet(pipeline, (data, data), short_run(tmp_path / "run"), OPTIONS)


def test_it_is_exported_with_the_model_that_it_fits(tmp_path, pipeline, capsys):
    pipeline.save_pretrained(tmp_path / "base")
    write_controlnet(ControlNetModel.from_unet(pipeline.unet), tmp_path / "mine.safetensors")
    write_controlnet(ControlNetModel.from_unet(tiny.sd15_unet()), tmp_path / "other.safetensors")
    words = f"train export {tmp_path}/base --out {tmp_path}/shipped --controlnet {tmp_path}"
    assert main(f"{words}/other.safetensors".split()) == 3
    assert "does not fit the loaded model" in capsys.readouterr().err and not (tmp_path / "shipped").exists()
    assert main(f"{words}/mine.safetensors".split()) == 0
    assert "demo_control_lines.safetensors" in json.loads(capsys.readouterr().out)["written"]
    read_controlnet(tmp_path / "shipped/demo_control_lines.safetensors", pipeline.unet)
