"""The demo model that ships, as a diffusers pipeline: an LDM checkpoint with yaml and tokenizer, no hub involved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..core.errors import WeightsError
from ..files.demo_folder import CHECKPOINT_NAME, CONFIG_NAME, TOKENIZER_NAME, demo_folder
from ..files.downloads import first_line
from ..unet.ldm_keys import clip_to_transformers, unet_to_diffusers, vae_to_diffusers

REMEDY = "install the package again, or clone the repository again with its large files"


def load_demo(folder: str | Path | None = None, dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """The pipeline of a demo model folder (default: the one that ships), on the CPU, in `dtype`."""
    folder = demo_folder(folder)
    state = read_checkpoint(folder / CHECKPOINT_NAME)
    params = read_config(folder / CONFIG_NAME)
    unet_config = diffusers_unet_config(params["unet_config"]["params"])
    vae_config = diffusers_vae_config(params["first_stage_config"]["params"], params["scale_factor"])
    vae, unet = AutoencoderKL(**vae_config), UNet2DConditionModel(**unet_config)
    text_encoder, tokenizer = read_text_parts(folder / TOKENIZER_NAME)
    _fill(unet, unet_to_diffusers(_part(state, "model.diffusion_model."), unet.config))
    _fill(vae, vae_to_diffusers(_part(state, "first_stage_model."), vae.config))
    text_state = _part(state, "cond_stage_model.transformer.")
    _fill(text_encoder, clip_to_transformers(text_state, text_encoder.state_dict()))
    networks: dict[str, torch.nn.Module] = {"vae": vae, "unet": unet, "text_encoder": text_encoder}
    none: dict[str, Any] = dict.fromkeys(("safety_checker", "feature_extractor"))
    scheduler: Any = demo_scheduler(params)  # diffusers' signature names an enumeration of them
    pipeline = StableDiffusionPipeline(
        **networks, **none, tokenizer=tokenizer, scheduler=scheduler, requires_safety_checker=False
    )
    for module in networks.values():
        module.requires_grad_(False).eval()
        if dtype != torch.float32:
            module.to(dtype)
    return pipeline


def read_text_parts(folder: Path) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """A text model of the folder's shape, not filled yet, and its tokenizer; WeightsError naming the folder."""
    try:
        config = CLIPTextConfig.from_pretrained(str(folder), local_files_only=True)
        return CLIPTextModel(config), CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers raises a dozen types for a folder that is missing or foreign
        raise WeightsError(f"{folder}: {first_line(error)}", "the demo model's tokenizer", REMEDY) from error


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file; WeightsError naming the file when it cannot be read."""
    try:
        return load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: {error}", "the demo model's safetensors file", REMEDY) from error


def read_config(path: Path) -> dict[str, Any]:
    """`model.params` of an LDM yaml. WeightsError for anything else."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["params"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: {error}", "an LDM yaml beside the checkpoint", REMEDY) from error


def demo_scheduler(params: Mapping[str, Any]) -> DDIMScheduler:
    """DDIM with the yaml's noise schedule; trailing steps, so that sampling starts at the noisiest step."""
    return DDIMScheduler(
        num_train_timesteps=params["timesteps"],
        beta_start=params["linear_start"],
        beta_end=params["linear_end"],
        beta_schedule="scaled_linear",
        prediction_type="v_prediction" if params.get("parameterization") == "v" else "epsilon",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def diffusers_unet_config(params: Mapping[str, Any]) -> dict[str, Any]:
    """UNet2DConditionModel's arguments for LDM's UNetModel `params`."""
    channels = [round(params["model_channels"] * factor) for factor in params["channel_mult"]]
    attention = [2**level in params["attention_resolutions"] for level in range(len(channels))]
    return {
        "sample_size": params["image_size"],
        "in_channels": params["in_channels"],
        "out_channels": params["out_channels"],
        "block_out_channels": channels,
        "down_block_types": ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention],
        "up_block_types": ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)],
        "layers_per_block": params["num_res_blocks"],
        # diffusers means the number of heads by this name
        "attention_head_dim": [max(1, width // params["num_head_channels"]) for width in channels],
        "cross_attention_dim": params["context_dim"],
        "transformer_layers_per_block": params["transformer_depth"],
    }


def diffusers_vae_config(params: Mapping[str, Any], scale_factor: float) -> dict[str, Any]:
    """AutoencoderKL's arguments for LDM's autoencoder `params`."""
    detail = params["ddconfig"]
    levels = len(detail["ch_mult"])
    return {
        "in_channels": detail["in_channels"],
        "out_channels": detail["out_ch"],
        "latent_channels": detail["z_channels"],
        "block_out_channels": [detail["ch"] * factor for factor in detail["ch_mult"]],
        "layers_per_block": detail["num_res_blocks"],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "sample_size": detail["resolution"],
        "scaling_factor": scale_factor,
    }


def _part(state: Mapping[str, torch.Tensor], head: str) -> dict[str, torch.Tensor]:
    return {name[len(head) :]: tensor for name, tensor in state.items() if name.startswith(head)}


def _fill(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        summary = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"a demo checkpoint that does not fit: {summary}", "the checkpoint of its yaml", REMEDY
        ) from error
