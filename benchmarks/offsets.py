"""A UNet step with offsets merged or hooked, against the plain step; and what installing takes. Made-up weights.

python benchmarks/offsets.py --kind full --latent 64 --device cuda --dtype float16
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.unet import add_options, unet_and_inputs, wait
from lib_layerdiffuse.core.offsets.install import hook_offsets, merge_offsets, merged_bytes
from lib_layerdiffuse.core.offsets.offsets import Full, LowRank, OffsetSet
from lib_layerdiffuse.unet.ldm_keys import unet_modules

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
RANK = 256
CALLS = 3


def offsets_for(modules: dict[str, torch.nn.Module], kind: str, dtype: torch.dtype) -> OffsetSet:
    """Rank-256 offsets of every attention projection, or full ones of every layer that is no q, k or v."""
    entries = {}
    for path, module in modules.items():
        weight = module._parameters.get("weight")
        if weight is None:
            continue
        attention = path.endswith(ATTENTION)
        if kind == "low-rank" and attention:
            up, down = torch.randn(len(weight), RANK, dtype=dtype), torch.randn(RANK, weight.shape[1], dtype=dtype)
            entries[f"{path}.weight"] = (LowRank(up * 1e-3, down * 1e-3),)
        elif kind == "full" and not path.endswith(ATTENTION[:3]):
            entries[f"{path}.weight"] = (Full(torch.randn(weight.shape, dtype=dtype) * 1e-3),)
    return OffsetSet(entries)


def quickest(work: Callable[[], object], chosen: argparse.Namespace) -> float:
    """Time of the quickest of some calls; the first, in fresh memory, does not count."""
    times = []
    for _ in range(CALLS + 1):
        start = time.perf_counter()
        work()
        wait(chosen)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("low-rank", "full"), default="low-rank", help="of offsets (low-rank)")
    add_options(parser)
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the median counts (3)")
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    chosen = options()
    unet, inputs = unet_and_inputs(chosen, rows=2)
    modules = unet_modules(unet)
    offsets = offsets_for(modules, chosen.kind, torch.float16)
    print(f"SD1.5 UNet, latent {chosen.latent}, batch 2, {chosen.device} {chosen.dtype}, {chosen.kind} offsets")
    print(f"a second copy of the touched parameters {merged_bytes(offsets, modules) / 1e6:.0f} MB")
    for name, install in (("merged", merge_offsets), ("hooked", hook_offsets)):  # apart: gigabytes that move disturb
        ratios, plain, installing = [], 0.0, 0.0
        for _ in range(chosen.repeats + 1):  # pairs, so that a busy machine slows both; the first warms up
            plain = quickest(lambda: unet(*inputs), chosen)
            start = time.perf_counter()
            with install(offsets, modules):
                installing = time.perf_counter() - start
                ratios.append(quickest(lambda: unet(*inputs), chosen) / plain)
        ratio = statistics.median(ratios[1:])
        print(f"{name}: step x{ratio:.3f} of a plain one of {plain:.2f} s, installing {installing:.2f} s")


if __name__ == "__main__":
    main()
