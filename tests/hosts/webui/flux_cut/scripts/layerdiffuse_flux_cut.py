"""For tests: a cut Flux checkpoint (`flux_checkpoint.py`) gets as many blocks as it has weights for.

Forge builds all of them whatever a file holds, those without weights are empty, and a job fails at the first.
"""

from __future__ import annotations

from typing import Any

import torch
from modules import script_callbacks  # noqa: TID251 an extension beside ours, not a part of it

PARTS = (("double_blocks", "single_blocks"), ("encoder.block",), ("text_model.encoder.layers",))


def cut(owner: torch.nn.Module, path: str) -> None:
    """Keep the blocks of a list that have weights."""
    path, _, name = path.rpartition(".")
    owner = owner.get_submodule(path)
    kept = [block for block in getattr(owner, name) if all(map(has_weights, block.modules()))]
    setattr(owner, name, torch.nn.ModuleList(kept))


def has_weights(module: torch.nn.Module) -> bool:
    """Whether a layer is not empty."""
    return not hasattr(module, "in_features") or module.weight is not None


def on_model_loaded(model: Any) -> None:
    """The WebUI's own event."""
    parts = getattr(model, "forge_objects", None)
    network = None if parts is None else parts.unet.model.diffusion_model
    if network is None or not hasattr(network, "double_blocks"):
        return
    texts = parts.clip.cond_stage_model
    for owner, paths in zip((network, texts.t5xxl.transformer, texts.clip_l.transformer), PARTS, strict=True):
        for path in paths:
            cut(owner, path)


script_callbacks.on_model_loaded(on_model_loaded)
