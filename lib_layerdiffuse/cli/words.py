"""`words`: what the demo model can paint."""

from __future__ import annotations

import argparse
import sys

from ..form.ranges import path_option, text_option
from ..standalone.vocabulary import SCENES, STYLES, read_scenes, read_styles, read_things
from .options import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the command `words`."""
    parser = subparsers.add_parser("words", help="list the words that the demo model knows")
    parser.add_argument("--demo", type=path_option, metavar="FOLDER", help="another demo model than the one that ships")
    parser.add_argument("contains", nargs="?", type=text_option, default="", help="only those that contain this text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print things, scenes and styles with their other names, a heading a group."""
    wanted = arguments.contains.strip().lower()
    found = 0
    groups = [(group, "thing", things) for group, things in read_things(arguments.demo).items()]
    groups.append((SCENES, "scene", [scene.captions + scene.phrases for scene in read_scenes(arguments.demo)]))
    groups.append((STYLES, "style", [(style,) for style in read_styles(arguments.demo)]))
    for group, what, rows in groups:
        matching = sorted(names for names in rows if any(wanted in name.lower() for name in names))
        if matching:
            found += len(matching)
            names = len({name for row in matching for name in row})
            sys.stdout.write(f"{group} ({counted(len(matching), what)}, {counted(names, 'name')})\n")
            sys.stdout.writelines(f"  {', or '.join(row)}\n" for row in matching)
    if not found:
        sys.stderr.write(f"note: the demo model knows no name that contains {arguments.contains!r}\n")


def counted(number: int, what: str) -> str:
    """`1 thing`, `2 things`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
