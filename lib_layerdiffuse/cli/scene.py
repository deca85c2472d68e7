"""`scene`: a background and a list of prompts in a file; a layered file out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.names import slug
from ..form.ranges import file_option, path_option
from ..sets.save_options import DEFAULT
from ..standalone.settings import GenerateSettings
from . import export, options
from .generate import ProgressBar

if TYPE_CHECKING:
    from ..sets.layer_set import LayerSet

EXAMPLES = """a scene file, as YAML (or the same as JSON):
  seed: 7
  background: a beach
  layers:
    - a red apple
    - {prompt: a banana, weight: 0.9, left: 20, top: 10, scale: 0.5, opacity: 0.8}
    - {file: logo.png, name: Logo}
examples:
  scene beach.yaml --format psd --out out/
  scene beach.json --checkpoint sdxl.safetensors --models /path/to/webui/models
  scene beach.yaml --format psd --out out/ --resume"""
HOW = tuple(option for option in options.HOW if option.name not in ("weight", "batch"))
NEGATIVE = tuple(option for option in options.WHAT if option.name == "negative_prompt")


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command `scene`."""
    parser = subparsers.add_parser(
        "scene",
        help="a stack of layers from a scene file",
        description="Paint a background, then layer by layer on what is there, and save the layers as one file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=file_option, metavar="FILE", help="the scene: .yaml, .yml or .json")
    export.add_format(parser, DEFAULT, f" (default {DEFAULT})")
    parser.add_argument("--out", default="out", type=path_option, metavar="FOLDER", help="where it goes (default out)")
    parser.add_argument("--resume", action="store_true", help="go on from the layers of a run that was cut short")
    options.add_options(parser, "how to paint", (*NEGATIVE, *HOW), GenerateSettings)
    export.add_layer_options(parser)
    options.add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Check file and folder, then load, paint, write, and say where it is; what was painted is written in any case.

    KeyboardInterrupt, or whatever else ended it, after the layers that were done are written.
    """
    from .. import api
    from ..files.whole_files import check_folder
    from ..sets.formats import save_set
    from ..sets.kept_scene import ENDING, KeptScene
    from ..sets.scene import check_files, read_scene

    scene, chosen = read_scene(arguments.file), export.checked_options(arguments)
    check_files(scene)
    api.require_standalone()
    folder = check_folder(arguments.out)
    choices = {option.name: getattr(arguments, option.name) for option in (*NEGATIVE, *HOW)}
    done: list[LayerSet] = []

    def write(layers: LayerSet, stem: str, notes: list[str]) -> None:
        saved = save_set(layers, folder, stem, arguments.format, chosen)
        sys.stderr.writelines(f"note: {note}\n" for note in [*notes, *saved.notes])
        count = f"{len(layers)} layer{'' if len(layers) == 1 else 's'}"
        sys.stdout.write(f"{count} {'is' if len(layers) == 1 else 'are'} in {saved.path.resolve()}\n")

    stem, model = slug(Path(arguments.file).stem), options.model_settings(arguments)
    kept = KeptScene(scene, folder / f"{stem}{ENDING}", arguments.resume)
    kept.check()
    try:
        with ProgressBar() as progress:
            made = api.scene(kept, model=model, progress=progress, on_layer=done.append, **choices)
    except BaseException:
        if done:
            write(done[-1], f"{stem}-unfinished", ["the same command with --resume goes on from these layers"])
        raise
    write(made.layers, stem, made.notes)
    kept.remove()
