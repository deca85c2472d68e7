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
from diffusers import UNet2DConditionModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib_layerdiffuse.core.offset_install import hook_offsets, merge_offsets, merged_bytes
from lib_layerdiffuse.core.offsets import Full, LowRank, OffsetSet
from lib_layerdiffuse.hosts.ldm_keys import unet_modules

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
RANK = 256


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


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time of one call."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("low-rank", "full"), default="low-rank", help="of offsets (low-rank)")
    parser.add_argument("--latent", type=int, default=32, help="side of the latent (32)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (cpu)")
    parser.add_argument("--dtype", default="float32", help="of the UNet (float32)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the median counts (5)")
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    chosen = options()
    device, dtype = torch.device(chosen.device), getattr(torch, chosen.dtype)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8).to(device, dtype).eval()
    modules = unet_modules(unet)
    offsets = offsets_for(modules, chosen.kind, torch.float16)
    inputs = (
        torch.randn(2, 4, chosen.latent, chosen.latent, device=device, dtype=dtype),
        torch.tensor(500, device=device),
        torch.randn(2, 77, 768, device=device, dtype=dtype),
    )
    ways = {"plain": None, "merged": merge_offsets, "hooked": hook_offsets}
    times: dict[str, list[float]] = {way: [] for way in ways}
    installing: dict[str, float] = {}
    for turn in range(chosen.repeats + 1):  # in turns, so that a busy machine slows all of them; the first warms up
        for way, install in ways.items():
            installed = None
            if install is not None:
                start = time.perf_counter()
                installed = install(offsets, modules)
                installing[way] = time.perf_counter() - start
            unet(*inputs)  # fresh memory is slow at its first use
            spent = seconds(lambda: unet(*inputs), device)
            if turn:
                times[way].append(spent)
            if installed is not None:
                installed.remove()
    plain = statistics.median(times["plain"])
    print(f"SD1.5 UNet, latent {chosen.latent}, batch 2, {chosen.device} {chosen.dtype}, {chosen.kind} offsets")
    copy = merged_bytes(offsets, modules) / 1e6
    print(f"plain step {plain:.2f} s; a second copy of the touched parameters {copy:.0f} MB")
    for way in ("merged", "hooked"):
        ratio = statistics.median(times[way]) / plain
        print(f"{way}: step x{ratio:.3f}, installing {installing[way]:.2f} s")


if __name__ == "__main__":
    main()
