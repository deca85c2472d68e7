"""A small FluxPipeline of diffusers' own classes, as a folder and as files, with random weights."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from tiny import lively, load_tokenizer, text_model, write_tokenizer
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

from fakes.flux import FluxShape, flux_state
from lib_layerdiffuse.core.files.flux_names import DIFFUSERS, renamed

SCALE, SHIFT = 0.3611, 0.1159
SHAPE = FluxShape(pooled=32)


def flux_vae() -> AutoencoderKL:
    """An autoencoder of factor 8 and 16 channels, without quantising convolutions."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[32] * 4,
        layers_per_block=1,
        latent_channels=16,
        sample_size=64,
        scaling_factor=SCALE,
        shift_factor=SHIFT,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=True,
    )


def write_t5_tokenizer(folder: Path) -> int:
    """Files of a T5 tokenizer with letters only; returns the vocabulary's size."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((letter, -3.0) for letter in string.ascii_lowercase)]
    tokenizer = T5TokenizerFast(tokenizer_object=Tokenizer(Unigram(pieces, 2)), extra_ids=0)
    tokenizer.save_pretrained(str(folder))
    return len(pieces)


def flux_transformer(shape: FluxShape = SHAPE, stem: str = "flux_tiny") -> FluxTransformer2DModel:
    """diffusers' transformer with made-up weights."""
    transformer = FluxTransformer2DModel(**shape.diffusers)
    transformer.load_state_dict(renamed(flux_state(stem, shape), DIFFUSERS))
    return transformer.eval().requires_grad_(False)


def flux_pipeline(folder: Path, shape: FluxShape = SHAPE) -> FluxPipeline:
    """A pipeline; `folder` takes the tokenizers."""
    torch.manual_seed(0)
    size, second = write_tokenizer(folder / "clip"), write_t5_tokenizer(folder / "t5")
    t5 = T5Config(vocab_size=second, d_model=shape.context, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15),
        vae=lively(flux_vae()),
        text_encoder=lively(text_model(size, shape.pooled)),
        tokenizer=load_tokenizer(folder / "clip"),
        text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=T5TokenizerFast.from_pretrained(str(folder / "t5")),
        transformer=flux_transformer(shape),
    )
