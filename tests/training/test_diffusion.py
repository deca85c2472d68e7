"""Latents and the two diffusion trainers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.files.weights import read_header
from lib_layerdiffuse.core.offsets.install import merge_offsets
from lib_layerdiffuse.core.offsets.offsets import read_offsets
from lib_layerdiffuse.training.codec.codec import build_codec, latent_statistics
from lib_layerdiffuse.training.diffusion.diffusion import (
    CaptionedLatents,
    DiffusionOptions,
    TransparentUNet,
    UNetShape,
    build_pipeline,
    encode_captions,
    started_pipeline,
    train_diffusion,
    train_text2image,
)
from lib_layerdiffuse.training.diffusion.latents import LatentSet, encode_views
from lib_layerdiffuse.training.diffusion.text import build_tokenizer
from lib_layerdiffuse.training.pictures.captions import caption_variants
from lib_layerdiffuse.unet.ldm_keys import unet_modules

from .toys import CODEC, short_run, toy_set, toy_vae

OPTIONS = DiffusionOptions(sample_steps=2, sample_prompts=("a", "b"), rank=2, average=0.5)
SHAPE = UNetShape((32, 32), 1, 16, 32)


@pytest.fixture
def made():
    """VAE, set and captions at toy size."""
    data = toy_set(4)
    return toy_vae(), data, [caption_variants(caption) for caption in data.captions]


def adjusted_latents(made) -> LatentSet:
    vae, data, captions = made
    codec = build_codec(vae, latent_statistics(vae, data), CODEC)
    return encode_views(vae, data, captions, 2, codec)


def random_latents(size: int = 8, scale: float = 1.0) -> LatentSet:
    latents = torch.randn(6, 4, size, size, generator=torch.Generator().manual_seed(0)).half()
    return LatentSet(latents, torch.arange(6) % 2, [["red apple"], ["banana"]], scale, True, (8 * size, 8 * size))


def test_views_are_random_repeatable_and_the_same_for_both_kinds(made):
    vae, data, captions = made
    data.rgba[:, 3] = 255
    opaque = encode_views(vae, data, captions, 3)
    again = encode_views(vae, data, captions, 3)
    assert len(opaque) == 12 and opaque.latents.shape[1:] == (4, 8, 8)
    assert torch.equal(opaque.latents, again.latents)
    assert not torch.equal(opaque.latents[:4], opaque.latents[4:8])
    # an untrained encoder adds nothing: where a view shows no background, both kinds are the same latent
    adjusted = adjusted_latents(made)
    centre = (opaque.latents[:8] - adjusted.latents)[:, :, 3:5, 3:5]
    assert centre.abs().mean() < 0.5 * opaque.latents.float().std()


def test_latents_survive_their_file(made, tmp_path):
    latents = adjusted_latents(made)
    latents.save(tmp_path / "latents.safetensors")
    loaded = LatentSet.load(tmp_path / "latents.safetensors")
    assert torch.equal(loaded.latents, latents.latents) and torch.equal(loaded.image, latents.image)
    assert replace(loaded, latents=None, image=None) == replace(latents, latents=None, image=None)
    (tmp_path / "other.safetensors").write_bytes(b"something else")
    with pytest.raises(InputError, match="train latents"):
        LatentSet.load(tmp_path / "other.safetensors")


def test_batches_have_the_samplers_scale_and_lose_some_captions():
    data = random_latents(scale=0.5)
    latent, captions = CaptionedLatents(data, 0.5).draw(200, torch.Generator().manual_seed(0))
    assert latent.std() == pytest.approx(0.5, rel=0.1)
    assert 70 < captions.count("") < 130
    assert set(captions) == {"", "red apple", "banana"}


def test_text2image_trains_resumes_and_loads_as_a_pipeline(made, tmp_path):
    vae, data, captions = made
    latents = encode_views(vae, data, captions, 1)
    tokenizer = build_tokenizer([text for texts in captions for text in texts], tmp_path / "tokenizer", 20)
    for steps in (2, 4):
        pipeline = build_pipeline(vae, tokenizer, latents, SHAPE)
        train_text2image(pipeline, latents, short_run(tmp_path / "run", steps), OPTIONS)
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["step", "1", "2", "3", "4"]
    assert (tmp_path / "run" / "samples" / "step-000004.png").exists()
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    assert loaded.scheduler.config.prediction_type == "v_prediction"
    assert (tmp_path / "run" / "pipeline" / "tokenizer" / "merges.txt").exists()
    # what is written is the average, not the last step
    assert not torch.equal(loaded.unet.conv_in.weight, pipeline.unet.conv_in.weight)


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_offsets_are_what_was_tuned(tmp_path, mode):
    torch.manual_seed(0)
    pipeline = tiny.sd15_pipeline(tmp_path)
    pipeline.scheduler = DDPMScheduler(beta_schedule="scaled_linear")
    base = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    options = replace(OPTIONS, mode=mode, average=0.0, sample_prompts=("a",))
    train_diffusion(pipeline, random_latents(scale=0.18215), short_run(tmp_path / "run", 3), options)
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 7, tiny.CONTEXT)
    tuned = pipeline.unet(*inputs).sample.detach()

    fresh = tiny.sd15_unet()
    fresh.load_state_dict(base)
    plain = fresh(*inputs).sample.detach()
    with merge_offsets(read_offsets(tmp_path / "run" / "layer_transparent.safetensors"), unet_modules(fresh)):
        merged = fresh(*inputs).sample.detach()
    assert (tuned - plain).abs().max() > 1e-3
    assert (merged - tuned).abs().max() < 0.05 * (tuned - plain).abs().max()
    metadata, _ = read_header(tmp_path / "run" / "layer_transparent.safetensors")
    assert metadata["layerdiffuse_part"] == "method" and metadata["layerdiffuse_scale_factor"] == "0.18215"


def test_sdxl_gets_its_pooled_text_and_sizes(tmp_path):
    pipeline = tiny.sdxl_pipeline(tmp_path)
    condition = encode_captions(pipeline, ["red apple", ""], (64, 96))
    assert condition["added_cond_kwargs"]["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]] * 2
    output = pipeline.unet(torch.randn(2, 4, 8, 8), torch.tensor([5, 9]), **condition).sample
    assert output.shape == (2, 4, 8, 8)


def test_what_does_not_fit_is_refused_before_training(made, tmp_path):
    pipeline = tiny.sd15_pipeline(tmp_path)
    good, run = random_latents(), short_run(tmp_path / "run")
    wrong = [
        (replace(good, transparent=False), OPTIONS, "adjusted latents"),
        (replace(good, latents=torch.zeros(2, 16, 8, 8).half()), OPTIONS, "16 channels"),
    ]
    for data, options, words in wrong:
        with pytest.raises(InputError, match=words):
            train_diffusion(pipeline, data, run, options)
    with pytest.raises(InputError, match="--mode"):
        replace(OPTIONS, mode="half")
    with pytest.raises(InputError, match="channels"):
        build_pipeline(toy_vae(latent_channels=3), pipeline.tokenizer, good, SHAPE)
    assert not (tmp_path / "run").exists()


def test_low_rank_layers_go_on_from_a_file(tmp_path):
    pipeline = tiny.sd15_pipeline(tmp_path)
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 7, tiny.CONTEXT)
    options = replace(OPTIONS, average=0.0, sample_prompts=("a",))
    train_diffusion(pipeline, random_latents(scale=0.18215), short_run(tmp_path / "run", 3), options)
    tuned = pipeline.unet(*inputs).sample.detach()
    fresh = tiny.sd15_pipeline(tmp_path)
    fresh.unet.load_state_dict(pipeline.unet.state_dict())
    plain = fresh.unet(*inputs).sample.detach()
    TransparentUNet(fresh, replace(options, begin=str(tmp_path / "run" / "layer_transparent.safetensors")))
    begun = fresh.unet(*inputs).sample.detach()
    assert (begun - tuned).abs().max() < 0.05 * (tuned - plain).abs().max()
    with pytest.raises(InputError, match="--mode lora"):
        replace(options, mode="full", begin="x.safetensors")


def test_text2image_goes_on_from_a_model(made, tmp_path):
    vae, data, captions = made
    latents = encode_views(vae, data, captions, 1)
    tokenizer = build_tokenizer([text for texts in captions for text in texts], tmp_path / "tokenizer", 20)
    pipeline = build_pipeline(vae, tokenizer, latents, SHAPE)
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    train_text2image(started_pipeline(pipeline, vae, latents), latents, short_run(tmp_path / "run", 1), OPTIONS)
    moved = [(tensor - before[name]).abs().max().item() for name, tensor in pipeline.unet.state_dict().items()]
    assert 0 < max(moved) < 0.02
    with pytest.raises(InputError, match="for 4"):
        started_pipeline(pipeline, vae, replace(latents, latents=torch.zeros(2, 16, 8, 8)))
