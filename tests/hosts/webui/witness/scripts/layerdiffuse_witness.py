"""An extension for host tests: writes down the latents that a sampler was last given, the final ones in the end."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from modules import script_callbacks  # noqa: TID251 an extension beside ours, not a part of it


def note(parameters: Any) -> None:
    """After each step's guidance; a sampler's last step ends in what it was given."""
    path = os.environ.get("LAYERDIFFUSE_WITNESS")
    if path:
        np.save(path, parameters.x.detach().float().cpu().numpy())


script_callbacks.on_cfg_after_cfg(note)
