"""Options of commands that load a model and paint, as rows; each row fills one field of the settings."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from ..settings import MODES, PASSES, RESIZE_MODES, GenerateSettings, ModelSettings, parse_size


@dataclass(frozen=True)
class Option:
    """An option of the command line for the settings field `name`."""

    flag: str
    name: str
    help: str
    more: dict[str, Any] = field(default_factory=dict)
    short: str | None = None


WHAT = (
    Option("--mode", "mode", "; ".join(f"{name}: {text}" for name, text in MODES.items()), {"choices": list(MODES)}),
    Option("--method", "method", "a method by id or label (see the command `methods`); default: the first of the mode"),
    Option("--negative", "negative_prompt", "what the picture should not show", {"metavar": "TEXT"}),
    Option("--count", "count", "pictures, or groups of layers, for each prompt", {"type": int}, "-n"),
    Option("--seed", "seed", "seed of the first picture, the next ones count on; -1 draws one", {"type": int}),
)
HOW = (
    Option("--steps", "steps", "sampling steps", {"type": int}),
    Option("--guidance", "guidance", "classifier-free guidance scale; default: the model's own", {"type": float}),
    Option("--sampler", "sampler", "such as euler, ddim or dpm++-2m-karras; default: the model's own"),
    Option("--weight", "weight", "strength of the method: 1 as published, 0 the ordinary model", {"type": float}),
    Option("--stop-at", "stop_at", "share of the sampling after which the ordinary model goes on", {"type": float}),
    Option("--passes", "passes", "orientations that the alpha is averaged over", {"type": int, "choices": PASSES}),
    Option(
        "--keep-haze",
        "clear_haze",
        "leave alpha of 1, 2, 253 and 254 of 255 as it is decoded",
        {"action": "store_false"},
    ),
    Option("--batch", "batch", "pictures, or groups, computed at once; fewer need less memory", {"type": int}),
)
IMAGES = (
    Option("--foreground", "foreground", "foreground for a method that needs one; may have alpha", {"metavar": "PNG"}),
    Option("--background", "background", "background for a method that needs one", {"metavar": "PNG"}),
    Option(
        "--blended", "blended", "picture of foreground on background, for a method that needs one", {"metavar": "PNG"}
    ),
    Option("--init", "init", "picture to start from (image to image); its alpha counts", {"metavar": "PNG"}),
    Option("--denoise", "denoise", "how much to change --init: 0 nothing, 1 everything", {"type": float}),
    Option("--resize-mode", "resize_mode", "how images are brought to size", {"choices": RESIZE_MODES}),
    Option("--foreground-prompt", "foreground_prompt", "extra words for the foreground", {"metavar": "TEXT"}),
    Option("--background-prompt", "background_prompt", "extra words for the background", {"metavar": "TEXT"}),
    Option("--blended-prompt", "blended_prompt", "extra words for the blended picture", {"metavar": "TEXT"}),
)
METAVARS = {int: "N", float: "X"}
MODEL = (
    Option(
        "--checkpoint", "checkpoint", "an SD1.5 or SDXL .safetensors file; default: the demo model", {"metavar": "FILE"}
    ),
    Option("--config", "config", "its configuration in diffusers' layout, for loading offline", {"metavar": "FOLDER"}),
    Option(
        "--models",
        "models",
        "folder with layer files, or a WebUI's models folder; repeatable",
        {"action": "append", "metavar": "FOLDER"},
    ),
    Option("--demo", "demo", "another demo model folder than the one that ships", {"metavar": "FOLDER"}),
    Option("--offline", "offline", "never download anything", {"action": "store_true"}),
    Option("--device", "device", "cpu, cuda, cuda:1 or mps; default: the best there is"),
    Option(
        "--precision", "precision", "default: what suits the device", {"choices": ["float32", "float16", "bfloat16"]}
    ),
)


def add_options(parser: argparse.ArgumentParser, title: str, options: tuple[Option, ...], settings: type) -> None:
    """Add `options` as a group, with the defaults of the dataclass `settings` shown in the help."""
    group = parser.add_argument_group(title)
    defaults = {row.name: None if row.default is MISSING else row.default for row in fields(settings)}
    for option in options:
        default = defaults[option.name]
        shown = (
            option.help if default in (None, "") or isinstance(default, bool) else f"{option.help} (default {default})"
        )
        more = dict(option.more)
        if not more.keys() & {"metavar", "choices"} and more.get("action") not in ("store_true", "store_false"):
            more["metavar"] = METAVARS.get(more.get("type"), "NAME")
        flags = [flag for flag in (option.short, option.flag) if flag]
        group.add_argument(*flags, dest=option.name, default=default, help=shown.replace("%", "%%"), **more)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that fill ModelSettings."""
    add_options(parser, "model", MODEL, ModelSettings)


def model_settings(arguments: argparse.Namespace) -> ModelSettings:
    """ModelSettings of parsed arguments."""
    values = {option.name: getattr(arguments, option.name) for option in MODEL}
    return ModelSettings(**{**values, "models": tuple(values["models"] or ())})


def generate_settings(arguments: argparse.Namespace) -> GenerateSettings:
    """GenerateSettings of parsed arguments."""
    values = {option.name: getattr(arguments, option.name) for option in (*WHAT, *HOW, *IMAGES)}
    width, height = parse_size(arguments.size) if arguments.size else (None, None)
    return GenerateSettings(arguments.prompt, transparent=not arguments.plain, width=width, height=height, **values)
