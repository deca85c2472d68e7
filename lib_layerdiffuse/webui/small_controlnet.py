"""ControlNets for small UNets in sd-webui-controlnet, which knows the shapes of SD1.5 and SDXL alone.

Its networks are built from a fixed configuration, and their results counted from the front of a list of SD1.5's 13.
A file of another width is built by its own shapes here, and its results are put at the end of that list, where the deep
ones are looked for. Files of the usual shapes pass untouched.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from .host.modules import host_module
from .unet_widths import factors
from .wrapping import unwrap, wrap

MODULE, NAME = "scripts.controlnet_model_guess", "PlugableControlModel"
PLACES = 13  # results of a ControlNet of SD1.5's shape
FIRST, DOWN = "input_blocks.0.0.weight", "input_blocks.{}.0.op.weight"
RESIDUAL = "input_blocks.{}.0.in_layers.2.weight"
State = Mapping[str, torch.Tensor]


def install() -> None:
    """After all extensions were loaded: let sd-webui-controlnet, where it is there, build small networks too."""
    module = sys.modules.get(MODULE)
    if hasattr(module, NAME):
        wrap(module, NAME, built)


def remove() -> None:
    """Give the extension its own class back."""
    if MODULE in sys.modules:
        unwrap(sys.modules[MODULE], NAME)


def built(original: Callable[..., Any], config: dict, state_dict: State | None = None) -> Any:
    """The extension's network of a configuration and a file's tensors, by the file's shapes where it is a small one."""
    if state_dict is None or not is_small(config, state_dict):
        return original(config, state_dict)
    network = original({**config, **shapes_in(state_dict), **heads_of(loaded_unet())}, state_dict)
    own = network.forward

    def at_the_end(*inputs: Any, **named: Any) -> list[torch.Tensor]:
        results = own(*inputs, **named)
        nothing = results[0].new_zeros(len(results[0]), 1, 1, 1)
        return [nothing] * (PLACES - len(results)) + list(results)

    network.forward = at_the_end
    return network


def is_small(config: Mapping[str, Any], state: State) -> bool:
    """Whether a file has another width than the configuration that was chosen for it."""
    return FIRST in state and state[FIRST].shape[0] < config.get("model_channels", 0)


def shapes_in(state: State) -> dict[str, Any]:
    """What the names and shapes of a ControlNet's tensors (no prefix) say of its configuration."""
    width = state[FIRST].shape[0]
    levels: list[list[int]] = [[]]  # channels of the residual blocks
    depths: list[int] = [0]
    place = 1
    while (key := RESIDUAL.format(place)) in state or DOWN.format(place) in state:
        if key in state:
            levels[-1].append(state[key].shape[0])
            depths[-1] = max(depths[-1], layers_in(state, f"input_blocks.{place}.1."))
        else:
            levels.append([])
            depths.append(0)
        place += 1
    return {
        "model_channels": width,
        "in_channels": state[FIRST].shape[1],
        "num_res_blocks": [len(blocks) for blocks in levels],
        "channel_mult": factors([width, *(blocks[-1] for blocks in levels)])[1:],
        "attention_resolutions": [2**level for level, depth in enumerate(depths) if depth],
        "transformer_depth": depths,
        "transformer_depth_middle": layers_in(state, "middle_block.1."),
    }


def layers_in(state: State, head: str) -> int:
    """Transformer layers of a block of attention; 0 for none."""
    layers = re.compile(rf"{re.escape(head)}transformer_blocks\.(\d+)\.")
    return max((int(found[1]) + 1 for found in map(layers.match, state) if found), default=0)


def loaded_unet() -> Any:
    """The UNet of the loaded checkpoint, for which a ControlNet is made."""
    return host_module("shared").sd_model.model.diffusion_model


def heads_of(unet: Any) -> dict[str, int]:
    """Attention heads, which shapes do not tell: those of the UNet that the network was copied from."""
    return {name: getattr(unet, name) for name in ("num_heads", "num_head_channels")}
