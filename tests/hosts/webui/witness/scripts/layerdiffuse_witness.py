"""An extension for host tests: writes down the latents that a sampler was last given, the final ones in the end.

It also lets a test ask for the memory that the process truly holds, and press the page's button that ends a job after
the picture at hand.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Any

import numpy as np
from modules import script_callbacks, shared  # noqa: TID251 an extension beside ours, not a part of it


def note(parameters: Any) -> None:
    """After each step's guidance; a sampler's last step ends in what it was given."""
    path = os.environ.get("LAYERDIFFUSE_WITNESS")
    if path:
        np.save(path, parameters.x.detach().float().cpu().numpy())


def collect() -> None:
    """Free all garbage, and give what the C library keeps back to the system (glibc only)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def stop_generating() -> None:
    """No picture after the one at hand."""
    shared.state.stop_generating()


def add_routes(_page: Any, app: Any) -> None:
    """Lets tests, and nobody else, ask for these."""
    if os.environ.get("LAYERDIFFUSE_WITNESS"):
        for endpoint in (collect, stop_generating):
            app.add_api_route(f"/layerdiffuse_witness/{endpoint.__name__}", endpoint, methods=["POST"])


script_callbacks.on_cfg_after_cfg(note)
script_callbacks.on_app_started(add_routes)
