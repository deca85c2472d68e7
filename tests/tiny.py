"""Tiny random models of the real layouts, for tests: the demo folder, and SD1.5- and SDXL-shaped pipelines."""

from __future__ import annotations

import functools
import json
import math
import string
import tempfile
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lib_layerdiffuse.core.codec.decoder import TransparencyUNet
from lib_layerdiffuse.core.codec.encoder import OffsetEncoder
from lib_layerdiffuse.core.files.layouts import SharingShape, sharing_layout
from lib_layerdiffuse.core.methods import ATTENTION_SHARING, methods_for
from lib_layerdiffuse.standalone.controlnet_files import write_controlnet as save_controlnet
from lib_layerdiffuse.training.diffusion.convert import export_demo
from lib_layerdiffuse.unet.ldm_keys import unet_to_ldm

CONCEPTS = ["red apple", "green apple", "banana", "soap bubbles"]
SCENES = ["beach", "meadow"]
CONTEXT = 32
SD15_WIDTHS = (32, 32, 64, 64)
DEMO_WIDTHS = (64,) * 7  # of the blocks of `demo_unet` that have attention
DEMO_ENCODER = ((8, 8, 8, 8, 16, 16, 16, 16), (16, 16), (16, 16))


def write_tokenizer(folder: Path) -> int:
    """CLIP tokenizer files with letters only and no merges; returns the vocabulary's size."""
    letters = string.ascii_lowercase + string.digits + ",.'-"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": tokens[-2], "eos_token": tokens[-1], "unk_token": tokens[-1], "pad_token": tokens[-1]}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(tokens)


def text_model(vocabulary: int, width: int = CONTEXT, kind=CLIPTextModel, **more):
    """A CLIP text model of one layer."""
    return kind(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=more.pop("layers", 1),
            num_attention_heads=2,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
            **more,
        )
    )


def vae_model(scaling_factor: float = 1.0, blocks: int = 0) -> AutoencoderKL:
    """An autoencoder of factor 8 and equal widths."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[32] * 4,
        layers_per_block=blocks,
        latent_channels=4,
        sample_size=64,
        scaling_factor=scaling_factor,
    )


def demo_unet() -> UNet2DConditionModel:
    """The demo UNet's layout at half its width."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(1, 2, 2),
        cross_attention_dim=CONTEXT,
    )


def lively(module: torch.nn.Module, scale: float = 1.0) -> torch.nn.Module:
    """`module` with zero-initialised weights made random, so that every part matters in a comparison."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1 * scale)
    return module


def write_codec(folder: Path, prefix: str = "") -> None:
    """A transparency encoder and decoder of the small shape."""
    encoder = lively(OffsetEncoder(widths=(8, 8, 16, 16)))
    decoder = lively(TransparencyUNet(channels=(8, 8, 16, 16), latent_level=3, attention_levels=1))
    save_file(dict(encoder.state_dict()), str(folder / f"{prefix}vae_transparent_encoder.safetensors"))
    save_file(dict(decoder.state_dict()), str(folder / f"{prefix}vae_transparent_decoder.safetensors"))


def write_offsets(folder: Path, unet: UNet2DConditionModel, stem: str, size: float = 0.1) -> None:
    """An offset file with a difference of every parameter of `unet`."""
    state = unet_to_ldm(unet.state_dict(), unet.config)
    diffs = {f"diffusion_model.{key}::diff::0": size * torch.randn_like(tensor) for key, tensor in state.items()}
    save_file(diffs, str(folder / f"{stem}.safetensors"))


def write_demo_folder(folder: Path, seed: int = 0) -> Path:
    """A whole demo model folder with random weights: checkpoint, yaml, tokenizer, layer files, vocabulary."""
    files, after = demo_files(seed)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    torch.set_rng_state(after)
    return folder


@functools.cache
def demo_files(seed: int) -> tuple[dict[str, bytes], torch.Tensor]:
    """Content by name of a demo folder, which is made once, and how torch's chance stands thereafter."""
    with tempfile.TemporaryDirectory() as place:
        folder = make_demo_folder(Path(place), seed)
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return files, torch.get_rng_state()


def make_demo_folder(folder: Path, seed: int) -> Path:
    """`write_demo_folder`, from the networks on."""
    torch.manual_seed(seed)
    size = write_tokenizer(folder / "tokenizer")
    unet = lively(demo_unet())
    export_demo(lively(vae_model()), lively(text_model(size)), folder / "tokenizer", unet, folder)
    write_codec(folder, "demo_")
    write_offsets(folder, unet, "layer_demo_transparent")
    write_demo_sharing(folder)
    return write_vocabulary(folder)


def write_vocabulary(folder: Path) -> Path:
    """The file of the words that a demo model knows, in its folder."""
    entries = [{"concept": concept, "also": [concept.split()[-1]]} for concept in CONCEPTS]
    scenes = [{"scene": name, "captions": [f"a {name}"], "phrases": [f"on a {name}"]} for name in SCENES]
    (folder / "vocabulary.json").write_text(json.dumps({"concepts": entries, "scenes": scenes}))
    return folder


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer that `write_tokenizer` wrote."""
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def sd15_unet(context: int = CONTEXT) -> UNet2DConditionModel:
    """SD1.5's block layout, narrow: the 32 attention layers that the published units belong to."""
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=SD15_WIDTHS, attention_head_dim=2, cross_attention_dim=context
    )


def sdxl_unet() -> UNet2DConditionModel:
    """SDXL's block layout, narrow and shallow."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 2, 2),
        cross_attention_dim=2 * CONTEXT,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + CONTEXT,
    )


def sd15_pipeline(folder: Path, context: int = CONTEXT, vae_blocks: int = 0) -> StableDiffusionPipeline:
    """A random pipeline of SD1.5's layout; `folder` takes the tokenizer."""
    size = write_tokenizer(folder / "tokenizer")
    return StableDiffusionPipeline(
        vae=lively(vae_model(0.18215, vae_blocks)),
        text_encoder=lively(text_model(size, context)),
        tokenizer=load_tokenizer(folder / "tokenizer"),
        unet=lively(sd15_unet(context)),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_pipeline(folder: Path) -> StableDiffusionXLPipeline:
    """A random pipeline of SDXL's layout."""
    size = write_tokenizer(folder / "tokenizer")
    return StableDiffusionXLPipeline(
        vae=lively(vae_model(0.13025)),
        text_encoder=lively(text_model(size, layers=2)),
        text_encoder_2=lively(text_model(size, layers=2, kind=CLIPTextModelWithProjection, projection_dim=CONTEXT)),
        tokenizer=load_tokenizer(folder / "tokenizer"),
        tokenizer_2=load_tokenizer(folder / "tokenizer"),
        unet=lively(sdxl_unet()),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
        ),
    )


def write_sdxl_folder(folder: Path, seed: int = 0) -> StableDiffusionXLPipeline:
    """A random pipeline of SDXL's layout, with files of all its methods and of its codec in `folder`."""
    torch.manual_seed(seed)
    pipeline = sdxl_pipeline(folder)
    for method in methods_for("sdxl"):
        if method.concat:
            write_wide_offsets(folder, pipeline.unet, method.weights, len(method.concat))
        else:
            write_offsets(folder, pipeline.unet, method.weights)
    write_codec(folder)
    return pipeline


def write_sharing(folder: Path, stem: str, frames: int, control: bool = False) -> None:
    """A file of attention sharing units for `sd15_unet`."""
    first, second, third, middle = SD15_WIDTHS
    widths = (first,) * 2 + (second,) * 2 + (third,) * 5 + (second,) * 3 + (first,) * 3 + (middle,)
    write_units(folder, stem, SharingShape(frames, widths, context=CONTEXT, rank=4, control=control))


def write_demo_sharing(folder: Path) -> None:
    """Files of attention sharing units for `demo_unet`, for each of the demo model's methods that has some."""
    for method in methods_for("demo"):
        if method.kind == ATTENTION_SHARING:
            shape = SharingShape(len(method.frames), DEMO_WIDTHS, CONTEXT, 4, bool(method.control), DEMO_ENCODER)
            write_units(folder, method.weights, shape)


def write_units(folder: Path, stem: str, shape: SharingShape) -> None:
    """A file of attention sharing units of this shape."""
    noise = torch.randn(600_000, dtype=torch.float32).mul(0.1).half()  # one buffer: the control convolutions are large
    state = {
        key: noise[place % 1000 :][: math.prod(size)].reshape(size).clone()
        for place, (key, size) in enumerate(sharing_layout(shape).items())
    }
    save_file(state, str(folder / f"{stem}.safetensors"))


def write_wide_offsets(folder: Path, unet: UNet2DConditionModel, stem: str, images: int) -> None:
    """Offsets of a conditioned method: the input convolution's also holds weights for `images` latents."""
    bias, weight = unet.conv_in.bias, unet.conv_in.weight
    diffs = {
        "diffusion_model.input_blocks.0.0.weight::diff::0": 0.1
        * torch.randn(len(weight), 4 + 4 * images, *weight.shape[2:]),
        "diffusion_model.input_blocks.0.0.bias::diff::0": 0.1 * torch.randn_like(bias),
    }
    save_file(diffs, str(folder / f"{stem}.safetensors"))


def write_controlnet(folder: Path, unet: UNet2DConditionModel, stem: str = "control") -> Path:
    """A random ControlNet's file for `unet`, in LDM's layout."""
    torch.manual_seed(1)
    path = folder / f"{stem}.safetensors"
    save_controlnet(lively(ControlNetModel.from_unet(unet), 2.0), path, torch.float32)
    return path
