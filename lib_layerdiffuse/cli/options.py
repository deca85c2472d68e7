"""Options of commands that load a model and paint, as rows; each row fills one field of the settings."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from ..core.errors import InputError
from ..core.modes import MODES
from ..form.ranges import file_option, path_option, shown, source_option, text_option
from ..sets.chains import CHAIN_NAMES
from ..standalone.settings import (
    HIDDEN_COLOURS,
    NUMBER_RULES,
    PASSES,
    PRECISIONS,
    RESIZE_MODES,
    SIZE_MAX,
    SIZE_MIN,
    GenerateSettings,
    ModelSettings,
    parse_size,
)

Subparsers: TypeAlias = "argparse._SubParsersAction[Any]"  # what `add_subparsers` gives, which argparse has no name for


@dataclass(frozen=True)
class Option:
    """An option of the command line for the settings field `name`."""

    flag: str
    name: str
    help: str
    more: dict[str, Any] = field(default_factory=dict)
    short: str | None = None


def path_or_name(text: str) -> Path | str:
    """The path of a file that is there; any other text is the name of one in the folders."""
    return Path(text) if Path(path_option(text)).is_file() else text


TEXT = {"type": text_option, "metavar": "TEXT"}
IMAGE = {"type": file_option, "metavar": "PNG"}
FILE = {"type": file_option, "metavar": "FILE"}
FILE_OR_FOLDER = {"type": source_option, "metavar": "FILE"}
FOLDER = {"type": path_option, "metavar": "FOLDER"}
OWN_FILE = {"type": path_or_name, "metavar": "FILE"}
WHAT = (
    Option(
        "--mode", "mode", "; ".join(f"{mode.id}: {mode.gives}" for mode in MODES.values()), {"choices": list(MODES)}
    ),
    Option("--method", "method", "a method by id or label (see the command `methods`); default: the first of the mode"),
    Option(
        "--chain",
        "chain",
        "whole sets of foreground, background and blended picture, by as many methods as it takes",
        {"choices": CHAIN_NAMES},
    ),
    Option("--negative", "negative_prompt", "what the picture should not show", TEXT),
    Option("--count", "count", "pictures, or groups of layers, for each prompt", short="-n"),
    Option("--seed", "seed", "seed of the first picture, the next ones count on; -1 draws one"),
)
HOW = (
    Option("--steps", "steps", "sampling steps"),
    Option("--guidance", "guidance", "classifier-free guidance scale; default: the model's own"),
    Option("--sampler", "sampler", "such as euler, ddim or dpm++-2m-karras; default: the model's own"),
    Option("--weight", "weight", "strength of the method: 1 as published, 0 the ordinary model"),
    Option("--stop-at", "stop_at", "share of the sampling after which the ordinary model goes on"),
    Option("--passes", "passes", "orientations that the alpha is averaged over", {"type": int, "choices": PASSES}),
    Option(
        "--keep-haze",
        "clear_haze",
        "leave alpha of 1, 2, 253 and 254 of 255 as it is decoded",
        {"action": "store_false"},
    ),
    Option(
        "--hidden-colours",
        "hidden_colours",
        "colours under full transparency: the visible ones go on, as decoded, or black",
        {"choices": HIDDEN_COLOURS},
    ),
    Option("--batch", "batch", "pictures, or groups, computed at once; fewer need less memory"),
)
IMAGES = (
    Option("--foreground", "foreground", "foreground for a method that needs one; may have alpha", IMAGE),
    Option("--background", "background", "background for a method that needs one", IMAGE),
    Option("--blended", "blended", "picture of foreground on background, for a method that needs one", IMAGE),
    Option("--init", "init", "picture to start from (image to image); its alpha counts", IMAGE),
    Option("--denoise", "denoise", "how much to change --init: 0 nothing, 1 everything"),
    Option("--resize-mode", "resize_mode", "how images are brought to size", {"choices": RESIZE_MODES}),
    Option("--foreground-prompt", "foreground_prompt", "extra words for the foreground", TEXT),
    Option("--background-prompt", "background_prompt", "extra words for the background", TEXT),
    Option("--blended-prompt", "blended_prompt", "extra words for the blended picture", TEXT),
    Option("--foreground-seed", "foreground_seed", "its own seed in the first set; -1: that of the set"),
    Option("--background-seed", "background_seed", "likewise"),
    Option("--blended-seed", "blended_seed", "likewise"),
)
FILES = (
    Option(
        "--layer-file",
        "layer_file",
        "the method's weights: a file, or the name of one in the folders of layer files",
        OWN_FILE,
    ),
    Option("--decoder", "decoder_file", "the transparency decoder, likewise", OWN_FILE),
    Option("--encoder", "encoder_file", "the transparency encoder, likewise", OWN_FILE),
)
CONTROL = (
    Option("--controlnet", "controlnet", "a ControlNet for the base; the demo model has one of its own", FILE),
    Option("--control-image", "control_image", "what the ControlNet follows; lines are white on black", IMAGE),
    Option("--control-strength", "control_strength", "how closely it is followed: 0 not at all"),
    Option(
        "--draw-lines",
        "draw_lines",
        "--control-image is an ordinary picture: draw its lines first",
        {"action": "store_true"},
    ),
)
MODEL = (
    Option(
        "--checkpoint",
        "checkpoint",
        "an SD1.5, SDXL or Flux .safetensors file, or a folder of Flux in diffusers' layout; default: the demo model",
        FILE_OR_FOLDER,
    ),
    Option(
        "--config",
        "config",
        "its configuration in diffusers' layout, for loading offline; for a file of Flux with text encoders and VAE",
        FOLDER,
    ),
    Option(
        "--models",
        "models",
        "folder with layer files, or a WebUI's models folder; repeatable",
        {"action": "append", **FOLDER},
    ),
    Option("--demo", "demo", "another demo model folder than the one that ships", FOLDER),
    Option("--offline", "offline", "never download anything", {"action": "store_true"}),
    Option("--device", "device", "cpu, cuda, cuda:1 or mps; default: the best there is"),
    Option("--precision", "precision", "default: what suits the device", {"choices": PRECISIONS}),
)


def add_options(parser: argparse.ArgumentParser, title: str, options: tuple[Option, ...], settings: type) -> None:
    """Add `options` as a group, with the defaults of the dataclass `settings` shown in the help."""
    group = parser.add_argument_group(title)
    defaults = {row.name: None if row.default is MISSING else row.default for row in fields(settings)}
    for option in options:
        default = defaults[option.name]
        named = default in (None, "") or isinstance(default, bool)
        text = option.help if named else f"{option.help} (default {default})"
        flags = [flag for flag in (option.short, option.flag) if flag]
        more = {**_number_or_name(option), **option.more}
        group.add_argument(*flags, dest=option.name, default=default, help=text.replace("%", "%%"), **more)


def _number_or_name(option: Option) -> dict[str, Any]:
    """What argparse is told of an option whose row does not say it: a number in its range, or a name."""
    if "action" in option.more or "choices" in option.more:
        return {}
    rule = NUMBER_RULES.get(option.name)
    if rule is None:
        return {"type": text_option, "metavar": "NAME"}
    return {"type": rule.parse, "metavar": "N" if rule.whole else "X"}


def size_option(text: str) -> tuple[int, int]:
    """argparse's type of --size: (width, height). ArgumentTypeError for anything else."""
    try:
        size = parse_size(text)
    except InputError:
        size = (0, 0)
    if not all(SIZE_MIN <= side <= SIZE_MAX for side in size):
        sides = f"each side from {SIZE_MIN} to {SIZE_MAX}"
        raise argparse.ArgumentTypeError(f"got {shown(text)}; expected WIDTHxHEIGHT in pixels, {sides}")
    return size


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that fill ModelSettings."""
    add_options(parser, "model", MODEL, ModelSettings)


def model_settings(arguments: argparse.Namespace) -> ModelSettings:
    """ModelSettings of parsed arguments."""
    values = {option.name: getattr(arguments, option.name) for option in MODEL}
    return ModelSettings(**{**values, "models": tuple(values["models"] or ())})


def generate_settings(arguments: argparse.Namespace) -> GenerateSettings:
    """GenerateSettings of parsed arguments."""
    values = {option.name: getattr(arguments, option.name) for option in (*WHAT, *HOW, *IMAGES, *CONTROL, *FILES)}
    width, height = arguments.size or (None, None)
    return GenerateSettings(arguments.prompt, transparent=not arguments.plain, width=width, height=height, **values)
