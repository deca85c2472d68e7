"""ControlNet files: read for a diffusers UNet whatever their layout (LDM or diffusers), written in LDM's.

The LDM layout is what WebUIs keep: `control_model.` before the names of the UNet's own encoder half, of the small
network that sees the control image, and of the zero convolutions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from ..core.errors import BaseMismatchError, InputError, WeightsError
from ..core.files.state_check import state_differences
from ..core.files.weights import WeightFile
from ..files.whole_files import save_tensors
from ..unet.ldm_keys import KeyTable, Row, unet_table

PREFIX = "control_model."
HINT, THEIR_HINT = "input_hint_block", "controlnet_cond_embedding"
HINT_PLACES = (0, 2, 4, 6, 8, 10, 12, 14)  # of the convolutions among LDM's hint block
ZERO_CONVOLUTIONS, MIDDLE_OUT = ("zero_convs", "controlnet_down_blocks"), ("middle_block_out.0", "controlnet_mid_block")
CONTEXT_KEY = re.compile(r"attn2\.to_k\.weight$")
CONTEXTS = {768: "SD1.5", 1024: "SD2", 2048: "SDXL"}
ADVICE = "use a ControlNet that was made for this base, as .safetensors"


def controlnet_table(config: Mapping[str, Any]) -> KeyTable:
    """The table of a ControlNetModel's (or its UNet's) `config`; LDM paths without `control_model.`."""
    every = {**config, "down_block_types": ["CrossAttnDownBlock2D"] * len(config["down_block_types"])}
    encoder = [row for row in unet_table({**every, "up_block_types": []}).rows if not row.ldm.startswith("out.")]
    places = sum(row.ldm.startswith("input_blocks") and not _is_attention(row) for row in encoder)
    theirs = ["conv_in", *(f"blocks.{place}" for place in range(len(HINT_PLACES) - 2)), "conv_out"]
    hint = [Row(f"{HINT}.{at}", f"{THEIR_HINT}.{name}") for at, name in zip(HINT_PLACES, theirs, strict=True)]
    zero = [Row(f"{ZERO_CONVOLUTIONS[0]}.{at}.0", f"{ZERO_CONVOLUTIONS[1]}.{at}") for at in range(places)]
    return KeyTable([*encoder, *hint, *zero, Row(*MIDDLE_OUT)])


def _is_attention(row: Row) -> bool:
    return ".attentions." in row.diffusers


def write_controlnet(control: ControlNetModel, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """One safetensors file in LDM names, floats stored as `dtype`."""
    table = controlnet_table(control.config)
    state = {PREFIX + table.ldm_name(name): tensor.to(dtype) for name, tensor in control.state_dict().items()}
    save_tensors(state, path, {"format": "pt"})


def read_controlnet(path: str | Path, unet: UNet2DConditionModel) -> ControlNetModel:
    """The ControlNet of a file, for `unet`, on its device and in its precision; typed errors for anything else."""
    path = checked_file(path)
    with WeightFile(path) as file:
        check_kind(file)
        state = _diffusers_names(file.tensors(), unet.config)
    config = _config(unet, state)
    with torch.device("meta"):
        control = ControlNetModel.from_config(config)
    expected = {name: tuple(tensor.shape) for name, tensor in control.state_dict().items()}
    state = {name: _as_shaped(tensor, expected.get(name)) for name, tensor in state.items()}
    differences = state_differences(expected, {name: tuple(tensor.shape) for name, tensor in state.items()})
    if differences:
        raise _mismatch(path, state, unet, differences)
    device, dtype = unet.device, unet.dtype  # asked once: diffusers looks through all modules for each
    control.load_state_dict({name: tensor.to(device, dtype) for name, tensor in state.items()}, assign=True)
    return control.requires_grad_(False).eval()


def checked_file(path: str | Path) -> Path:
    """The path of a file that is there; InputError otherwise."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file {path}", "a ControlNet's .safetensors file", "correct --controlnet FILE")
    return path


def _mismatch(
    path: Path, state: Mapping[str, torch.Tensor], unet: UNet2DConditionModel, differences: str
) -> BaseMismatchError | WeightsError:
    """Which base a file is for, when that is why it does not fit; else what differs."""
    widths = {tensor.shape[1] for name, tensor in state.items() if CONTEXT_KEY.search(name)}
    own = unet.config["cross_attention_dim"]
    if widths and widths != {own}:
        theirs = ", ".join(CONTEXTS.get(width, f"a text of width {width}") for width in sorted(widths))
        return BaseMismatchError(
            f"{path}, a ControlNet for {theirs}", f"one for {CONTEXTS.get(own, f'a text of width {own}')}", ADVICE
        )
    return WeightsError(f"{path} that does not fit the loaded model ({differences})", "a ControlNet for it", ADVICE)


def _diffusers_names(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors of either layout under diffusers' names; names that nobody knows stay as they are."""
    if f"{THEIR_HINT}.conv_in.weight" in state:
        return dict(state)
    table = controlnet_table(config)
    plain = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    return {table.to_diffusers(name) or name: tensor for name, tensor in plain.items()}


# what other files that steer a picture are known by
FOREIGN_KEYS = {
    "a T2I adapter": lambda key: key.startswith(("adapter.", "body.")),
    "an IP-Adapter": lambda key: key.startswith(("ip_adapter.", "image_proj.")),
    "a ControlLLLite": lambda key: "lllite" in key,
    "a Control-LoRA": lambda key: key == "lora_controlnet",
    "a ControlNet of several kinds (Union)": lambda key: "task_embedding" in key,
    "a ControlNet stored as a difference": lambda key: key == "difference",
    "a whole checkpoint": lambda key: key.startswith("model.diffusion_model."),
}


def check_kind(file: WeightFile) -> None:
    """WeightsError unless a file's names are those of a plain ControlNet."""
    kind = next((name for name, is_it in FOREIGN_KEYS.items() if any(map(is_it, file.shapes))), None)
    first = {f"{PREFIX}{HINT}.0.weight", f"{HINT}.0.weight", f"{THEIR_HINT}.conv_in.weight"}
    if kind is None and first & file.shapes.keys():
        return
    raise WeightsError(f"{file.path}, which is {kind or 'no ControlNet'}", "a plain ControlNet", ADVICE)


def _config(unet: UNet2DConditionModel, state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The configuration of the ControlNet that `state` (diffusers' names) belongs to: the UNet's, less what it lacks.

    The small ControlNets of SDXL have attention in fewer places than their UNet, or fewer layers of it.
    """
    with torch.device("meta"):
        config = dict(ControlNetModel.from_unet(unet, load_weights_from_unet=False).config)
    depths = [_depth(state, f"down_blocks.{level}.") for level in range(len(config["down_block_types"]))]
    config["down_block_types"] = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths]
    middle = _depth(state, "mid_block.")
    if not middle:
        config["mid_block_type"] = "UNetMidBlock2D"
    if any(depths):  # the middle block's depth is the last level's in diffusers
        depths[-1] = depths[-1] or middle
        config["transformer_layers_per_block"] = [max(1, depth) for depth in depths]
    return config


def _depth(state: Mapping[str, torch.Tensor], head: str) -> int:
    """Transformer layers of a block's attentions; 0 for a block without."""
    layers = re.compile(rf"{re.escape(head)}attentions\.0\.transformer_blocks\.(\d+)\.")
    return max((int(found[1]) + 1 for found in map(layers.match, state) if found), default=0)


def _as_shaped(tensor: torch.Tensor, shape: tuple[int, ...] | None) -> torch.Tensor:
    """A projection stored as a linear layer where the model has a convolution of one pixel, or the other way round."""
    if shape is None or min(tensor.ndim, len(shape)) < 2 or tensor.shape[:2] != shape[:2]:
        return tensor
    return tensor.reshape(shape) if tensor.numel() == shape[0] * shape[1] == math.prod(shape) else tensor
