"""Flux made transparent: low-rank layers trained by flow matching, and the file that they are written into."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch
from fakes.flux import FluxShape
from fakes.flux_pipeline import flux_pipeline
from safetensors.torch import load_file, save_file

from lib_layerdiffuse.core.errors import InputError, WeightsError
from lib_layerdiffuse.core.files.flux_names import naming_of
from lib_layerdiffuse.core.files.layer_files import METHOD, read_contents
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.core.offsets.install import parameter_shapes
from lib_layerdiffuse.core.offsets.lora_files import read_lora
from lib_layerdiffuse.training.diffusion.flow import (
    TransparentFlow,
    draw_levels,
    encode_captions,
    image_ids,
    train_flow,
)
from lib_layerdiffuse.training.diffusion.latents import LatentSet, encode_views
from lib_layerdiffuse.training.settings import DiffusionOptions

from .toys import flux_vae, short_run, toy_set
from .two_processes import ALONE, run_two

OPTIONS = DiffusionOptions(sample_steps=1, sample_prompts=("a",), rank=2, average=0.5, name="layerlora", guidance=3.5)
LINEARS = 8 + 3  # of a double block's two streams and of a single block, as BFL has them


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    made = flux_pipeline(tmp_path_factory.mktemp("flux"))
    made.text_encoder_2.eval()  # as one that is loaded
    return made


@pytest.fixture
def pipeline(made):
    """The pipeline, whose transformer has no hooks and its own weights at the start of each test."""
    before = {key: value.clone() for key, value in made.transformer.state_dict().items()}
    yield made
    for module in made.transformer.modules():
        module._forward_hooks.clear()
    assert all(torch.equal(value, before[key]) for key, value in made.transformer.state_dict().items())


def some_latents(channels: int = 16, size: tuple[int, int] = (4, 4), **changes) -> LatentSet:
    latents = torch.randn(6, channels, *size, generator=torch.Generator().manual_seed(0)).half()
    pixels = (8 * size[0], 8 * size[1])
    made = LatentSet(latents, torch.arange(6) % 2, [["red apple"], ["pear"]], 0.3611, True, pixels, 0.1159)
    return replace(made, **changes)


def test_latents_of_a_vae_with_a_shift_come_in_the_samplers_scale(tmp_path):
    data, vae = toy_set(4), flux_vae()
    made = encode_views(vae, data, [["a"]] * 4, 2)
    made.save(tmp_path / "latents.safetensors")
    read = LatentSet.load(tmp_path / "latents.safetensors")
    assert (read.scale_factor, read.shift_factor) == (0.3611, 0.1159) and read.latents.shape == (8, 16, 4, 4)
    values = read.latents.float()
    torch.testing.assert_close(read.sampler_space(values), (values - 0.1159) * 0.3611)
    torch.testing.assert_close(read.vae_space(read.sampler_space(values)), values)
    path = tmp_path / "older.safetensors"
    header = {"captions": "[]", "scale_factor": "2.0", "transparent": "true", "image_size": "[32, 32]"}
    save_file({"latents": read.latents, "image": read.image}, path, header)
    assert LatentSet.load(path).shift_factor == 0.0


def test_the_transformer_sees_latents_as_diffusers_packs_them(pipeline):
    """Tokens, ids of places and texts against diffusers' own."""
    latent = torch.randn(1, 16, 4, 6)
    seen = {}

    hook = pipeline.transformer.register_forward_pre_hook(
        lambda _module, _inputs, named: seen.update(named), with_kwargs=True
    )
    TransparentFlow(pipeline, OPTIONS).velocity(latent, torch.tensor([0.4]), encode_captions(pipeline, ["red"]))
    hook.remove()
    assert torch.equal(seen["hidden_states"], pipeline._pack_latents(latent, 1, 16, 4, 6))
    ids = pipeline._prepare_latent_image_ids(1, 2, 3, torch.device("cpu"), torch.float32)
    assert torch.equal(seen["img_ids"], ids) and torch.equal(image_ids(2, 3), ids)
    tokens, pooled, text_ids = pipeline.encode_prompt(["red"], None)
    torch.testing.assert_close(seen["encoder_hidden_states"], tokens, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen["pooled_projections"], pooled, atol=1e-4, rtol=1e-4)
    assert torch.equal(seen["txt_ids"], text_ids) and seen["guidance"].tolist() == [OPTIONS.trained_guidance]


def test_levels_are_shifted_for_the_size_as_the_sampler_does_it(pipeline):
    small, large = (draw_levels(400, tokens, pipeline, torch.Generator().manual_seed(0)) for tokens in (256, 4096))
    assert small.min() > 0 and large.max() < 1 and small.shape == (400,)
    assert small.median() == pytest.approx(0.62, abs=0.05) and large.median() == pytest.approx(0.76, abs=0.05)


def test_the_loss_is_flow_matchings(pipeline):
    trainer, condition = TransparentFlow(pipeline, OPTIONS), encode_captions(pipeline, ["red", "pear"])
    latent, noise = torch.randn(2, 2, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([0.2, 0.7])
    share = level[:, None, None, None]
    wanted = trainer.velocity(latent + share * (noise - latent), level, condition) - (noise - latent)
    assert trainer(latent, noise, level, condition)[0].item() == pytest.approx(wanted.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize(("layers", "count"), [("all", 2 * 5 + 3), ("attention", 2 * 2 + 2)])
def test_the_file_has_kohyas_names_and_is_known_as_fluxs(tmp_path, pipeline, layers, count):
    train_flow(pipeline, some_latents(), short_run(tmp_path / "run", 1), replace(OPTIONS, layers=layers))
    path = tmp_path / "run" / "layerlora.safetensors"
    state = load_file(path)
    assert len(state) == 3 * count and all(key.startswith("lora_unet_") for key in state)
    assert state["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"].shape == (96, 2)
    assert state["lora_unet_single_blocks_0_linear1.lora_down.weight"].dtype == torch.float16
    assert state["lora_unet_single_blocks_0_linear2.alpha"] == 2
    contents = read_contents(path)
    assert (contents.part, contents.bases, contents.methods) == (METHOD, ("flux",), ("flux_fg",))
    assert find_method("flux_fg").weights == OPTIONS.name


@pytest.mark.parametrize("layers", ["all", "attention"])
def test_what_is_written_does_what_was_trained(tmp_path, pipeline, layers):
    """The file, read as a host reads it, gives the numbers of the trained layers."""
    options = replace(OPTIONS, layers=layers)
    trainer = TransparentFlow(pipeline, options)
    for layer in trainer.tuned.layers:
        torch.nn.init.normal_(layer.up, std=0.2)
    arguments = torch.randn(1, 16, 4, 4), torch.tensor([0.5]), encode_captions(pipeline, ["red"])
    with torch.no_grad():
        trained = trainer.velocity(*arguments)
        trainer.tuned.remove()
        plain = trainer.velocity(*arguments)
    save_file(trainer.tuned.state(), tmp_path / "own.safetensors")
    modules = dict(pipeline.transformer.named_modules())
    offsets = read_lora(tmp_path / "own.safetensors", parameter_shapes(modules))
    before = {name: modules[name.removesuffix(".weight")].weight.data.clone() for name in offsets.entries}
    for name, entries in offsets.entries.items():
        weight = modules[name.removesuffix(".weight")].weight.data
        for entry in entries:
            weight += entry.dense(tuple(weight.shape))
    with torch.no_grad():
        merged = trainer.velocity(*arguments)
    for name, values in before.items():
        modules[name.removesuffix(".weight")].weight.data.copy_(values)
    assert (trained - plain).abs().max() > 0.05
    torch.testing.assert_close(merged, trained, atol=2e-2 * trained.std().item(), rtol=1e-2)  # float16 in the file


def test_training_lowers_its_loss(tmp_path, pipeline):
    data = some_latents(latents=torch.full((6, 16, 4, 4), 3.0).half())
    train_flow(pipeline, data, short_run(tmp_path / "run", 18, learning_rate=4e-2), OPTIONS)
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert list((tmp_path / "run" / "samples").glob("*.png"))


@pytest.mark.parametrize("rank", [2, 3])
def test_a_run_goes_on_from_a_file(tmp_path, pipeline, rank):
    first = TransparentFlow(pipeline, OPTIONS)
    for layer in first.tuned.layers:
        torch.nn.init.normal_(layer.up, std=0.2)
    path = tmp_path / "first.safetensors"
    save_file(first.tuned.state(), path)
    first.tuned.remove()
    again = TransparentFlow(pipeline, replace(OPTIONS, rank=rank, begin=str(path)))
    for one, two in zip(first.tuned.layers, again.tuned.layers, strict=True):
        torch.testing.assert_close(one.up @ one.down, two.up @ two.down, atol=2e-3, rtol=1e-2)
    save_file({"something.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="something"):
        TransparentFlow(pipeline, replace(OPTIONS, begin=str(path)))


@pytest.mark.parametrize(
    ("changes", "data", "words"),
    [
        ({"mode": "full"}, {}, "--mode full"),
        ({}, {"transparent": False}, "opaque"),
        ({}, {"channels": 4}, "latents"),
        ({}, {"size": (5, 4)}, "even sides"),
        ({}, {"scale_factor": 0.18215}, "scale 0.18215"),
        ({}, {"shift_factor": 0.0}, "shift 0.0"),
    ],
    ids=["full", "opaque", "channels", "size", "scale", "shift"],
)
def test_what_does_not_fit_is_refused_before_training(tmp_path, pipeline, changes, data, words):
    with pytest.raises(InputError, match=words):
        train_flow(pipeline, some_latents(**data), short_run(tmp_path / "run"), replace(OPTIONS, **changes))
    assert not (tmp_path / "run").exists()


def test_schnell_is_told_no_guidance(tmp_path):
    pipeline = flux_pipeline(tmp_path, FluxShape(pooled=32, guided=False))
    train_flow(pipeline, some_latents(), short_run(tmp_path / "run", 1), OPTIONS)
    assert naming_of(pipeline.transformer.state_dict()) == "diffusers"
    assert (tmp_path / "run" / "layerlora.safetensors").is_file()


@ALONE
def test_two_processes_train(tmp_path, made, monkeypatch):
    monkeypatch.chdir(tmp_path)
    some_latents().save(tmp_path / "latents.safetensors")
    made.save_pretrained(tmp_path / "flux")
    command = "train diffusion latents.safetensors --model flux --out run --rank 2 --name layerlora --sample-steps 1"
    command += " --sample-prompts a --batch 2 --log-every 1 --warmup 1 --steps 2 --sample-minutes 99"
    run_two(command.split(), tmp_path)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    assert read_contents(tmp_path / "run" / "layerlora.safetensors").methods == ("flux_fg",)
