"""A made-up Flux checkpoint with one double and one single block, 2 GB at full width for Forge, narrower for Neo.

`python tests/hosts/webui/flux_checkpoint.py flux-cut.safetensors [WIDTH]`. Forge knows checkpoints by their shapes, so
that nothing can be narrower there; Neo takes the width of the transformer, a multiple of 128, from the file. The
extension in `cut` leaves out the blocks that the file has nothing for.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1])]

from fakes.flux import FluxShape, FluxTransformer, flux_value  # noqa: E402
from rule import randn_for, value  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel  # noqa: E402

WIDTH, HEAD, AXES = 3072, 128, (16, 56, 56)
T5 = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "feed_forward_proj": "gated-gelu"}
NORMS = [f"encoder.block.{block}.layer.{layer}.layer_norm.weight" for block in range(1, 5) for layer in (0, 1)]
EMBEDDINGS = ("shared.weight", "token_embedding.weight", "position_embedding.weight")


def parts(width: int) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Prefix, and tensors without memory, of each part."""
    from ldm.modules.diffusionmodules.model import Decoder, Encoder

    sizes = {"ch": 128, "ch_mult": (1, 2, 4, 4), "num_res_blocks": 2, "attn_resolutions": [], "in_channels": 3}
    sizes |= {"out_ch": 3, "resolution": 256, "z_channels": 16}
    vae = torch.nn.ModuleDict({"encoder": Encoder(**sizes, double_z=True), "decoder": Decoder(**sizes)})
    t5 = T5EncoderModel(T5Config(vocab_size=32128, num_layers=1, **T5)).state_dict()
    t5.pop("encoder.embed_tokens.weight", None)
    # Forge takes a part with few tensors for none
    t5 |= {name: torch.empty(4096) for name in NORMS}
    clip = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=1)).state_dict()
    texts = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in clip.items()}
    shape = FluxShape(width=width, heads=width // HEAD, axes=AXES, context=4096, pooled=768)
    yield "model.diffusion_model.", FluxTransformer(shape).state_dict()
    yield "vae.", vae.state_dict()
    yield "text_encoders.clip_l.transformer.", {k: v for k, v in texts.items() if not k.endswith("position_ids")}
    yield "text_encoders.t5xxl.transformer.", t5


def made(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The value of a tensor."""
    if key.endswith(EMBEDDINGS):
        return 0.5 * randn_for(key, shape)
    if "norm" in key and len(shape) == 1 and key.endswith(("weight", "scale")):
        return 1 + 0.1 * randn_for(key, shape)
    if key.startswith("model."):
        return flux_value("flux", key, shape)
    return value(key, shape, 0.5 if key.endswith("decoder.conv_out.weight") else 1.0)


def write(target: Path, width: int = WIDTH) -> None:
    """The file, tensor by tensor: transformer and VAE in bfloat16, text encoders in float16."""
    with torch.device("meta"):
        shapes = {prefix + key: tuple(tensor.shape) for prefix, state in parts(width) for key, tensor in state.items()}
    header, end = {}, 0
    for key, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        kind = "F16" if key.startswith("text_encoders.") else "BF16"
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with target.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key, shape in shapes.items():
            kind = torch.float16 if header[key]["dtype"] == "F16" else torch.bfloat16
            file.write(made(key, shape).to(kind).contiguous().view(torch.uint8).numpy().tobytes())


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:]))
