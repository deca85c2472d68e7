"""`fingerprint`: the print of a base, by which a diagnosis tells how far a checkpoint is from it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import WeightsError
from ..form.ranges import file_option, path_option
from .options import Subparsers

if TYPE_CHECKING:
    from ..diagnosis.base_prints import BasePrint

DESCRIPTION = (
    "Writes some numbers of each layer of a base checkpoint (SD1.5, SDXL or Flux.1 that layer files were made for) "
    "to a small file. In a folder of layer files it lets the note on missing alpha tell how far the loaded "
    "checkpoint is from its base."
)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command `fingerprint`."""
    parser = subparsers.add_parser("fingerprint", help="the print of a base checkpoint", description=DESCRIPTION)
    parser.add_argument("base", type=file_option, metavar="BASE", help="the base's checkpoint (.safetensors)")
    parser.add_argument(
        "--out",
        required=True,
        type=path_option,
        metavar="FOLDER",
        help="a folder with layer files, such as a WebUI's models/layer_model",
    )
    parser.add_argument(
        "--compare", action="append", default=[], type=file_option, metavar="FILE", help="tell how far this one is"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Read the base, write its print, and tell how far the checkpoints to compare are from it."""
    from ..core.offsets.transplanting import opened
    from ..diagnosis.base_prints import file_name, print_of
    from ..files.checkpoints import checkpoint_shapes, network_prefix, recognise_base
    from ..files.whole_files import check_folder, write_whole

    folder, path = check_folder(arguments.out), Path(arguments.base)
    shapes = checkpoint_shapes(path)
    base, start = recognise_base(shapes, path), network_prefix(shapes)
    with opened(path) as file:
        names = [name for name in shapes if name.startswith(start)]
        made = print_of(base, path.stem, ((name[len(start) :], file.get_tensor(name)) for name in names))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file_name(base)
    write_whole(target, lambda partial: Path(partial).write_text(made.to_json(), encoding="utf-8"))
    sys.stdout.write(f"{target} written: {len(made.samples)} layers of {base}\n")
    for each in map(Path, arguments.compare):
        sys.stdout.write(f"{each.stem}: {distance(made, each):.1%} away\n")


def distance(base: BasePrint, path: Path) -> float:
    """How far a checkpoint is from a base, by its print; WeightsError where it is none of that base."""
    from ..core.offsets.transplanting import opened
    from ..files.checkpoints import checkpoint_shapes, network_prefix

    shapes = checkpoint_shapes(path)
    start = network_prefix(shapes)
    with opened(path) as file:
        found = base.drift(lambda name: file.get_tensor(start + name) if start + name in shapes else None)
    if found is None:
        raise WeightsError(f"{path}", f"a checkpoint of {base.base}", "compare checkpoints of one base")
    return found
