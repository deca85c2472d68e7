"""Made-up checkpoints, layer files and a user's Lora for host tests; every value follows from its key (rule R1)."""

from __future__ import annotations

import gzip
import json
import math
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rule import file_state, value
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_layerdiffuse.core.bases import BASES, Base
from lib_layerdiffuse.core.files.flux_names import DIFFUSERS, find_layer
from lib_layerdiffuse.core.files.layouts import (
    CONTROL_WIDTHS,
    SharingShape,
    decoder_layout,
    encoder_layout,
    sharing_layout,
)
from lib_layerdiffuse.core.methods import ATTENTION_SHARING, LORA, METHODS, Method
from lib_layerdiffuse.core.sharing.places import unit_places
from lib_layerdiffuse.files.checkpoints import UNET, checkpoint_shapes
from lib_layerdiffuse.files.demo_folder import DEMO_FOLDER

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TOKENIZER = ROOT / "lib_layerdiffuse/demo_model/tokenizer"
MANIFESTS = json.loads(gzip.decompress((ROOT / "tests/data/manifests.json.gz").read_bytes()))
SUFFIX = ".safetensors"
RANK = 8  # of low-rank offsets; readers take any
FLUX_TWIN = "layerdiffuse_twin_flux"
FLUX_BLOCKS = ("double_blocks.", "single_blocks.")
# narrow, but with the published number of levels: sizes must be padded to multiples of 64
DECODER_CHANNELS = (8, 8, 16, 16, 16, 16, 16)
NARROW_ENCODER = ((32, 32, 32, 32, 64, 64, 64, 64), (64, 64), (64, 64))
LORA_SCALE, DIFF_SCALE = 0.5, 0.1
PROJECTION = re.compile(r"\.attn[12]\.to_(q|k|v|out\.0)\.weight$")
# beside the parameters of the small manifests: linear layers, layer norm and biases inside a transformer
TRANSFORMER_PARAMETERS = tuple(
    f"input_blocks.4.1.{layer}.{kind}"
    for layer in ("norm", "proj_in", "transformer_blocks.0.norm1", "transformer_blocks.0.ff.net.0.proj")
    for kind in ("weight", "bias")
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file of a base, and the shapes of its UNet's parameters by LDM name."""

    base: str
    path: Path
    unet: Shapes

    @classmethod
    def read(cls, base: str, path: Path) -> Checkpoint:
        """The checkpoint of a file; only its header is read."""
        shapes = checkpoint_shapes(path)
        unet = {key.removeprefix(UNET): shape for key, shape in shapes.items() if key.startswith(UNET)}
        return cls(base, path, unet)


def write_checkpoint(webui: Path, python: Path, base: str, target: Path) -> Checkpoint:
    """A small checkpoint of a base at `target`, its configuration beside it; the WebUI's own code tells the keys."""
    script = HERE / "ldm_shapes.py"
    command = [python, script, webui, base, TOKENIZER, target]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=300)
    shapes_file = target.with_suffix(".json")
    shapes = json.loads(shapes_file.read_text())
    shapes_file.unlink()
    save_file({key: checkpoint_value(key, shape) for key, shape in shapes.items()}, target)
    return Checkpoint.read(base, target)


def write_sibling(path: Path, target: Path) -> None:
    """A copy of a checkpoint, the values of its UNet's last convolution in reverse order."""
    shutil.copyfile(path, target)
    with target.open("r+b") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(start - 8))[f"{UNET}out.2.weight"]
        begin, end = entry["data_offsets"]
        width = (end - begin) // math.prod(entry["shape"])
        file.seek(start + begin)
        values = np.frombuffer(file.read(end - begin), f"u{width}")
        file.seek(start + begin)
        file.write(values[::-1].tobytes())


def write_without(path: Path, target: Path, gone: re.Pattern[str], added: Shapes) -> None:
    """A copy of a checkpoint without the keys in which `gone` is found, with tensors of zeros, float16."""
    with safe_open(path, "pt") as file:
        kept = {key: file.get_tensor(key) for key in file.keys() if not gone.search(key)}
    save_file(kept | {key: torch.zeros(shape).half() for key, shape in added.items()}, target)


def checkpoint_value(key: str, shape: Shape) -> torch.Tensor:
    """The float16 value of one tensor of a checkpoint."""
    scale = 0.5 if key == "first_stage_model.decoder.conv_out.weight" else 1.0
    return value(key, shape, scale).half()


def write_layer_files(checkpoint: Checkpoint, folder: Path) -> None:
    """All layer files of a base, for the widths of this checkpoint."""
    for method in METHODS:
        if method.base == checkpoint.base:
            write_method_file(checkpoint, method, folder)
    base = BASES[checkpoint.base]
    if base.decoder == base.encoder:
        save_file(codec_state(base), folder / f"{base.decoder}{SUFFIX}")
        return
    for stem, layout in ((base.encoder, encoder_layout()), (base.decoder, decoder_layout(DECODER_CHANNELS))):
        save_file(file_state(stem, layout), folder / f"{stem}{SUFFIX}")


def codec_state(base: Base) -> dict[str, torch.Tensor]:
    """Decoder and encoder in one file."""
    channels = base.latents.channels
    layouts = {
        "encoder": encoder_layout(latent_channels=channels),
        "decoder": decoder_layout(DECODER_CHANNELS, channels),
    }
    states = {part: file_state(f"flux_vae_transparent_{part}", layout) for part, layout in layouts.items()}
    return {f"{part}.{key}": tensor for part, state in states.items() for key, tensor in state.items()}


def write_method_file(checkpoint: Checkpoint, method: Method, folder: Path) -> Path:
    """The weights of one method for the widths of this checkpoint."""
    make = {ATTENTION_SHARING: sharing_state, LORA: lora_state}.get(method.kind, offsets_state)
    path = folder / f"{method.weights}{SUFFIX}"
    save_file(make(checkpoint.unet, method), path)
    return path


def sharing_state(unet: Shapes, method: Method) -> dict[str, torch.Tensor]:
    """The attention sharing units of a method."""
    paths = [place.path for place in unit_places({name.rpartition(".to_")[0] for name in unet})]
    widths = tuple(unet[f"{path}.to_q.weight"][1] for path in paths[::2])
    context = unet[f"{paths[1]}.to_k.weight"][1]
    encoder = NARROW_ENCODER if method.base == "demo" else CONTROL_WIDTHS
    shape = SharingShape(len(method.frames), widths, context, RANK, method.control is not None, encoder)
    return file_state(method.weights, sharing_layout(shape))


def lora_state(network: Shapes, method: Method) -> dict[str, torch.Tensor]:
    """A LoRA of all linear layers of Flux's blocks as sd-scripts writes it."""
    return block_lora(network, method.weights)


def block_lora(network: Shapes, stem: str) -> dict[str, torch.Tensor]:
    """Kohya's keys for every matrix of Flux's blocks."""
    state = {}
    for name, shape in network.items():
        if name.startswith(FLUX_BLOCKS) and len(shape) == 2:
            layer = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
            for half, size in (("lora_up", (shape[0], RANK)), ("lora_down", (RANK, shape[1]))):
                state[f"{layer}.{half}.weight"] = value(f"{stem}/{layer}/{half}", size, LORA_SCALE).half()
            state[f"{layer}.alpha"] = torch.tensor(float(RANK))
    return state


def write_flux_twins(checkpoint: Checkpoint, layer_models: Path, loras: Path) -> None:
    """The LoRA of the layer files once more: as diffusers names it, and as a Lora for the WebUI itself."""
    width = checkpoint.unet["img_in.bias"][0]
    state = load_file(layer_models / f"layerlora{SUFFIX}")
    save_file(state, loras / f"{FLUX_TWIN}{SUFFIX}")
    save_file(in_diffusers_names(state, width), layer_models / f"{FLUX_TWIN}{SUFFIX}")


def in_diffusers_names(state: dict[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    """A LoRA in kohya's names whose alpha is its rank -> the same for diffusers' layers, fused ones in parts."""
    found = {}
    for key, down in state.items():
        if not key.endswith(".lora_down.weight"):
            continue
        name = key.removesuffix(".lora_down.weight")
        up = state[f"{name}.lora_up.weight"]
        for place in find_layer(name.removeprefix("lora_unet_")).places(DIFFUSERS):
            start, end = place.taken or (0, None)
            rows = up[start * width : None if end is None else end * width]
            found[f"transformer.{place.path}.lora_A.weight"] = down.clone()
            found[f"transformer.{place.path}.lora_B.weight"] = rows.contiguous()
    return found


def write_missing_layers(checkpoint: Checkpoint, folder: Path) -> None:
    """Made-up files of the demo model's methods that do not ship."""
    for method in METHODS:
        if method.base == checkpoint.base and not (DEMO_FOLDER / f"{method.weights}{SUFFIX}").is_file():
            write_method_file(checkpoint, method, folder)


def offsets_state(unet: Shapes, method: Method) -> dict[str, torch.Tensor]:
    """Offsets of a method: low-rank ones of all attention projections, or full ones of every kind of parameter."""
    low_rank = method.weights.endswith("_attn")
    shapes = projection_offsets(unet) if low_rank else full_offsets(unet, method)
    scale = LORA_SCALE if low_rank else DIFF_SCALE
    return {key: value(f"{method.weights}/{key}", shape, scale).half() for key, shape in shapes.items()}


def projection_offsets(unet: Shapes) -> Shapes:
    """Keys and shapes of low-rank offsets of every attention projection."""
    shapes = {}
    for name in filter(PROJECTION.search, unet):
        wide, narrow = unet[name]
        key = f"diffusion_model.{name}::lora::"
        shapes[f"{key}0"], shapes[f"{key}1"] = (wide, RANK), (RANK, narrow)
    return shapes


def full_offsets(unet: Shapes, method: Method) -> Shapes:
    """Keys and shapes of full offsets of some parameters; the input convolution is wider for concatenated latents."""
    known = (key.removeprefix("diffusion_model.").split("::")[0] for key in MANIFESTS["layer_xl_fg2ble.small"])
    shapes = {
        f"diffusion_model.{name}::diff::0": tuple(unet[name])
        for name in (*known, *TRANSFORMER_PARAMETERS)
        if name in unet
    }
    wide = "diffusion_model.input_blocks.0.0.weight::diff::0"
    outputs, _, *kernel = shapes[wide]
    return shapes | {wide: (outputs, method.input_channels, *kernel)}


def write_lora(checkpoint: Checkpoint, path: Path) -> None:
    """A user's Lora in kohya's format, on query, key and output projections of every attention layer.

    Of Flux on all layers of the blocks.
    """
    state = block_lora(checkpoint.unet, path.stem)
    for name in filter(PROJECTION.search, checkpoint.unet):
        if ".to_v." in name:
            continue
        wide, narrow = checkpoint.unet[name]
        key = kohya_name(name.removesuffix(".weight"))
        for part, shape in (("lora_up.weight", (wide, RANK)), ("lora_down.weight", (RANK, narrow))):
            state[f"{key}.{part}"] = value(f"{path.stem}/{key}.{part}", shape).half()
        state[f"{key}.alpha"] = torch.tensor(float(RANK)).half()
    save_file(state, path)


def kohya_name(name: str) -> str:
    """`input_blocks.4.1.transformer_blocks.0.attn1.to_q` -> `lora_unet_down_blocks_1_attentions_0_transformer_...`."""
    parts = name.split(".")
    if parts[0] == "middle_block":
        block, rest = "mid_block_attentions_0", parts[2:]
    else:
        place, rest = int(parts[1]), parts[3:]
        down = parts[0] == "input_blocks"
        level, index = divmod(place - 1 if down else place, 3)
        block = f"{'down' if down else 'up'}_blocks_{level}_attentions_{index}"
    return "_".join(("lora_unet", block, *rest))
