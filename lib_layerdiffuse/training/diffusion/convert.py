"""From trained diffusers parts to one checkpoint that a WebUI opens: LDM names, fp16 safetensors, a yaml beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from ...core.bases import BASES, LatentSpace
from ...core.errors import InputError
from ...core.files.codec_parts import DECODER, ENCODER
from ...core.files.layer_files import METHOD, metadata_of
from ...core.files.weights import SUFFIX, WeightFile
from ...core.methods import find_method
from ...files.demo_folder import CHECKPOINT_NAME, CONFIG_NAME, TOKENIZER_NAME, TOKENIZER_VARIABLE, VOCABULARY_NAME
from ...files.whole_files import save_tensors
from ...unet.ldm_keys import clip_to_ldm, unet_modules, unet_to_ldm, vae_to_ldm
from ...unet.method_kinds import read_method
from ..codec.codec_files import DECODER_STEM, ENCODER_STEM, find_codec_file
from ..codec.harmlessness import load_codec
from ..pictures.vocabulary import Vocabulary

# a WebUI resolves this when it loads the model: the extension sets the variable; without it the folder is copied there
WEBUI_TOKENIZER = f"${{oc.env:{TOKENIZER_VARIABLE},models/Stable-diffusion/layerdiffuse_demo/tokenizer}}"
BETAS = {"linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}
LDM_GROUPS = 32
LDM_UNET = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
OUR_UNET = "lib_layerdiffuse.webui.unet_widths.build_unet"  # of the extension, which is there before a model is loaded


def export_demo(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer_folder: str | Path,
    unet: UNet2DConditionModel,
    out_folder: str | Path,
) -> Path:
    """Write `demo.safetensors`, `demo.yaml` and `tokenizer/` with the text model's config.json; gives the folder."""
    out = Path(out_folder)
    out.mkdir(parents=True, exist_ok=True)
    save_ldm_checkpoint(vae, text_encoder, unet, out / CHECKPOINT_NAME)
    write_ldm_config(vae, unet, out / CONFIG_NAME)
    tokenizer = out / TOKENIZER_NAME
    if Path(tokenizer_folder).resolve() != tokenizer.resolve():
        shutil.copytree(tokenizer_folder, tokenizer, dirs_exist_ok=True)
    config = text_encoder.config.to_dict()
    config.pop("_name_or_path", None)  # a path of the machine that trained it
    (tokenizer / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return out


def check_transparency(codec_folder: str | Path, offsets: str | Path, vocabulary: str | Path, pipeline: Any) -> None:
    """A typed error unless codec, offsets and vocabulary are what they should be, and made for this pipeline."""
    Vocabulary.load(vocabulary)
    load_codec(codec_folder, pipeline.vae)
    read_method(Path(offsets), unet_modules(pipeline.unet), find_method("demo_fg"))


def export_transparency(
    codec_folder: str | Path, offsets: str | Path, vocabulary: str | Path, out_folder: str | Path
) -> None:
    """Write beside the checkpoint what makes it transparent, under the demo model's names, and the words it knows."""
    out, base, method = Path(out_folder), BASES["demo"], find_method("demo_fg")
    Vocabulary.load(vocabulary)  # what is shipped must load
    sources = {
        base.encoder: find_codec_file(codec_folder, ENCODER_STEM),
        base.decoder: find_codec_file(codec_folder, DECODER_STEM),
        method.weights: Path(offsets),
    }
    space = LatentSpace(base.scale_factor)
    said = [metadata_of(ENCODER, space), metadata_of(DECODER, space), metadata_of(METHOD, space, method.id)]
    for (stem, source), named in zip(sources.items(), said, strict=True):
        save_layer_file(source, out / f"{stem}{SUFFIX}", named)
    shutil.copyfile(vocabulary, out / VOCABULARY_NAME)


def check_layers(files: Mapping[str, str | Path], pipeline: Any) -> None:
    """A typed error unless each file holds the method, given by its id, for this pipeline's UNet."""
    modules = unet_modules(pipeline.unet)
    for method, path in files.items():
        read_method(Path(path), modules, find_method(method))


def export_layers(files: Mapping[str, str | Path], out_folder: str | Path) -> None:
    """Write files of layer methods, by id, beside the checkpoint under the methods' names."""
    space = LatentSpace(BASES["demo"].scale_factor)
    for name, path in files.items():
        method = find_method(name)
        save_layer_file(Path(path), Path(out_folder) / f"{method.weights}{SUFFIX}", metadata_of(METHOD, space, name))


def save_layer_file(source: Path, target: Path, said: Mapping[str, str]) -> None:
    """A layer file in half precision, with what it says of itself; what it said before is kept."""
    with WeightFile(source) as file:
        _save(file.tensors(), target, torch.float16, {"format": "pt", **file.metadata, **said})


def save_ldm_checkpoint(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    path: str | Path,
    dtype: torch.dtype = torch.float16,
) -> None:
    """One safetensors file in LDM names: UNet, autoencoder and CLIP text model, floats stored as `dtype`."""
    parts = {
        "model.diffusion_model.": unet_to_ldm(unet.state_dict(), unet.config),
        "first_stage_model.": vae_to_ldm(vae.state_dict(), vae.config),
        "cond_stage_model.transformer.": clip_to_ldm(text_encoder.state_dict()),
    }
    state = {head + name: tensor for head, part in parts.items() for name, tensor in part.items()}
    _save(state, path, dtype, {"format": "pt"})


def _save(state: Mapping[str, torch.Tensor], path: str | Path, dtype: torch.dtype, metadata: dict[str, str]) -> None:
    """Write `state` with its floats as `dtype`, under its name only when it is whole."""
    save_tensors({name: _stored(tensor, dtype) for name, tensor in state.items()}, path, metadata)


def _stored(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()


def write_ldm_config(vae: AutoencoderKL, unet: UNet2DConditionModel, path: str | Path) -> None:
    """The LDM yaml that lies beside a checkpoint; v-prediction, the autoencoder's own scale factor."""
    params = {
        "parameterization": "v",
        **BETAS,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": unet.config.sample_size or 16,
        "channels": unet.config.in_channels,
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "scale_factor": float(vae.config.scaling_factor),
        "use_ema": False,
        "unet_config": ldm_unet_config(unet.config),
        "first_stage_config": _target("ldm.models.autoencoder.AutoencoderKL", ldm_vae_params(vae.config)),
        "cond_stage_config": _target("ldm.modules.encoders.modules.FrozenCLIPEmbedder", {"version": WEBUI_TOKENIZER}),
    }
    config = {"model": _target("ldm.models.diffusion.ddpm.LatentDiffusion", params)}
    Path(path).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _target(name: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"target": name, "params": params}


def ldm_unet_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """LDM's UNetModel with its arguments; our function in its place where whole multiples of a width do not do."""
    params = ldm_unet_params(config)
    whole = all(isinstance(factor, int) for factor in params["channel_mult"])
    return _target(LDM_UNET if whole else OUR_UNET, params)


def ldm_unet_params(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of LDM's UNetModel for a UNet2DConditionModel's `config`; InputError where LDM has no such shape."""
    channels = list(config["block_out_channels"])
    heads = config["num_attention_heads"] or config["attention_head_dim"]
    heads = [heads] * len(channels) if isinstance(heads, int) else list(heads)
    attention = [level for level, kind in enumerate(config["down_block_types"]) if "Attn" in kind]
    widths = {channels[level] // heads[level] for level in attention}
    if len(widths) != 1 or config["norm_num_groups"] != LDM_GROUPS or config["use_linear_projection"]:
        raise InputError(
            f"a UNet with head widths {sorted(widths)}, {config['norm_num_groups']} groups",
            f"one head width at all levels, {LDM_GROUPS} groups and convolutions as projections",
            "build the UNet in that shape: a WebUI's loader knows no other",
        )
    return {
        "image_size": config["sample_size"] or 16,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": channels[0],
        "attention_resolutions": [2**level for level in attention],
        "num_res_blocks": config["layers_per_block"],
        "channel_mult": [width / channels[0] if width % channels[0] else width // channels[0] for width in channels],
        "num_head_channels": widths.pop(),
        "use_spatial_transformer": True,
        "transformer_depth": config["transformer_layers_per_block"],
        "context_dim": config["cross_attention_dim"],
        "use_checkpoint": False,
        "legacy": False,
    }


def ldm_vae_params(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of LDM's AutoencoderKL for diffusers' `config`."""
    channels = list(config["block_out_channels"])
    detail = {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": channels[0],
        "ch_mult": [width // channels[0] for width in channels],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return {
        "embed_dim": config["latent_channels"],
        "monitor": "val/rec_loss",
        "ddconfig": detail,
        "lossconfig": {"target": "torch.nn.Identity"},
    }
