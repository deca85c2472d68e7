"""`methods`: the table of layer methods."""

from __future__ import annotations

import argparse
import sys

from ..core.methods import BASES, Method, methods_for
from ..core.modes import MODES
from .options import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the command `methods`."""
    parser = subparsers.add_parser("methods", help="list the layer methods and what they need")
    parser.add_argument("--base", choices=list(BASES), help="only those for one base model")
    parser.add_argument("--mode", choices=list(MODES), help="only those of one mode")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the methods, a paragraph each."""
    for method in methods_for(arguments.base, arguments.mode):
        sys.stdout.write(described(method))


def described(method: Method) -> str:
    """A paragraph on one method: id, base, mode, what goes in and comes out, its file and its label."""
    gives = [f"{frame} ({'RGBA' if method.is_transparent(n) else 'RGB'})" for n, frame in enumerate(method.frames)]
    return (
        f"{method.id}: {method.title}, {BASES[method.base].title}, --mode {method.mode}\n"
        f"  needs   {', '.join(f'--{name}' for name in method.images) or 'a prompt only'}\n"
        f"  gives   {', '.join(gives)}\n"
        f"  file    {method.weights}.safetensors\n"
        f"  known as {method.label}\n"
    )
