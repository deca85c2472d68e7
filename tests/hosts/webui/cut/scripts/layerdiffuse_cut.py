"""For tests: a cut checkpoint (`flux_checkpoint.py`, `sdxl_checkpoint.py`) gets the blocks that its file has.

A block is there where the file has a matrix of it. Forge builds all of them whatever a file holds, those without
weights are empty, and a job fails at the first. Neo counts those of Flux's transformer, and builds all of the rest.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from modules import script_callbacks, sd_models  # noqa: TID251 an extension beside ours, not a part of it

UNET, TRANSFORMERS = "model.diffusion_model.", ".transformer_blocks"
# the place of a list of blocks below its part, and its name in the file
PARTS = {
    "unet": {name: f"model.diffusion_model.{name}" for name in ("double_blocks", "single_blocks")},
    "t5xxl": {"encoder.block": "text_encoders.t5xxl.transformer.encoder.block"},
    "clip_l": {"text_model.encoder.layers": "text_encoders.clip_l.transformer.text_model.encoder.layers"},
}


def shapes_of(path: Path) -> dict[str, list[int]]:
    """Keys and shapes in a file, or of the checkpoint that it was packed from."""
    packed = path.with_suffix(".shapes")
    if packed.exists():
        return json.loads(packed.read_text())
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {key: entry["shape"] for key, entry in header.items() if key != "__metadata__"}


def cut(owner: torch.nn.Module, path: str, name: str, shapes: dict[str, list[int]]) -> None:
    """Keep those blocks of the list at `path` that the file has matrices of below `name`."""
    found = (re.match(rf"{re.escape(name)}\.(\d+)\.", key) for key, shape in shapes.items() if len(shape) == 2)
    kept = {int(match[1]) for match in found if match}
    path, _, last = path.rpartition(".")
    owner = owner.get_submodule(path)
    blocks = [block for place, block in enumerate(getattr(owner, last)) if place in kept]
    setattr(owner, last, torch.nn.ModuleList(blocks))


def cut_flux(parts: Any, shapes: dict[str, list[int]]) -> None:
    """The transformer, and both text models."""
    texts = parts.clip.cond_stage_model
    network = parts.unet.model.diffusion_model
    owners = {"unet": network, "t5xxl": texts.t5xxl.transformer, "clip_l": texts.clip_l.transformer}
    for part, lists in PARTS.items():
        for path, name in lists.items():
            cut(owners[part], path, name, shapes)


def cut_sdxl(network: torch.nn.Module, shapes: dict[str, list[int]]) -> None:
    """The transformers of the UNet."""
    for path in [path for path, _ in network.named_modules() if path.endswith(TRANSFORMERS)]:
        cut(network, path, f"{UNET}{path}", shapes)


def file_of(model: Any) -> Path:
    """The file that a model was loaded from."""
    info = getattr(model, "sd_checkpoint_info", None)
    return Path((info or sd_models.model_data.forge_loading_parameters["checkpoint_info"]).filename)


def on_model_loaded(model: Any) -> None:
    """The WebUI's own event."""
    parts = getattr(model, "forge_objects", None)
    network = None if parts is None else parts.unet.model.diffusion_model
    if hasattr(network, "double_blocks"):
        cut_flux(parts, shapes_of(file_of(model)))
    elif getattr(model, "is_sdxl", False):
        cut_sdxl(network, shapes_of(file_of(model)))


script_callbacks.on_model_loaded(on_model_loaded)
