"""Made-up weights of the control models that Forge has built in beside ControlNet; values follow from keys (R1)."""

from __future__ import annotations

from pathlib import Path

import torch
from checkpoints import SUFFIX, Checkpoint, Shapes
from rule import randn_for, value
from safetensors.torch import save_file

LITE, INPAINT = "layerdiffuse_test_lllite", "layerdiffuse_test_fooocus_inpaint"
EMBEDDED = 16  # channels of what a lite module sees of the picture
INNER = 8
PATCH_KEY = "diffusion_model.time_embed.0.weight"  # by which Forge knows Fooocus' patch
# strides from the picture to the tokens of a block, each with its number of channels in and out
STRIDES = {
    "input_blocks.1": ((4, 3, EMBEDDED // 2), (2, EMBEDDED // 2, EMBEDDED)),
    "input_blocks.4": ((4, 3, EMBEDDED // 2), (4, EMBEDDED // 2, EMBEDDED)),
    "input_blocks.7": ((4, 3, EMBEDDED // 2), (4, EMBEDDED // 2, EMBEDDED // 2), (2, EMBEDDED // 2, EMBEDDED)),
}
LAYERS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q")


def write_control_files(checkpoint: Checkpoint, folder: Path) -> None:
    """A ControlLLLite and a Fooocus inpaint patch for an SD1.5 checkpoint."""
    folder.mkdir(parents=True)
    shapes: Shapes = {}
    for block, strides in STRIDES.items():
        for layer in LAYERS:
            name = f"{block}.1.transformer_blocks.0.{layer}"
            prefix = f"lllite_unet_{name.replace('.', '_')}"
            wide = checkpoint.unet[f"{name}.weight"][1]
            shapes |= {f"{prefix}.{key}": shape for key, shape in lite_shapes(wide, strides).items()}
    save_file({key: value(key, shape) for key, shape in shapes.items()}, folder / f"{LITE}{SUFFIX}")
    torch.save(inpaint_patch(checkpoint), folder / f"{INPAINT}.patch")


def lite_shapes(wide: int, strides: tuple[tuple[int, int, int], ...]) -> Shapes:
    """The parameters of a lite module of a linear layer with this many inputs."""
    shapes: Shapes = {}
    for place, (stride, narrow, outputs) in enumerate(strides):
        shapes[f"conditioning1.{2 * place}.weight"] = (outputs, narrow, stride, stride)
        shapes[f"conditioning1.{2 * place}.bias"] = (outputs,)
    for name, sizes in (("down", (INNER, wide)), ("mid", (INNER, INNER + EMBEDDED)), ("up", (wide, INNER))):
        shapes |= {f"{name}.0.weight": sizes, f"{name}.0.bias": sizes[:1]}
    return shapes


def inpaint_patch(checkpoint: Checkpoint) -> dict[str, tuple[torch.Tensor, ...]]:
    """Offsets in 8 bits with what 0 and 255 stand for, of layers that methods change too."""
    names = [f"{block}.1.transformer_blocks.0.{layer}.weight" for block in STRIDES for layer in LAYERS]
    patch = {}
    for key in (PATCH_KEY, *(f"diffusion_model.{name}" for name in names)):
        offsets = randn_for(key, checkpoint.unet[key.removeprefix("diffusion_model.")])
        levels = (128 + 40 * offsets).clamp(0, 255).to(torch.uint8)
        patch[key] = levels, torch.tensor(-0.05), torch.tensor(0.05)
    return patch
