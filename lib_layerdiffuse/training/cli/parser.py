"""Command line of the training: `train ...` and `harmlessness`."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...cli.options import Subparsers
from ...files.whole_files import check_file, check_folder
from ...form.ranges import Range, file_option, path_option, source_option
from ..options import add_options
from ..settings import (
    DEMO_LAYERS,
    CodecOptions,
    ComposeOptions,
    ControlOptions,
    DiffusionOptions,
    LayerOptions,
    RunConfig,
    UNetShape,
    VaeOptions,
    VaeShape,
)

FILE, FOLDER, SOURCE = file_option, path_option, source_option
SIZES, IMAGES, VIEWS = Range(8, 2048, whole=True), Range(1, 10**6, whole=True), Range(1, 10**4, whole=True)
DIFFERENCE, STEPS = Range(0, 1), Range(1, 64, whole=True)
MERGES, LIMIT = Range(0, 10**6, whole=True), Range(0, 10**9, whole=True)
PASSES, SHARE = (1, 2, 4, 8), Range(0, 1)
SET_HELP = "file that `train prepare` wrote"
LAYERS_HELP = "file of layer sets that `train compose` or `train read-layers` wrote"
MODEL_HELP = "pipeline's folder, demo model's folder or checkpoint file"
CONFIG_HELP = "for a checkpoint file: its folder in diffusers' layout, weights not needed"
VAE_HELP = "frozen VAE: its folder or a pipeline's in diffusers' layout, a demo model's folder, or a checkpoint file"


@dataclass(frozen=True)
class Command:
    """A row of the table of commands: what it is called and does, its arguments, the function in `module`, and what
    --out is: a check that it can be written.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    function: str
    check_out: Callable[[str], object] = check_folder
    module: str = "commands"

    def run(self, arguments: argparse.Namespace) -> None:
        """Check where the result goes, then load what the work needs, and work."""
        if getattr(arguments, "out", None) is not None:
            self.check_out(arguments.out)
        getattr(importlib.import_module(f"{__package__}.{self.module}"), self.function)(arguments)


def add_parser(subparsers: Subparsers) -> None:
    """Add `train` with its commands, and `harmlessness`."""
    train = subparsers.add_parser("train", help="train a codec or a transparent model of one's own")
    steps = train.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        _add(steps, command)
    _add(subparsers, HARMLESSNESS)


def _add(subparsers: Subparsers, command: Command) -> None:
    parser = subparsers.add_parser(command.name, help=command.help, description=command.help)
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def number(rule: Range) -> dict[str, Any]:
    """argparse's arguments for a number in a range."""
    return {"type": rule.parse, "metavar": "N"}


def _prepare(parser: argparse.ArgumentParser) -> None:
    sources = "folder, tar or npm archive, or zip file of RGBA images; or a list of sources in JSON"
    parser.add_argument("sources", type=SOURCE, nargs="+", metavar="SOURCE", help=sources)
    captions = "JSON {file stem: caption}, or the npm package unicode-emoji-json; default: folder and file name"
    parser.add_argument("--folder", type=FOLDER, help="where a list's sources lie (default: beside the list)")
    parser.add_argument("--captions", type=SOURCE, help=captions)
    parser.add_argument(
        "--size", default=128, **number(SIZES), help="side of the square images in pixels (default: 128)"
    )
    parser.add_argument("--keep", type=FILE, help="vocabulary file whose captions are never held out")
    parser.add_argument(
        "--least-difference",
        default=0.0,
        **number(DIFFERENCE),
        help="leave out pictures nearer than this to one before (mean difference of small copies; default: 0)",
    )
    parser.add_argument("--out", type=FOLDER, required=True, help="file to write (.safetensors)")


def _pack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", type=FILE, help=SET_HELP)
    step = "colours are rounded to multiples of this; 1 keeps them all (default: 4)"
    parser.add_argument("--step", default=4, **number(STEPS), help=step)
    parser.add_argument("--out", type=FOLDER, required=True, help="file to write (.zip)")


def _statistics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", type=FILE, help=SET_HELP)


def _vae(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", type=FILE, help=SET_HELP)
    parser.add_argument("--layers", type=FILE, help=f"{LAYERS_HELP}, whose pictures are learnt beside the set's")
    parser.add_argument("--start", type=SOURCE, help="VAE to go on from, in place of a fresh one; its shape is its own")
    _run_options(parser)
    add_options(parser, VaeShape)
    add_options(parser, VaeOptions)


def _whiten(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", type=FILE, help=SET_HELP)
    parser.add_argument("--vae", type=SOURCE, required=True, help="VAE's folder")
    parser.add_argument("--images", default=256, **number(IMAGES), help="images for the statistics (default: 256)")
    parser.add_argument("--out", type=FOLDER, required=True, help="folder to write")


def _set_and_vae(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", type=FILE, help=SET_HELP)
    parser.add_argument("--vae", type=SOURCE, required=True, help=VAE_HELP)
    parser.add_argument("--config", type=FOLDER, help=CONFIG_HELP)


def _codec(parser: argparse.ArgumentParser) -> None:
    _set_and_vae(parser)
    parser.add_argument(
        "--start", type=FOLDER, help="folder of a codec for this VAE to go on from; shapes and unit are its own"
    )
    parser.add_argument("--evaluate", action="store_true", help="print the figures on held-out images at the end")
    _run_options(parser)
    add_options(parser, CodecOptions)


def _latents(parser: argparse.ArgumentParser) -> None:
    _set_and_vae(parser)
    parser.add_argument(
        "--codec", type=FOLDER, help="folder of the codec: adjusted latents; without it, opaque pictures"
    )
    parser.add_argument("--vocabulary", type=FILE, help="only these concepts, with their looks and other captions")
    parser.add_argument("--views", default=16, **number(VIEWS), help="random views of each image (default: 16)")
    parser.add_argument("--layers", type=FILE, help=f"{LAYERS_HELP}: learn their pictures too, opaque")
    parser.add_argument(
        "--blended-share", default=0.5, **number(SHARE), help="with --layers: share of things in scenes (default: 0.5)"
    )
    parser.add_argument(
        "--scene-share", default=0.15, **number(SHARE), help="with --layers: share of scenes alone (default: 0.15)"
    )
    parser.add_argument("--out", type=FOLDER, required=True, help="file to write (.safetensors)")


def _compose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", type=FILE, help=SET_HELP)
    parser.add_argument("--vocabulary", type=FILE, help="only these concepts, with their looks and other captions")
    scenes = (
        "painted (all painted scenes), names of painted scenes, folders or archives of pictures named by what they show"
    )
    parser.add_argument(
        "--scenes",
        nargs="+",
        default=["painted"],
        type=SOURCE,
        metavar="SCENE",
        help=f"{scenes} (default: painted)",
    )
    parser.add_argument("--count", default=2000, **number(IMAGES), help="layer sets to train on (default: 2000)")
    parser.add_argument(
        "--held-out",
        default=256,
        **number(LIMIT),
        help="sets of held-out pairs of a thing and a scene beside them (default: 256)",
    )
    _layer_files(parser)
    add_options(parser, ComposeOptions)


def _read_layers(parser: argparse.ArgumentParser) -> None:
    parts = "folders NAME with foreground, background and blended pictures and captions.json, PSD and ORA files"
    parser.add_argument("source", type=SOURCE, help=f"folder or archive of {parts}")
    parser.add_argument(
        "--size", default=128, **number(SIZES), help="side of the square layers in pixels (default: 128)"
    )
    _layer_files(parser)


def _layer_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grid", type=FOLDER, help="PNG to write with some of the sets (default: NAME_samples.png beside --out)"
    )
    parser.add_argument("--out", type=FOLDER, required=True, help="file to write (.safetensors)")


def _layer_latents(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", type=FILE, metavar="layers", help=LAYERS_HELP)
    parser.add_argument("--vae", type=SOURCE, required=True, help=VAE_HELP)
    parser.add_argument(
        "--config", type=FOLDER, help="for a checkpoint file: its folder in diffusers' layout, weights not needed"
    )
    parser.add_argument("--codec", type=FOLDER, required=True, help="folder of the codec, for the foregrounds")
    parser.add_argument("--out", type=FOLDER, required=True, help="file to write (.safetensors)")


def _text2image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latents", type=FILE, help="file that `train latents` wrote, of opaque pictures")
    parser.add_argument("--vae", type=SOURCE, required=True, help="the VAE's folder")
    parser.add_argument(
        "--merges", default=2000, **number(MERGES), help="merges of the tokenizer's vocabulary (default: 2000)"
    )
    parser.add_argument(
        "--start", type=SOURCE, help="model to go on from, in place of a fresh one; shape and words are its own"
    )
    _run_options(parser)
    add_options(parser, UNetShape)
    add_options(parser, DiffusionOptions, skip=("mode", "rank", "checkpointing", "name", "begin"))


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=SOURCE, required=True, help=MODEL_HELP)
    parser.add_argument("--config", type=FOLDER, help=CONFIG_HELP)


def _diffusion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latents", type=FILE, help="file that `train latents --codec` wrote")
    _model(parser)
    parser.add_argument("--codec", type=FOLDER, help="folder of the codec, to show samples as RGBA")
    _run_options(parser)
    add_options(parser, DiffusionOptions)


def _controlnet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sets", type=FILE, nargs="+", help=f"{SET_HELP}, or {LAYERS_HELP}; several")
    _model(parser)
    parser.add_argument(
        "--views", default=4, **number(VIEWS), help="random views of each picture of a prepared set (default: 4)"
    )
    _run_options(parser)
    add_options(parser, ControlOptions)


def _layers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latents", type=FILE, help="file that `train layer-latents` wrote")
    _model(parser)
    parser.add_argument("--codec", type=FOLDER, help="folder of the codec, to show foregrounds as RGBA")
    _run_options(parser)
    add_options(parser, LayerOptions)


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", type=SOURCE, help="folder that `train text2image` wrote (OUT/pipeline)")
    parser.add_argument("--codec", type=FOLDER, help="folder of the codec, to be written beside the checkpoint")
    parser.add_argument("--offsets", type=FILE, help="offset file that `train diffusion` wrote, likewise")
    parser.add_argument(
        "--vocabulary", type=FILE, help="vocabulary file, likewise: the words that users are told about"
    )
    for name in DEMO_LAYERS:
        parser.add_argument(f"--{name}", type=FILE, help=f"layer file that `train layers --method {name}` wrote")
    parser.add_argument("--controlnet", type=FILE, help="ControlNet that `train controlnet` wrote, likewise")
    parser.add_argument(
        "--out", type=FOLDER, required=True, help="folder to write: checkpoint, yaml and tokenizer for a WebUI"
    )


def _harmlessness(parser: argparse.ArgumentParser) -> None:
    _set_and_vae(parser)
    parser.add_argument("--codec", type=FOLDER, required=True, help="folder of encoder and decoder")
    parser.add_argument("--all", action="store_true", help="all images, not only the held-out ones")
    parser.add_argument(
        "--limit", default=0, **number(LIMIT), help="at most so many images, evenly spread; 0: all of them"
    )
    parser.add_argument(
        "--passes", default=1, type=int, choices=PASSES, help="orientations that vote: 1 (default), 2, 4 or 8"
    )
    parser.add_argument("--out", type=FOLDER, help="write the figures into this JSON file too")


def _nearest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", type=FILE, help=SET_HELP)
    parser.add_argument("pictures", type=SOURCE, nargs="+", help="folders or archives of painted RGBA pictures")
    parser.add_argument("--vocabulary", type=FILE, help="only these concepts of the set, with their looks and colours")
    parser.add_argument("--grid", type=FOLDER, help="picture to write: each picture beside its nearest (.png)")
    parser.add_argument("--out", type=FOLDER, help="write the figures into this JSON file too")


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=FOLDER, required=True, help="folder of the run: results, checkpoint, log, samples"
    )
    add_options(parser, RunConfig)


LAYERS, CONTROL = "layer_commands", "control_commands"
COMMANDS = (
    Command("prepare", "read RGBA images and captions into one file", _prepare, "prepare_set", check_file),
    Command("pack", "write a set as a small archive that `train prepare` reads", _pack, "pack_set", check_file),
    Command("statistics", "print how much of a set is transparent, soft and opaque", _statistics, "statistics"),
    Command("vae", "train a small VAE from nothing", _vae, "vae"),
    Command("whiten", "give a VAE latents of mean 0 and deviation 1", _whiten, "whiten_vae"),
    Command("codec", "train a transparency encoder and decoder for a frozen VAE", _codec, "codec"),
    Command("latents", "encode views of the images once, for the diffusion trainers", _latents, "latents", check_file),
    Command("compose", "put things into scenes: layer sets", _compose, "compose_layers", check_file, LAYERS),
    Command("read-layers", "read layer sets of one's own", _read_layers, "read_layer_sets", check_file, LAYERS),
    Command(
        "layer-latents",
        "encode layer sets once, for the layer trainers",
        _layer_latents,
        "layer_latents",
        check_file,
        LAYERS,
    ),
    Command("text2image", "train an ordinary small text-to-image model from nothing", _text2image, "text2image"),
    Command("diffusion", "make a diffusion model transparent", _diffusion, "diffusion"),
    Command("controlnet", "train a ControlNet that follows lines", _controlnet, "controlnet", module=CONTROL),
    Command("layers", "train layers that fit together: joint, fg2bg, bg2fg", _layers, "layers", module=LAYERS),
    Command(
        "nearest",
        "measure how near painted pictures come to those of a set",
        _nearest,
        "nearest",
        check_file,
        "nearest",
    ),
    Command("export", "write a trained pipeline as a checkpoint for a WebUI", _export, "export"),
)
HARMLESSNESS = Command(
    "harmlessness",
    "measure how much a transparency encoder harms its VAE, and what comes back",
    _harmlessness,
    "harmlessness",
    check_file,
)
