"""`words`: what the demo model can paint."""

from __future__ import annotations

import argparse
import sys

from ..hosts.vocabulary import read_vocabulary


def add_parser(subparsers) -> None:
    """Add the command `words`."""
    parser = subparsers.add_parser("words", help="list the words that the demo model knows")
    parser.add_argument("--demo", metavar="FOLDER", help="another demo model than the one that ships")
    parser.add_argument("contains", nargs="?", default="", help="only those that contain this text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the captions, a heading a group."""
    for group, captions in read_vocabulary(arguments.demo).items():
        matching = [caption for caption in captions if arguments.contains.lower() in caption.lower()]
        if matching:
            sys.stdout.write(f"{group} ({len(matching)})\n" + "".join(f"  {caption}\n" for caption in sorted(matching)))
