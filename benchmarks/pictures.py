"""Time and memory of the first and the second picture with a method, against plain ones. Made-up weights, SD1.5's UNet.

python benchmarks/pictures.py --kind sharing --latent 64 --steps 20 --device cuda --dtype float16
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.offsets import offsets_for
from benchmarks.sharing import made_up
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.hosts.ldm_keys import unet_modules
from lib_layerdiffuse.hosts.method_kinds import Conditions, KeptOffsets, put_method

METHODS = {"sharing": "sd15_joint", "offsets": "xl_fg_attn"}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=sorted(METHODS), default="offsets", help="of method (offsets)")
    parser.add_argument("--latent", type=int, default=32, help="side of the latent (32)")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps of a picture (4)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (cpu)")
    parser.add_argument("--dtype", default="float32", help="of the UNet (float32)")
    return parser.parse_args()


def memory(device: torch.device) -> float:
    """Megabytes in use by now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 1e6
    for line in Path("/proc/self/status").read_text().splitlines():  # Linux only
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1e3
    return float("nan")


@torch.no_grad()
def main() -> None:
    chosen = options()
    device, dtype = torch.device(chosen.device), getattr(torch, chosen.dtype)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8).to(device, dtype).eval()
    method = find_method(METHODS[chosen.kind])
    if chosen.kind == "sharing":
        weights = made_up(len(method.frames))
    else:
        weights = KeptOffsets(offsets_for(unet_modules(unet), "low-rank", torch.float16))
    rows = 2 * len(method.frames)
    inputs = (
        torch.randn(rows, 4, chosen.latent, chosen.latent, device=device, dtype=dtype),
        torch.tensor(500, device=device),
        torch.randn(rows, 77, 768, device=device, dtype=dtype),
    )
    print(f"SD1.5 UNet, {chosen.kind}, latent {chosen.latent}, {rows} rows, {chosen.steps} steps, {device} {dtype}")
    for name in ("plain, to warm up", "plain", "first", "second", "third", "merged anew", "plain"):
        if name == "merged anew":
            weights.release()
        start = time.perf_counter()
        with ExitStack() as stack:
            if "plain" not in name:
                put_method(stack, method, weights, unet_modules(unet), 1.0, Conditions())
            for _ in range(chosen.steps):
                unet(*inputs)
        if device.type == "cuda":
            torch.cuda.synchronize()
        print(f"{name:18} {time.perf_counter() - start:7.2f} s, {memory(device):7.0f} MB in use after it", flush=True)


if __name__ == "__main__":
    main()
