"""Dataclass fields that are command-line options too: one place for name, default and help."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import MISSING, Field, field, fields
from typing import Any


def setting(default: Any, help: str) -> Any:
    """A dataclass field with a default and the help that its option shows."""
    return field(default=default, metadata={"help": help})


def add_options(parser: argparse.ArgumentParser, kind: type, skip: Iterable[str] = ()) -> None:
    """An option for each `setting` of dataclass `kind`, but those in `skip`."""
    group = parser.add_argument_group((kind.__doc__ or kind.__name__).split("\n")[0].rstrip(".").lower())
    for entry in _settings(kind, skip):
        group.add_argument(f"--{entry.name.replace('_', '-')}", **_argument(entry))


def read_options(arguments: argparse.Namespace, kind: type, **given: Any) -> Any:
    """`kind` from parsed options; `given` fields are not looked up."""
    names = [entry.name for entry in _settings(kind, given)]
    found = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}, **given)


def _settings(kind: type, skip: Iterable[str]) -> list[Field]:
    skipped = set(skip)
    return [entry for entry in fields(kind) if "help" in entry.metadata and entry.name not in skipped]


def _argument(entry: Field) -> dict[str, Any]:
    """argparse's arguments for a field, from the type of its default."""
    default = entry.default
    if default is MISSING:
        raise TypeError(f"setting {entry.name} without a plain default")
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    text = {"help": f"{entry.metadata['help']} (default: {shown if shown != '' else 'none'})".replace("%", "%%")}
    if isinstance(default, bool):
        return {"default": default, "action": argparse.BooleanOptionalAction, **text}
    if isinstance(default, tuple):
        kind = type(default[0]) if default else str
        return {"default": default, "nargs": "+", "type": kind, "metavar": entry.name.upper(), **text}
    return {"default": default, "type": type(default), "metavar": type(default).__name__.upper(), **text}
