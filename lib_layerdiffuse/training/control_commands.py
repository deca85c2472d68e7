"""What `train controlnet` does with its parsed arguments."""

from __future__ import annotations

import argparse
from functools import partial

from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm

from .commands import _show, run_config
from .control_data import ControlSet, from_layers, from_prepared, joined
from .controlnet import train_controlnet
from .data import PreparedSet
from .engine import processes
from .layer_sets import LayerSet
from .models import load_pipeline
from .options import read_options
from .settings import ControlOptions


def controlnet(arguments: argparse.Namespace) -> None:
    """`train controlnet`."""
    config, options = run_config(arguments), read_options(arguments, ControlOptions)
    data = joined([control_set(path, arguments.views) for path in arguments.sets])
    pipeline = load_pipeline(arguments.model, arguments.config)
    figures = train_controlnet(pipeline, data, config, options, partial(tqdm, desc="batches", unit="", delay=1))
    if processes().is_main_process:
        _show(figures)


def control_set(path: str, views: int) -> ControlSet:
    """What a file of either kind has to show, its held-out part left out."""
    if holds_layers(path):
        layers = LayerSet.load(path).part(held_out=False)
        return from_layers(layers.foreground, layers.background, layers.blended, layers.captions)
    return from_prepared(PreparedSet.load(path).part(held_out=False), views)


def holds_layers(path: str) -> bool:
    """Whether a file is one of layer sets; what cannot be read is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return "blended" in file.keys()
    except (SafetensorError, OSError):
        return False
