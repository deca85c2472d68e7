"""What `train controlnet` does with its parsed arguments."""

from __future__ import annotations

import argparse
from functools import partial

from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm

from ..diffusion.control_data import ControlSet, from_layers, from_prepared, joined
from ..diffusion.controlnet import train_controlnet
from ..engine import processes
from ..layer_sets.layer_sets import LayerSet
from ..options import read_options
from ..pictures.data import PreparedSet
from ..settings import ControlOptions
from .commands import _show, run_config
from .models import load_pipeline


def controlnet(arguments: argparse.Namespace) -> None:
    """`train controlnet`."""
    config, options = run_config(arguments), read_options(arguments, ControlOptions)
    files = [(path, holds_layers(path)) for path in arguments.sets]
    loaded = [(LayerSet if layers else PreparedSet).load(path) for path, layers in files]
    data = joined([control_set(part.part(held_out=False), arguments.views) for part in loaded])
    held_out = [control_set(part.part(held_out=True), 1) for part in loaded if any(part.held_out)]
    measured = joined(held_out) if held_out else data
    pipeline = load_pipeline(arguments.model, arguments.config)
    progress = partial(tqdm, desc="batches", unit="", delay=1)
    figures = train_controlnet(pipeline, (data, measured), config, options, progress)
    if processes().is_main_process:
        _show(figures)


def control_set(data: LayerSet | PreparedSet, views: int) -> ControlSet:
    """What a set of either kind has to show."""
    if isinstance(data, LayerSet):
        return from_layers(data.foreground, data.background, data.blended, data.captions)
    return from_prepared(data, views)


def holds_layers(path: str) -> bool:
    """Whether a file is one of layer sets; what cannot be read is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return "blended" in file.keys()
    except (SafetensorError, OSError):
        return False
