"""`cut`: an opaque picture cut out by the alpha of another one that shows the same shape."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..form.ranges import file_option, path_option
from .options import Subparsers

DESCRIPTION = (
    "For bases without layer files: paint a transparent picture with a base that has some, let a ControlNet for the "
    "other base follow its lines, and cut what that painted by the first picture's alpha."
)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command `cut`."""
    parser = subparsers.add_parser("cut", help="a picture cut out by another one's alpha", description=DESCRIPTION)
    parser.add_argument("picture", type=file_option, metavar="PICTURE", help="the opaque picture")
    parser.add_argument("alpha", type=file_option, metavar="ALPHA", help="the transparent one of the same shape")
    parser.add_argument(
        "--out", required=True, type=path_option, metavar="FILE", help="a PNG or WebP to write, or a folder"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Read both, cut, write."""
    from .. import api
    from ..standalone.picture_files import write_picture

    made = api.cut(arguments.picture, arguments.alpha)
    stem = f"{Path(arguments.picture).stem}-cut"
    sys.stdout.write(f"{write_picture(Path(arguments.out), made, '', stem)} written\n")
