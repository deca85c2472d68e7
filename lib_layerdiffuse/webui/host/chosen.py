"""The checkpoint that is chosen and not loaded yet: the Forge family loads one when the first job needs it."""

from __future__ import annotations

import functools
from pathlib import Path

from ...core.errors import WeightsError
from ...files.checkpoints import checkpoint_shapes, recognise_base
from .modules import host_module


def chosen_file() -> Path | None:
    """The file that the next job will load; None where the WebUI loads what is chosen at once."""
    waiting = getattr(host_module("sd_models").model_data, "forge_loading_parameters", {})
    chosen = waiting.get("checkpoint_info")
    return None if chosen is None else Path(chosen.filename)


def chosen_base() -> str | None:
    """The base of that file; None where there is none, or its header does not tell. BaseMismatchError for others."""
    path = chosen_file()
    if path is None:
        return None
    try:
        known = path.stat()
        return base_in_file(path, known.st_mtime_ns, known.st_size)
    except (OSError, WeightsError):  # a pickle, GGUF, packed weights: known when it is loaded
        return None


@functools.lru_cache(maxsize=8)
def base_in_file(path: Path, _changed: int, _size: int) -> str:
    """The base of a checkpoint file as it was at this time; a page asks every few seconds."""
    return recognise_base(checkpoint_shapes(path), Path(path.name))  # a visitor need not read of folders
