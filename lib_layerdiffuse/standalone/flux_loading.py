"""Flux from disk: a folder in diffusers' layout, or one file of the transformer and such a folder for the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..core.errors import BaseMismatchError, InputError, WeightsError
from ..core.files.flux_names import BFL, DIFFUSERS, find_layer, naming_of, renamed
from ..files.checkpoints import ADVICE, prefix_of

INDEX = "model_index.json"  # of a folder in diffusers' layout
PIPELINE = "FluxPipeline"
REPOSITORY = "black-forest-labs/FLUX.1-dev"  # whose configuration, text encoders and VAE are used where none are named
HEAD, AXES = 128, (16, 56, 56)  # of Flux.1


def is_folder(path: Path) -> bool:
    """Whether this is a folder in diffusers' layout."""
    return (path / INDEX).is_file()


def check_folder(path: Path) -> None:
    """BaseMismatchError unless the folder holds a pipeline of Flux.1. WeightsError where that cannot be read."""
    try:
        kind = json.loads((path / INDEX).read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path / INDEX}, which cannot be read", "a folder in diffusers' layout", ADVICE) from error
    if kind != PIPELINE:
        raise BaseMismatchError(
            f"{path}, a folder of a {kind}",
            f"a folder of a {PIPELINE} (SD1.5 and SDXL as single files)",
            "name a checkpoint file, or a folder of Flux.1",
        )


def load_flux(path: Path, config: Path | None, local: bool, dtype: torch.dtype) -> Any:
    """A FluxPipeline from a folder, or from a transformer's file and the folder `config` or the hub's repository."""
    import diffusers

    options: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": local}
    if is_folder(path):
        return diffusers.FluxPipeline.from_pretrained(str(path), **options)
    rest = REPOSITORY if config is None else str(config)
    transformer = read_transformer(path, config, dtype)
    return diffusers.FluxPipeline.from_pretrained(rest, transformer=transformer, **options)


def read_transformer(path: Path, config: Path | None, dtype: torch.dtype) -> Any:
    """The transformer of a file, in either naming; its shape from the file, what that does not say from a folder.

    WeightsError for a part of one.
    """
    import diffusers

    with safe_open(str(path), framework="pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        prefix = prefix_of(shapes) or ""
        # what else a file may hold, a VAE and text encoders, comes from the folder
        names = [name for name in shapes if name.startswith(prefix) and find_layer(_path(name, prefix)) is not None]
        state = {name.removeprefix(prefix): file.get_tensor(name).to(dtype) for name in names}
    with torch.device("meta"):
        network = diffusers.FluxTransformer2DModel(**shape_of(state, config))
    own = state if naming_of(state) == DIFFUSERS else renamed(state, DIFFUSERS)
    missing = [name for name in network.state_dict() if name not in own]
    if missing or len(own) != len(network.state_dict()):
        what = f"without {missing[0]} and {len(missing) - 1} more" if missing else "with parameters of something else"
        raise WeightsError(f"{path} {what}", "a whole transformer of Flux.1", "get the file again")
    network.load_state_dict(own, assign=True)
    return network.eval().requires_grad_(False)


def _path(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).rpartition(".")[0]


def shape_of(state: Mapping[str, torch.Tensor], config: Path | None) -> dict[str, Any]:
    """Configuration of diffusers' transformer for these tensors."""
    own = {name: tuple(tensor.shape) for name, tensor in state.items()}
    bfl = naming_of(own) == BFL
    tokens, context, vectors, norm = _names(bfl)
    width, inside = own[tokens]
    head = own[norm][0]
    return {
        "patch_size": 1,
        "in_channels": inside,
        "num_layers": _count(own, "double_blocks." if bfl else "transformer_blocks."),
        "num_single_layers": _count(own, "single_blocks." if bfl else "single_transformer_blocks."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": own[context][1],
        "pooled_projection_dim": own[vectors][1],
        "guidance_embeds": any(name.startswith(GUIDANCE) for name in own),
        "axes_dims_rope": AXES if head == HEAD else _axes(config),
    }


GUIDANCE = ("guidance_in.", "time_text_embed.guidance_embedder.")


def _names(bfl: bool) -> tuple[str, str, str, str]:
    if bfl:
        norm = "double_blocks.0.img_attn.norm.query_norm.scale"
        return "img_in.weight", "txt_in.weight", "vector_in.in_layer.weight", norm
    vectors = "time_text_embed.text_embedder.linear_1.weight"
    return "x_embedder.weight", "context_embedder.weight", vectors, "transformer_blocks.0.attn.norm_q.weight"


def _count(names: Mapping[str, Any], start: str) -> int:
    return len({name.split(".")[1] for name in names if name.startswith(start)})


def _axes(config: Path | None) -> tuple[int, ...]:
    """Of a small transformer: how the places of a head are shared out, which no tensor says."""
    try:
        told = json.loads((Path(config or "") / "transformer" / "config.json").read_text(encoding="utf-8"))
        return tuple(told["axes_dims_rope"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "a transformer of another head size than Flux.1's",
            f"heads of {HEAD}, or its configuration",
            "name --config",
        ) from error
