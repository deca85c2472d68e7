"""What the training commands do with their parsed arguments."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ...core.errors import InputError, OutputError
from ...core.files.weights import SUFFIX
from ...files.demo_folder import CONTROLNET
from ...files.whole_files import ordinary_modes
from ...standalone.controlnet_files import read_controlnet, write_controlnet
from ..codec.codec import train_codec
from ..codec.harmlessness import evaluate_codec, load_codec
from ..codec.vae import draw_images, evaluate_vae, load_vae, train_vae, whiten
from ..diffusion.convert import check_layers, check_transparency, export_demo, export_layers, export_transparency
from ..diffusion.diffusion import build_pipeline, started_pipeline, train_diffusion, train_text2image
from ..diffusion.flow import train_flow
from ..diffusion.latents import LatentSet, encode_views
from ..diffusion.text import build_tokenizer, load_tokenizer
from ..engine import check_tracker, processes, training_device
from ..layer_sets.layer_sets import LayerSet
from ..layers.layer_latents import Mixture, encode_mixture
from ..options import read_options
from ..pictures.data import PreparedSet, load_captions, prepare
from ..pictures.pack import pack
from ..pictures.recipe import as_sources
from ..pictures.vocabulary import Vocabulary, things_to_learn
from ..settings import DEMO_LAYERS, CodecOptions, DiffusionOptions, RunConfig, UNetShape, VaeOptions, VaeShape
from .models import load_pipeline, model_to_tune, open_vae

EVALUATED = 64  # images for the figures at the end of a run


def run_config(arguments: argparse.Namespace) -> RunConfig:
    """The options of a run, and whether what they name is installed: read before anything is loaded."""
    config = read_options(arguments, RunConfig, out=arguments.out)
    check_tracker(config)
    return config


def prepare_set(arguments: argparse.Namespace) -> None:
    """`train prepare`."""
    captions = load_captions(arguments.captions) if arguments.captions else None
    keep = Vocabulary.load(arguments.keep).keep if arguments.keep else ()
    progress = partial(tqdm, desc="images", unit="", delay=1)
    sources = as_sources(arguments.sources, captions, arguments.folder)
    data = prepare(sources, arguments.size, None, keep, progress, arguments.least_difference)
    _written(arguments.out, data.save)
    _show({**data.statistics(), "by_source": data.by_source(), "skipped_files": data.skipped})


def pack_set(arguments: argparse.Namespace) -> None:
    """`train pack`."""
    data = PreparedSet.load(arguments.set)
    pack(data, arguments.out, arguments.step)
    _show({"images": len(data), "bytes": Path(arguments.out).stat().st_size})


def statistics(arguments: argparse.Namespace) -> None:
    """`train statistics`."""
    data = PreparedSet.load(arguments.set)
    _show({**data.statistics(), "by_source": data.by_source(), "skipped_files": data.skipped})


def vae(arguments: argparse.Namespace) -> None:
    """`train vae`; InputError for options that do not go together."""
    config, shape, options = (
        run_config(arguments),
        read_options(arguments, VaeShape),
        read_options(arguments, VaeOptions),
    )
    names = {"--decoder-only": options.decoder_only, "--encoder-only": options.encoder_only, "--grow": options.grow}
    alone = [name for name, given in names.items() if given]
    if alone and not arguments.start:
        raise InputError(f"{alone[0]} alone", "a trained VAE", "name its folder with --start")
    data, scenes = PreparedSet.load(arguments.set), None
    if arguments.layers:
        layers = LayerSet.load(arguments.layers).part(held_out=False)
        scenes = torch.cat([layers.blended, layers.background])
    start = open_vae(arguments.start) if arguments.start else shape
    figures = train_vae(data, config, start, options, scenes)
    if processes().is_main_process:
        measured = evaluate_vae(load_vae(Path(config.out) / "vae").to(training_device()), _evaluated(data))
        _show({**figures, "held_out_psnr": measured})


def whiten_vae(arguments: argparse.Namespace) -> None:
    """`train whiten`."""
    data = PreparedSet.load(arguments.set)
    images = draw_images(data.part(held_out=False), arguments.images, None, torch.Generator().manual_seed(0))
    model = load_vae(arguments.vae).to(training_device())
    before = evaluate_vae(model, _evaluated(data))
    whiten(model, images)
    _written(arguments.out, model.save_pretrained)
    ordinary_modes(Path(arguments.out))
    _show({"held_out_psnr_before": before, "held_out_psnr": evaluate_vae(model, _evaluated(data))})


def codec(arguments: argparse.Namespace) -> None:
    """`train codec`; InputError for options that do not go together."""
    config, options = run_config(arguments), read_options(arguments, CodecOptions)
    if options.freeze_encoder and not arguments.start:
        raise InputError("--freeze-encoder alone", "a trained encoder", "name its folder with --start")
    data, model = PreparedSet.load(arguments.set), open_vae(arguments.vae, arguments.config)
    start = load_codec(arguments.start, model, data.part(held_out=False)) if arguments.start else None
    figures = train_codec(model, data, config, options, start)
    if processes().is_main_process:
        _show({**figures, **(_codec_figures(model, data, arguments.out) if arguments.evaluate else {})})


def _codec_figures(model: Any, data: PreparedSet, folder: str) -> dict[str, float]:
    trained = load_codec(folder, model.cpu(), data.part(held_out=False))
    return evaluate_codec(model, trained, _evaluated(data))


def harmlessness(arguments: argparse.Namespace) -> None:
    """`harmlessness`."""
    data, model = PreparedSet.load(arguments.set), open_vae(arguments.vae, arguments.config)
    measured = data if arguments.all else data.part(held_out=True)
    if arguments.limit:
        measured = _spread(measured, arguments.limit)
    trained = load_codec(arguments.codec, model, data).to(training_device())
    bar = partial(tqdm, desc="batches", unit="")
    figures = evaluate_codec(model, trained, measured, progress=bar, passes=arguments.passes)
    if arguments.out:
        _written(arguments.out, lambda path: Path(path).write_text(json.dumps(figures, indent=2) + "\n"))
    _show(figures)


def latents(arguments: argparse.Namespace) -> None:
    """`train latents`."""
    data, model = PreparedSet.load(arguments.set), open_vae(arguments.vae, arguments.config)
    trained = load_codec(arguments.codec, model, data).to(training_device()) if arguments.codec else None
    model.to(training_device())
    data, captions = things_to_learn(data, arguments.vocabulary)
    bar = partial(tqdm, desc="batches", unit="")
    if arguments.layers:
        made = _mixed_latents(arguments, model, (data, captions, arguments.views), bar)
    else:
        made = encode_views(model, data, captions, arguments.views, trained, bar)
    _written(arguments.out, made.save)
    _show({"images": len(data), "latents": len(made), "deviation": made.latents.float().std().item()})


def _mixed_latents(arguments: argparse.Namespace, model: Any, things: tuple, bar: Any) -> LatentSet:
    if arguments.codec:
        raise InputError(
            "--layers with --codec", "one of them", "encode opaque and transparent pictures into two files"
        )
    mixture = Mixture(arguments.blended_share, arguments.scene_share)
    return encode_mixture(model, things, LayerSet.load(arguments.layers), mixture, bar)


def text2image(arguments: argparse.Namespace) -> None:
    """`train text2image`."""
    config, shape = run_config(arguments), read_options(arguments, UNetShape)
    options = read_options(arguments, DiffusionOptions)
    data, model = LatentSet.load(arguments.latents), load_vae(arguments.vae)
    if arguments.start:
        pipeline = started_pipeline(load_pipeline(arguments.start), model, data)
    else:
        pipeline = _fresh_pipeline(arguments, config, data, model, shape)
    figures = train_text2image(pipeline, data, config, options)
    if processes().is_main_process:
        _show(figures)


def _fresh_pipeline(arguments: argparse.Namespace, config: RunConfig, data: LatentSet, model: Any, shape: UNetShape):
    folder = Path(config.out) / "tokenizer"
    with processes().main_process_first():  # the others read what the first one wrote
        fresh = not (folder / "vocab.json").exists()
        texts = [text for variants in data.captions for text in variants]
        tokenizer = build_tokenizer(texts, folder, arguments.merges) if fresh else load_tokenizer(folder)
    torch.manual_seed(config.seed)
    return build_pipeline(model, tokenizer, data, shape)


def diffusion(arguments: argparse.Namespace) -> None:
    """`train diffusion`."""
    config, options = run_config(arguments), read_options(arguments, DiffusionOptions)
    data = LatentSet.load(arguments.latents)
    pipeline, trained = model_to_tune(arguments)
    tune = train_flow if hasattr(pipeline, "transformer") else train_diffusion
    figures = tune(pipeline, data, config, options, trained)
    if processes().is_main_process:
        _show(figures)


def export(arguments: argparse.Namespace) -> None:
    """`train export`; InputError for options that do not go together."""
    transparent = (arguments.codec, arguments.offsets, arguments.vocabulary)
    if any(transparent) and not all(transparent):
        raise InputError("one or two of --codec, --offsets and --vocabulary", "all three, or none", "add the others")
    pipeline = load_pipeline(arguments.pipeline)
    named = {f"demo_{name}": getattr(arguments, name) for name in DEMO_LAYERS}
    layers = {name: path for name, path in named.items() if path}
    if all(transparent):
        check_transparency(*transparent, pipeline)
    check_layers(layers, pipeline)
    control = read_controlnet(arguments.controlnet, pipeline.unet) if arguments.controlnet else None
    tokenizer = Path(arguments.pipeline) / "tokenizer"
    folder = export_demo(pipeline.vae, pipeline.text_encoder, tokenizer, pipeline.unet, arguments.out)
    if all(transparent):
        export_transparency(*transparent, folder)
    export_layers(layers, folder)
    if control is not None:
        write_controlnet(control, folder / f"{CONTROLNET}{SUFFIX}")
    ordinary_modes(folder)
    _show({"written": sorted(path.name for path in folder.iterdir())})


def _evaluated(data: PreparedSet) -> PreparedSet:
    held = data.part(held_out=True)
    return _spread(held if len(held) else data, EVALUATED)


def _spread(data: PreparedSet, count: int) -> PreparedSet:
    count = min(count, len(data))
    return data.select(sorted({round(i * (len(data) - 1) / max(1, count - 1)) for i in range(count)}))


def _written(path: str | Path, write: Callable[[str | Path], object]) -> None:
    """Write to `path`; OutputError when the disk does not take it."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write(path)
    except OSError as error:
        raise OutputError(f"{path}: {error}", "a writable place with room", "free space, or choose another") from error


def _show(figures: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
