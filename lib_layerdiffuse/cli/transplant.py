"""`transplant`: a checkpoint's look on its base, without the layers that a method needs as they are."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..form.ranges import Range, file_option, path_option
from .options import Subparsers

SHARE = Range(0, 1)
DESCRIPTION = (
    "For checkpoints that give no alpha because they are far from the base that a method was made for: writes the base "
    "with a share of what the checkpoint has learned, in layers that the method's file does not touch. The VAE stays "
    "the base's."
)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command `transplant`."""
    parser = subparsers.add_parser(
        "transplant", help="a checkpoint that keeps a method's alpha", description=DESCRIPTION
    )
    parser.add_argument(
        "base", type=file_option, metavar="BASE", help="the checkpoint that the method was made for (.safetensors)"
    )
    parser.add_argument(
        "checkpoint", type=file_option, metavar="CHECKPOINT", help="the one made from it that loses alpha"
    )
    parser.add_argument(
        "--layer-file", required=True, type=file_option, metavar="FILE", help="the weights of the method"
    )
    parser.add_argument("--share", type=SHARE.parse, default=1.0, metavar="X", help="of the difference, 0 to 1 (1)")
    parser.add_argument(
        "--out", required=True, type=path_option, metavar="FILE", help="the checkpoint to write (.safetensors)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Merge, write, and show how far the checkpoint is from its base."""
    from ..core.offsets.transplanting import touches, transplant
    from ..files.whole_files import check_file, save_tensors

    out = check_file(arguments.out)
    touched = touches(Path(arguments.layer_file))
    result = transplant(Path(arguments.base), Path(arguments.checkpoint), touched, arguments.share)
    save_tensors(result.tensors, out, {"format": "pt"})
    parts = {"merged": result.merged, "kept_for_the_method": result.touched}
    figures = {name: {"tensors": drift.tensors, "drift": round(drift.relative, 4)} for name, drift in parts.items()}
    sys.stdout.write(json.dumps({**figures, "written": str(out)}, indent=2) + "\n")
