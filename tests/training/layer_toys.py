"""Toy sets of layers and a small pipeline with attention at all of its three depths."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import tiny
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from lib_layerdiffuse.training.layers.layer_latents import LayerLatents

SIDE = 64
THINGS, SCENES = ("a red apple", "a green pear", "a bell"), ("a beach", "a street")


def layers_unet(context: int = tiny.CONTEXT) -> UNet2DConditionModel:
    """The demo UNet's layout, narrow, with attention at all levels."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        down_block_types=["CrossAttnDownBlock2D"] * 3,
        up_block_types=["CrossAttnUpBlock2D"] * 3,
        attention_head_dim=(1, 2, 2),
        cross_attention_dim=context,
    )


def layers_pipeline() -> StableDiffusionPipeline:
    """A random pipeline around `layers_unet`, of the demo model's latent space."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        size, tokenizer = tiny.write_tokenizer(Path(folder)), tiny.load_tokenizer(Path(folder))
    pipeline = StableDiffusionPipeline(
        vae=tiny.lively(tiny.vae_model()),
        text_encoder=tiny.lively(tiny.text_model(size)),
        tokenizer=tokenizer,
        unet=tiny.lively(layers_unet()),
        scheduler=DDPMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        part.requires_grad_(False).eval()
    return pipeline


def lent(pipeline: StableDiffusionPipeline) -> Iterator[StableDiffusionPipeline]:
    """A pipeline that tests share: each has torch's chance as at the first, and must take off what it puts on."""
    torch.manual_seed(0)
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    yield pipeline
    for module in pipeline.unet.modules():
        assert "forward" not in module.__dict__ and not module._forward_hooks and not module._forward_pre_hooks
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipeline.unet.state_dict().items())


def toy_layers(sets: int = 10) -> LayerLatents:
    """Sets of which the last two are held out."""
    generator = torch.Generator().manual_seed(0)
    captions = []
    for number in range(sets):
        thing, scene = THINGS[number % 3], SCENES[number % 2]
        captions.append([[thing, thing.removeprefix("a ")], [scene], [f"{thing} on {scene}"]])
    return LayerLatents(
        torch.randn(sets, 3, 4, SIDE // 8, SIDE // 8, generator=generator).half(),
        torch.randint(0, 256, (sets, 7, SIDE, SIDE), dtype=torch.uint8, generator=generator),
        captions,
        [f"set-{number}" for number in range(sets)],
        [number >= sets - 2 for number in range(sets)],
    )
