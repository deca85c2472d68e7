"""Times of the demo model's pictures and sets, 20 steps and decoding included, after one to warm up.

On a busy machine only the processor's time of one thread means something: --threads 1, OMP_WAIT_POLICY=PASSIVE.

python benchmarks/demo_model.py --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib_layerdiffuse import api
from lib_layerdiffuse.core.methods import Method, methods_for
from lib_layerdiffuse.standalone.pictures import Pictures

PROMPT, SIDE = "a red apple on a beach", 128


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", help="another demo model folder than the one that ships")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    parser.add_argument("--repeats", type=int, default=5, help="pictures or sets; the median counts (5)")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def given(method: Method) -> dict[str, Image.Image]:
    """Pictures for all that a method must be given."""
    return {name: Image.new("RGBA", (SIDE, SIDE), (200, 40, 30, 128)) for name in method.images}


def seconds(paint: Callable[[], object], repeats: int) -> tuple[list[float], list[float]]:
    """The times of so many runs by the clock and of the processor, the first one left out."""
    clock, processor = [], []
    for _ in range(repeats + 1):
        start, worked = time.perf_counter(), time.process_time()
        paint()
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - worked)
    return clock[1:], processor[1:]


def main() -> None:
    chosen = options()
    torch.set_num_threads(chosen.threads)
    start = time.perf_counter()
    host = api.load(demo=chosen.demo, device=chosen.device)
    print(f"{chosen.device}, {chosen.threads} threads; loaded in {time.perf_counter() - start:.1f} s")

    def paint(**choices: Any) -> Pictures:
        return api.generate(PROMPT, pipeline=host, count=1, seed=1, **choices)

    rows = {"plain picture": {"transparent": False}}
    rows |= {row.id: {"method": row.id, **given(row)} for row in methods_for("demo") if host.files.offers(row)}
    for name, choices in rows.items():
        times, worked = seconds(lambda choices=choices: paint(**choices), chosen.repeats)
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"{name}: {statistics.median(times):.2f} s ({spread}), processor {statistics.median(worked):.2f} s")


if __name__ == "__main__":
    main()
