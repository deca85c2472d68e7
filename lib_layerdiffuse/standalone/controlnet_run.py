"""A ControlNet beside a diffusers UNet for a run: its residuals reach every row that the UNet computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from ..core.picture.edges import edge_maps
from ..unet.images import with_alpha

PASSED_ON = ("encoder_hidden_states", "added_cond_kwargs")  # of a UNet call: what the ControlNet sees too


def control_picture(rgba: np.ndarray, size: tuple[int, int], resize_mode: str, draw_lines: bool) -> torch.Tensor:
    """What a ControlNet sees of an image uint8 [H,W,4], on black or as lines: [1,3,height,width] in [0,1]."""
    seen = with_alpha(rgba, *size, resize_mode)
    return edge_maps(seen).expand(-1, 3, -1, -1) if draw_lines else seen[:, :3] * seen[:, 3:]


@contextmanager
def control_on_unet(
    control: ControlNetModel, unet: UNet2DConditionModel, image: torch.Tensor, strength: float = 1.0
) -> Iterator[None]:
    """Inside, `unet` follows `image` [1 or rows,3,H,W] in [0,1]; guidance doubles the rows, the image with them."""
    image = image.to(unet.device, unet.dtype)

    def before_call(_module: torch.nn.Module, inputs: tuple, named: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        sample = named["sample"] if "sample" in named else inputs[0]
        timestep = named["timestep"] if "timestep" in named else inputs[1]
        seen = {name: named[name] for name in PASSED_ON if named.get(name) is not None}
        if len(inputs) > 2:
            seen["encoder_hidden_states"] = inputs[2]
        rows = image.repeat(len(sample) // len(image), 1, 1, 1)
        down, middle = control(
            sample, timestep, controlnet_cond=rows, conditioning_scale=strength, return_dict=False, **seen
        )
        more = {"down_block_additional_residuals": tuple(down), "mid_block_additional_residual": middle}
        return inputs, {**named, **more}

    handle = unet.register_forward_pre_hook(before_call, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
