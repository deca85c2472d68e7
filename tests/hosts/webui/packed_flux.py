"""Run by a WebUI's own Python: a Flux checkpoint once more, the matrices of its blocks packed in few bits.

`packed_flux.py WEBUI SOURCE FOLDER Q8_0|Q4_0|nf4` writes FOLDER/NAME_KIND.gguf with the transformer alone, and its VAE
and text models as files of their own (`parts_of`), or the whole checkpoint as bitsandbytes packs it. Beside it
NAME.shapes, by which the extension in `cut` knows the blocks.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

TRANSFORMER = "model.diffusion_model."
PARTS = {
    "vae.": "vae",
    "text_encoders.clip_l.transformer.": "clip_l",
    "text_encoders.t5xxl.transformer.": "t5xxl",
}
GGUF_PLACES = ("packages_3rdparty", "modules_forge/packages")
GROUP = 32  # numbers of a row that GGUF packs together
NF4_GROUP = 64
# quantiles of the normal distribution (QLoRA, arXiv 2305.14314, appendix E)
NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334)
NF4 += (-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224)
NF4 += (0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)


def parts_of(folder: Path) -> list[Path]:
    """The files of VAE and text models."""
    return [folder / f"layerdiffuse_test_{name}.safetensors" for name in PARTS.values()]


def is_packed(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor of the transformer is one that GGUF files have packed."""
    return "_blocks." in name and tensor.dim() == 2 and tensor.shape[1] % GROUP == 0


def write_gguf(webui: Path, tensors, target: Path, kind: str) -> None:
    """The transformer under its own names."""
    sys.path[:0] = [str(webui / place) for place in GGUF_PLACES]
    import gguf
    from gguf.gguf_writer import GGUFWriter

    bits = gguf.GGMLQuantizationType[kind]
    writer = GGUFWriter(target, "flux")
    for key in tensors.keys():
        if not key.startswith(TRANSFORMER):
            continue
        name, values = key.removeprefix(TRANSFORMER), tensors.get_tensor(key).float()
        if is_packed(name, values):
            writer.add_tensor(name, gguf.quants.quantize(values.numpy(), bits), raw_dtype=bits)
        else:
            writer.add_tensor(name, values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_parts(tensors, folder: Path) -> None:
    """What is not the transformer, without the prefixes of whole checkpoints."""
    for path, prefix in zip(parts_of(folder), PARTS, strict=True):
        if not path.exists():
            keys = [key for key in tensors.keys() if key.startswith(prefix)]
            save_file({key.removeprefix(prefix): tensors.get_tensor(key) for key in keys}, path)


def nf4(matrix: torch.Tensor) -> dict[str, torch.Tensor]:
    """A matrix as bitsandbytes writes it: two numbers in each byte, and what they mean, by the ends of names."""
    groups = matrix.float().reshape(-1, NF4_GROUP)
    largest = groups.abs().amax(1)
    scaled, middles = groups / largest[:, None], [(one + other) / 2 for one, other in pairwise(NF4)]
    places = torch.bucketize(scaled, torch.tensor(middles)).to(torch.uint8).flatten()
    told = {"quant_type": "nf4", "blocksize": NF4_GROUP, "dtype": "bfloat16", "shape": list(matrix.shape)}
    return {
        "": (places[::2] << 4 | places[1::2])[:, None],
        ".absmax": largest,
        ".quant_map": torch.tensor(NF4),
        ".quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8),
    }


def write_nf4(tensors, target: Path) -> None:
    """The whole checkpoint, all matrices of its transformer packed."""
    found = {}
    for key in tensors.keys():
        tensor = tensors.get_tensor(key)
        packed = key.startswith(TRANSFORMER) and tensor.dim() == 2
        found |= {f"{key}{end}": part for end, part in (nf4(tensor) if packed else {"": tensor}).items()}
    save_file(found, target)


def main(webui: Path, source: Path, folder: Path, kind: str) -> None:
    target = folder / f"{source.stem}_{kind}.{'safetensors' if kind == 'nf4' else 'gguf'}"
    with safe_open(source, "pt") as tensors:
        shapes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}
        target.with_suffix(".shapes").write_text(json.dumps(shapes))
        if kind == "nf4":
            write_nf4(tensors, target)
        else:
            write_gguf(webui, tensors, target, kind)
            write_parts(tensors, folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4])
