"""`methods`: the tables of layer methods, and of chains of them."""

from __future__ import annotations

import argparse
import sys

from ..core.bases import BASES
from ..core.methods import Method
from ..core.modes import MODES
from ..form.ways import ways_for
from ..sets.chains import Chain
from .options import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the command `methods`."""
    parser = subparsers.add_parser("methods", help="list the layer methods and what they need")
    parser.add_argument("--base", choices=list(BASES), help="only those for one base model")
    parser.add_argument("--mode", choices=list(MODES), help="only those of one mode")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the methods and chains, a paragraph each."""
    for row in ways_for(arguments.base, arguments.mode):
        sys.stdout.write(described_chain(row) if isinstance(row, Chain) else described(row))


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


def described_chain(chain: Chain) -> str:
    """A paragraph on one chain: id, base, name, what goes in and comes out, and the methods of its steps."""
    gives = [f"{frame} ({'RGBA' if chain.transparent(frame) else 'RGB'})" for frame in chain.makes]
    steps = [step.method for step in chain.steps]
    return (
        f"{chain.id}: {chain.title}, {BASES[chain.base].title}, --chain {chain.name}\n"
        f"  needs   {', '.join(f'--{name}' for name in chain.images) or 'a prompt only'}\n"
        f"  gives   {', '.join(gives)}\n"
        f"  steps   {', then '.join(steps)}\n"
        f"  known as {chain.label}\n"
    )
