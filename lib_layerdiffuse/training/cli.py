"""Command line of the training: `train ...` and `harmlessness`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from . import commands
from .codec import CodecOptions
from .diffusion import DiffusionOptions, UNetShape
from .engine import RunConfig
from .options import add_options
from .vae import VaeOptions, VaeShape

SET_HELP = "file that `train prepare` wrote"
VAE_HELP = "frozen VAE: its folder or a pipeline's in diffusers' layout, a demo model's folder, or a checkpoint file"


@dataclass(frozen=True)
class Command:
    """A row of the table of commands: what it is called, what it does, its arguments."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def add_parser(subparsers) -> None:
    """Add `train` with its commands, and `harmlessness`."""
    train = subparsers.add_parser("train", help="train a codec or a transparent model of one's own")
    steps = train.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        _add(steps, command)
    _add(subparsers, HARMLESSNESS)


def _add(subparsers, command: Command) -> None:
    parser = subparsers.add_parser(command.name, help=command.help, description=command.help)
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="folder, tar or npm archive, or zip file of RGBA images")
    parser.add_argument("--captions", help="JSON {file stem: caption}, or the npm package unicode-emoji-json;"
                        " default: folder and file name")  # fmt: skip
    parser.add_argument("--size", type=int, default=128, help="side of the square images in pixels (default: 128)")
    parser.add_argument("--keep", help="vocabulary file whose captions are never held out")
    parser.add_argument("--out", required=True, help="file to write (.safetensors)")


def _statistics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", help=SET_HELP)


def _vae(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", help=SET_HELP)
    _run_options(parser)
    add_options(parser, VaeShape)
    add_options(parser, VaeOptions)


def _whiten(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", help=SET_HELP)
    parser.add_argument("--vae", required=True, help="VAE's folder")
    parser.add_argument("--images", type=int, default=256, help="images for the statistics (default: 256)")
    parser.add_argument("--out", required=True, help="folder to write")


def _codec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", help=SET_HELP)
    parser.add_argument("--vae", required=True, help=VAE_HELP)
    parser.add_argument("--config", help="for a checkpoint file: its folder in diffusers' layout, weights not needed")
    parser.add_argument("--start", help="folder of a codec for this VAE to go on from; shapes and unit are its own")
    parser.add_argument("--evaluate", action="store_true", help="print the figures on held-out images at the end")
    _run_options(parser)
    add_options(parser, CodecOptions)


def _latents(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", help=SET_HELP)
    parser.add_argument("--vae", required=True, help=VAE_HELP)
    parser.add_argument("--config", help="for a checkpoint file: its folder in diffusers' layout, weights not needed")
    parser.add_argument("--codec", help="folder of the codec: adjusted latents; without it, opaque pictures")
    parser.add_argument("--vocabulary", help="only these concepts, with their looks and other captions")
    parser.add_argument("--views", type=int, default=16, help="random views of each image (default: 16)")
    parser.add_argument("--out", required=True, help="file to write (.safetensors)")


def _text2image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latents", help="file that `train latents` wrote, of opaque pictures")
    parser.add_argument("--vae", required=True, help="the VAE's folder")
    parser.add_argument("--merges", type=int, default=2000, help="merges of the tokenizer's vocabulary (default: 2000)")
    _run_options(parser)
    add_options(parser, UNetShape)
    add_options(parser, DiffusionOptions, skip=("mode", "rank", "checkpointing", "name"))


def _diffusion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latents", help="file that `train latents --codec` wrote")
    parser.add_argument("--model", required=True, help="pipeline's folder, demo model's folder or checkpoint file")
    parser.add_argument("--config", help="for a checkpoint file: its folder in diffusers' layout, weights not needed")
    parser.add_argument("--codec", help="folder of the codec, to show samples as RGBA")
    _run_options(parser)
    add_options(parser, DiffusionOptions)


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", help="folder that `train text2image` wrote (OUT/pipeline)")
    parser.add_argument("--codec", help="folder of the codec, to be written beside the checkpoint")
    parser.add_argument("--offsets", help="offset file that `train diffusion` wrote, likewise")
    parser.add_argument("--vocabulary", help="vocabulary file, likewise: the words that users are told about")
    parser.add_argument("--out", required=True, help="folder to write: checkpoint, yaml and tokenizer for a WebUI")


def _harmlessness(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", help=SET_HELP)
    parser.add_argument("--vae", required=True, help=VAE_HELP)
    parser.add_argument("--config", help="for a checkpoint file: its folder in diffusers' layout, weights not needed")
    parser.add_argument("--codec", required=True, help="folder of encoder and decoder")
    parser.add_argument("--all", action="store_true", help="all images, not only the held-out ones")
    parser.add_argument("--limit", type=int, default=0, help="at most so many images, evenly spread; 0: all of them")
    parser.add_argument("--passes", type=int, default=1, help="orientations that vote: 1 (default), 2, 4 or 8")
    parser.add_argument("--out", help="write the figures into this JSON file too")


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder of the run: results, checkpoint, log, samples")
    add_options(parser, RunConfig)


COMMANDS = (
    Command("prepare", "read RGBA images and captions into one file", _prepare, commands.prepare_set),
    Command("statistics", "print how much of a set is transparent, soft and opaque", _statistics, commands.statistics),
    Command("vae", "train a small VAE from nothing", _vae, commands.vae),
    Command("whiten", "give a VAE latents of mean 0 and deviation 1", _whiten, commands.whiten_vae),
    Command("codec", "train a transparency encoder and decoder for a frozen VAE", _codec, commands.codec),
    Command("latents", "encode views of the images once, for the diffusion trainers", _latents, commands.latents),
    Command("text2image", "train an ordinary small text-to-image model from nothing", _text2image, commands.text2image),
    Command("diffusion", "make a diffusion model transparent", _diffusion, commands.diffusion),
    Command("export", "write a trained pipeline as a checkpoint for a WebUI", _export, commands.export),
)
HARMLESSNESS = Command(
    "harmlessness",
    "measure how much a transparency encoder harms its VAE, and what comes back",
    _harmlessness,
    commands.harmlessness,
)
