"""What the commands about layer sets do with their parsed arguments."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from ..codec.harmlessness import load_codec
from ..engine import processes, training_device
from ..layer_sets.backdrops import open_backdrops
from ..layer_sets.compose import Things, compose, held_out_pairs
from ..layer_sets.layer_sets import LayerSet, layer_grid
from ..layer_sets.layer_sources import read_layers
from ..layers.layer_latents import LayerLatents, encode_layers
from ..layers.layers import train_layers
from ..options import read_options
from ..pictures.data import PreparedSet
from ..pictures.vocabulary import things_to_learn
from ..settings import ComposeOptions, LayerOptions
from .commands import _show, _written, run_config
from .models import model_to_tune, open_vae


def compose_layers(arguments: argparse.Namespace) -> None:
    """`train compose`."""
    options, things = read_options(arguments, ComposeOptions), _things(arguments)
    side, bar = things.rgba.shape[-1], partial(tqdm, unit="", delay=1)
    backdrops = open_backdrops(arguments.scenes, options.pictures, side, partial(bar, desc="pictures"))
    data = compose(things, backdrops, options, arguments.count, progress=partial(bar, desc="batches"))
    pairs = held_out_pairs(things.concepts, [words.name for words in backdrops.words])
    if arguments.held_out and pairs:
        data = data + compose(things, backdrops, options, arguments.held_out, held_out=True)
    data.skipped += backdrops.skipped
    write_layers(arguments, data, {"held_out_pairs": len(pairs), "scenes": len(backdrops.words)})


def _things(arguments: argparse.Namespace) -> Things:
    data, captions = things_to_learn(PreparedSet.load(arguments.set), arguments.vocabulary)
    return Things.of(data.to(training_device()), captions)


def write_layers(arguments: argparse.Namespace, data: LayerSet, figures: dict) -> None:
    """The file, a grid of samples, and the figures."""
    _written(arguments.out, data.save)
    out = Path(arguments.out)
    grid = arguments.grid or out.with_name(f"{out.stem}_samples.png")
    _written(grid, lambda path: layer_grid(data).save(path, "PNG"))
    _show({**data.statistics(), **figures, "grid": str(grid), "skipped_files": data.skipped})


def read_layer_sets(arguments: argparse.Namespace) -> None:
    """`train read-layers`."""
    data = read_layers(arguments.source, arguments.size, partial(tqdm, desc="sets", unit="", delay=1))
    write_layers(arguments, data, {})


def layer_latents(arguments: argparse.Namespace) -> None:
    """`train layer-latents`."""
    data, model = LayerSet.load(arguments.set), open_vae(arguments.vae, arguments.config)
    device = training_device()
    codec = load_codec(arguments.codec, model).to(device)
    made = encode_layers(model.to(device), codec, data, partial(tqdm, desc="batches", unit=""))
    _written(arguments.out, made.save)
    _show({"sets": len(made), "deviation": made.latents[:4096].float().std().item()})


def layers(arguments: argparse.Namespace) -> None:
    """`train layers`."""
    config, options = run_config(arguments), read_options(arguments, LayerOptions)
    data = LayerLatents.load(arguments.latents)
    pipeline, trained = model_to_tune(arguments)
    figures = train_layers(pipeline, data, config, options, trained)
    if processes().is_main_process:
        _show(figures)
