"""The models that are tuned or measured: a pipeline's folder, the shipped model's folder, or one checkpoint file."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiffusionPipeline

from ...core.errors import WeightsError
from ...files.checkpoints import checkpoint_shapes, recognise_base
from ...files.demo_folder import CONFIG_NAME
from ...standalone.demo import load_demo
from ...standalone.loading import load_checkpoint
from ...standalone.settings import ModelSettings
from ..codec.codec import Codec
from ..codec.harmlessness import load_codec
from ..codec.vae import load_vae


def load_pipeline(path: str | Path, config: str | None = None) -> DiffusionPipeline:
    """A float32 diffusers pipeline from a folder or a checkpoint file (`config`: its folder in diffusers' layout).

    WeightsError for anything else.
    """
    path = Path(path)
    if (path / CONFIG_NAME).is_file():
        return load_demo(path)
    if path.is_file():
        base = recognise_base(checkpoint_shapes(path), path)
        settings = ModelSettings(checkpoint=str(path), config=config, offline=True)
        return load_demo(path.parent) if base == "demo" else load_checkpoint(path, base, settings, torch.float32)
    try:
        if not (path / "model_index.json").is_file():
            raise OSError("no model_index.json")
        return DiffusionPipeline.from_pretrained(str(path), local_files_only=True)
    except Exception as error:  # diffusers and transformers raise a dozen types for a foreign or truncated folder
        raise WeightsError(
            got=f"{path}: {error}",
            expected="a pipeline's folder in diffusers' layout, a demo model's folder, or a checkpoint file",
            what_to_do="check the path",
        ) from error


def model_to_tune(arguments: argparse.Namespace) -> tuple[DiffusionPipeline, Codec | None]:
    """The pipeline that a command names, and the codec by which its samples are shown, where it names one."""
    pipeline = load_pipeline(arguments.model, arguments.config)
    return pipeline, load_codec(arguments.codec, pipeline.vae) if arguments.codec else None


def open_vae(path: str | Path, config: str | None = None) -> AutoencoderKL:
    """The frozen VAE of whatever `load_pipeline` reads, or of a VAE's own folder."""
    path = Path(path)
    alone = path.is_dir() and not (path / CONFIG_NAME).is_file()
    vae = load_vae(path) if alone else load_pipeline(path, config).vae
    return vae.requires_grad_(False).eval()
