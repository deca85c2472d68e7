"""A UNet step with attention sharing against the plain step of the same batch. Made-up weights, SD1.5's widths.

python benchmarks/sharing.py --frames 3 --latent 64 --device cuda --dtype float16
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.unet import add_options, unet_and_inputs, wait
from lib_layerdiffuse.core.files.layouts import SD15_WIDTHS, SharingShape, sharing_layout
from lib_layerdiffuse.core.sharing.attention_sharing import AttentionSharing, SharingRun, install
from lib_layerdiffuse.unet.ldm_keys import unet_modules
from lib_layerdiffuse.unet.method_kinds import sharing_layers


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3, help="pictures of a result (3)")
    add_options(parser)
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the median counts (5)")
    return parser.parse_args()


def made_up(frames: int) -> AttentionSharing:
    """Units of SD1.5's widths with small random weights."""
    layout = sharing_layout(SharingShape(frames, SD15_WIDTHS))
    return AttentionSharing.from_state_dict({key: torch.randn(shape) * 0.01 for key, shape in layout.items()})


@torch.no_grad()
def main() -> None:
    chosen = options()
    rows = 2 * chosen.frames
    unet, inputs = unet_and_inputs(chosen, rows)
    layers, sharing = sharing_layers(unet_modules(unet)), made_up(chosen.frames)

    # one thread's own time leaves out what other programs take of a busy machine
    clock = time.process_time if chosen.device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter

    def step() -> float:
        start = clock()
        unet(*inputs)
        wait(chosen)
        return clock() - start

    ratios, firsts = [], []
    for _ in range(chosen.repeats + 1):  # pairs, so that a busy machine slows both
        plain = step()
        with install(sharing, layers, SharingRun()):
            firsts.append(step())
            ratios.append(step() / plain)
    print(f"SD1.5 UNet, latent {chosen.latent}, {rows} rows, {chosen.device} {chosen.dtype}")
    print(f"sharing {chosen.frames} frames: step x{statistics.median(ratios[1:]):.3f}")
    print(f"first step of the first run {firsts[0]:.2f} s, of a later one {statistics.median(firsts[1:]):.2f} s")


if __name__ == "__main__":
    main()
