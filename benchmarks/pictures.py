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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.offsets import offsets_for
from benchmarks.sharing import made_up
from benchmarks.unet import add_options, unet_and_inputs, wait
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.unet.ldm_keys import unet_modules
from lib_layerdiffuse.unet.method_kinds import Conditions, KeptOffsets, put_method

METHODS = {"sharing": "sd15_joint", "offsets": "xl_fg_attn"}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=sorted(METHODS), default="offsets", help="of method (offsets)")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps of a picture (4)")
    add_options(parser)
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
    method = find_method(METHODS[chosen.kind])
    rows = 2 * len(method.frames)
    unet, inputs = unet_and_inputs(chosen, rows)
    if chosen.kind == "sharing":
        weights = made_up(len(method.frames))
    else:
        weights = KeptOffsets(offsets_for(unet_modules(unet), "low-rank", torch.float16))
    print(f"SD1.5 UNet, {chosen.kind}, latent {chosen.latent}, {rows} rows, {chosen.steps} steps")
    print(f"{chosen.device} {chosen.dtype}")
    for name in ("plain, to warm up", "plain", "first", "second", "third", "merged anew", "plain"):
        if name == "merged anew":
            weights.release()
        start = time.perf_counter()
        with ExitStack() as stack:
            if "plain" not in name:
                put_method(stack, method, weights, unet_modules(unet), 1.0, Conditions())
            for _ in range(chosen.steps):
                unet(*inputs)
        wait(chosen)
        spent = time.perf_counter() - start
        print(f"{name:18} {spent:7.2f} s, {memory(inputs[0].device):7.0f} MB in use after it", flush=True)


if __name__ == "__main__":
    main()
