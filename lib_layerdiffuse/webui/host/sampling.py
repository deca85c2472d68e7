"""The sampler call of one pass, taken over on the sampler's instance: the one place all WebUIs and samplers go through.

`launch_sampling(steps, func)` is called once per pass (first, hires, image to image, every batch), returns the final
latents also after an interrupt, and stands inside everything that a WebUI does to its model before sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .modules import host_module

MARK = "layerdiffuse_around"


def take_over(sampler: Any, around: Callable[[Callable[[], Any]], Any]) -> None:
    """Let `around(run)` stand in for the sampling of this sampler; a sampler that is used again keeps the latest."""
    known = sampler.__dict__.get("launch_sampling")
    if hasattr(known, MARK):
        setattr(known, MARK, around)
        return
    original = sampler.launch_sampling

    def launch_sampling(steps: int, func: Callable[[], Any]) -> Any:
        return getattr(launch_sampling, MARK)(lambda: original(steps, func))

    setattr(launch_sampling, MARK, around)
    sampler.launch_sampling = launch_sampling


def give_back(sampler: Any) -> None:
    """The sampler's own method again, if it was taken over."""
    if hasattr(getattr(sampler, "__dict__", {}).get("launch_sampling"), MARK):
        del sampler.launch_sampling


def samplers() -> tuple[str, ...]:
    """The names of the WebUI's samplers."""
    known = host_module("sd_samplers")
    rows = known.visible_samplers() if hasattr(known, "visible_samplers") else known.samplers
    return tuple(row.name for row in rows)
