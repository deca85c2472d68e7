"""Our decode against the plain one: diffusers' blocks, eight passes in turn, float32, torch.median. Made-up weights.

python benchmarks/decoder.py --size 512 --device cuda --dtype float16
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.plain_decoder import PlainDecoder
from lib_layerdiffuse.core.codec.decoder import TransparencyUNet
from lib_layerdiffuse.core.codec.decoding import ORIENTATIONS, TransparencyDecoder


@torch.no_grad()
def plain(network: PlainDecoder, pixel: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """Pixels [1,3,H,W] and latent [1,4,H/8,W/8] -> A,R,G,B [1,4,H,W], the way of the original."""
    passes = [turn.undo(network(turn.apply(pixel), turn.apply(latent)).clamp(0, 1)) for turn in ORIENTATIONS]
    return torch.median(torch.stack(passes), dim=0).values


def seconds(work: Callable[[], torch.Tensor], repeats: int) -> tuple[float, torch.Tensor]:
    """The quickest of `repeats` runs after one to warm up, and its result."""
    # one thread's own time leaves out what other programs take of a busy machine
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    clock = time.process_time if alone else time.perf_counter
    result, best = work(), float("inf")
    for _ in range(repeats):
        start = clock()
        result = work().cpu()  # the copy waits for the device
        best = min(best, clock() - start)
    return best, result


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="side of the picture in pixels (128)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (cpu)")
    parser.add_argument("--dtype", default="float32", help="of our decode, on a GPU (float32)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of which the quickest counts (2)")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    torch.manual_seed(0)
    network = TransparencyUNet().to(chosen.device)
    torch.nn.init.normal_(network.latent_conv_in.weight, std=0.5)
    if network.conv_out.bias is not None:
        torch.nn.init.constant_(network.conv_out.bias, 0.5)
    pixel = torch.rand(1, 3, chosen.size, chosen.size, device=chosen.device)
    latent = torch.randn(1, 4, chosen.size // 8, chosen.size // 8, device=chosen.device)
    original = PlainDecoder().to(chosen.device)
    original.load_state_dict(network.state_dict())
    plain_time, expected = seconds(lambda: plain(original, pixel, latent), chosen.repeats)
    print(f"plain, 8 in turn, float32    {plain_time:7.2f} s")
    decoder = TransparencyDecoder(network, chosen.device, getattr(torch, chosen.dtype))
    for passes in (8, 4, 2, 1):
        ours, rgba = seconds(lambda count=passes: decoder.decode(pixel, latent, count), chosen.repeats)
        print(f"ours, {passes} passes, {chosen.dtype:12} {ours:7.2f} s   x{plain_time / ours:5.2f}", end="")
        # fewer passes are another median, so only eight can be compared
        apart = (rgba[:, [3, 0, 1, 2]] - expected).abs().max().item()
        print(f"   largest difference {apart:.1e}" if passes == 8 else "")


if __name__ == "__main__":
    main()
