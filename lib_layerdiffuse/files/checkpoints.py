"""Which base a checkpoint is, by the names and shapes in the header of its file; nothing of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..core.bases import BASES
from ..core.errors import BaseMismatchError, InputError, WeightsError
from ..core.files.flux_names import BFL, DIFFUSERS, naming_of
from ..core.files.weights import FOREIGN_STARTS
from .demo_folder import CHECKPOINT_NAME, CONFIG_NAME
from .downloads import first_line

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
UNET = "model.diffusion_model."
CONTEXTS = {768: "sd15", 1024: "SD2", 1280: "the SDXL refiner", 2048: "sdxl"}
PREFIXES = ("model.diffusion_model.", "")  # of the transformer's names in a file
MARKS = {  # parameters by which a transformer of Flux's kind is known, in each naming
    BFL: ("double_blocks.0.img_attn.qkv.weight", "vector_in.in_layer.weight", "img_in.weight"),
    DIFFUSERS: (
        "transformer_blocks.0.attn.add_q_proj.weight",
        "time_text_embed.text_embedder.linear_1.weight",
        "x_embedder.weight",
    ),
}
TOKEN = 64  # channels of Flux.1's tokens: 16 of 2x2 places
ADVICE = "choose a checkpoint of Flux.1 dev, schnell or a tune of their shape"


def checkpoint_shapes(path: Path) -> dict[str, Shape]:
    """Shapes of a checkpoint's tensors, from its header alone; WeightsError for anything but whole safetensors.

    InputError where there is no file.
    """
    if not path.is_file():
        raise InputError(f"no file {path}", "a checkpoint file", "correct --checkpoint FILE")
    if (kind := foreign_kind(path)) is not None:
        raise WeightsError(
            f"{path}, which is {kind}",
            "a checkpoint in safetensors format (a .ckpt file can hold programs and is not opened)",
            "download it again, or get the .safetensors version of it",
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: {first_line(error)}",
            "a whole checkpoint in safetensors format (a .ckpt file can hold programs and is not opened)",
            "download it again, or get the .safetensors version of it",
        ) from error


def foreign_kind(path: Path) -> str | None:
    """What a file is that begins as another kind does; None for safetensors and for what is not known."""
    with path.open("rb") as file:
        start = file.read(24).lower()
    return next((kind for signature, kind in FOREIGN_STARTS if start.startswith(signature.lower())), None)


def recognise_base(shapes: Mapping[str, Shape], path: Path) -> str:
    """The base of a checkpoint, an id of the method table, by the shapes of its UNet.

    BaseMismatchError for a checkpoint of another one, WeightsError for what is no checkpoint.
    """
    if prefix_of(shapes) is not None:
        check_flux(shapes, path)
        return "flux"
    entry = shapes.get(f"{UNET}input_blocks.0.0.weight")
    contexts = {shape[1] for key, shape in shapes.items() if key.startswith(UNET) and key.endswith("attn2.to_k.weight")}
    if entry is None or len(contexts) != 1:
        raise WeightsError(
            f"{path} without the UNet of Stable Diffusion or the transformer of Flux",
            "a whole SD1.5, SDXL or Flux.1 checkpoint (layer files, LoRAs, VAEs and other architectures are none)",
            "name a checkpoint with --checkpoint FILE, and folders of layer files with --models FOLDER",
        )
    if entry[1] != 4:
        raise BaseMismatchError(
            f"{path} with {entry[1]} input channels (an inpainting or editing model)",
            "4 input channels",
            "use the ordinary version of this checkpoint",
        )
    if (path.parent / CONFIG_NAME).is_file() and path.name == CHECKPOINT_NAME:
        return "demo"
    base = CONTEXTS.get(contexts.pop(), "an unknown architecture")
    if base in BASES:
        return base
    raise BaseMismatchError(
        f"{path}, which is {base}", "SD1.5, SDXL or Flux.1", "choose a checkpoint of one of these bases"
    )


def network_prefix(shapes: Shapes) -> str:
    """What the names of the parameters of what denoises begin with in a checkpoint."""
    prefix = prefix_of(shapes)
    return UNET if prefix is None else prefix


def prefix_of(shapes: Shapes) -> str | None:
    """What the names of a transformer of Flux's kind begin with in a file; None where it has none."""
    marks = [names[0] for names in MARKS.values()]
    return next((prefix for prefix in PREFIXES if any(prefix + mark in shapes for mark in marks)), None)


def check_flux(shapes: Shapes, path: Path) -> None:
    """BaseMismatchError for relatives of Flux.1, WeightsError for storage formats that are not read."""
    own = _own(shapes)
    _, vectors, tokens = MARKS[naming_of(own)]
    if vectors not in own:
        raise BaseMismatchError(f"{path}, which is Chroma or another relative of Flux.1", "Flux.1", ADVICE)
    packed = next((name for name in own if name.endswith((".absmax", ".quant_map"))), None)
    if packed is not None or len(own[tokens]) != 2:
        raise WeightsError(f"{path}, whose weights are packed in four bits", "weights of 8 bits or more", ADVICE)
    if own[tokens][1] != TOKEN:
        raise BaseMismatchError(f"{path}, an inpainting, editing or newer checkpoint of Flux's kind", "Flux.1", ADVICE)


def _own(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    prefix = prefix_of(shapes) or ""
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
