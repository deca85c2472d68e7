"""For tests: a cut Flux checkpoint (`flux_checkpoint.py`) gets as many blocks as its file has matrices for.

Forge builds all of them whatever a file holds, those without weights are empty, and a job fails at the first. Neo
counts those of the transformer, and builds all of the text models.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from modules import script_callbacks, sd_models  # noqa: TID251 an extension beside ours, not a part of it

# the place of a list of blocks below its part, and its name in the file
PARTS = {
    "unet": {name: f"model.diffusion_model.{name}" for name in ("double_blocks", "single_blocks")},
    "t5xxl": {"encoder.block": "text_encoders.t5xxl.transformer.encoder.block"},
    "clip_l": {"text_model.encoder.layers": "text_encoders.clip_l.transformer.text_model.encoder.layers"},
}


def shapes_of(path: Path) -> dict[str, list[int]]:
    """Keys and shapes in a file."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {key: entry["shape"] for key, entry in header.items() if key != "__metadata__"}


def cut(owner: torch.nn.Module, path: str, kept: set[int]) -> None:
    """Keep these blocks of a list."""
    path, _, name = path.rpartition(".")
    owner = owner.get_submodule(path)
    blocks = [block for place, block in enumerate(getattr(owner, name)) if place in kept]
    setattr(owner, name, torch.nn.ModuleList(blocks))


def on_model_loaded(model: Any) -> None:
    """The WebUI's own event."""
    parts = getattr(model, "forge_objects", None)
    network = None if parts is None else parts.unet.model.diffusion_model
    if network is None or not hasattr(network, "double_blocks"):
        return
    shapes = shapes_of(Path(sd_models.model_data.forge_loading_parameters["checkpoint_info"].filename))
    texts = parts.clip.cond_stage_model
    owners = {"unet": network, "t5xxl": texts.t5xxl.transformer, "clip_l": texts.clip_l.transformer}
    for part, lists in PARTS.items():
        for path, name in lists.items():
            found = (re.match(rf"{re.escape(name)}\.(\d+)\.", key) for key, shape in shapes.items() if len(shape) == 2)
            cut(owners[part], path, {int(match[1]) for match in found if match})


script_callbacks.on_model_loaded(on_model_loaded)
