"""Dataclass fields that are command-line options too: one place for name, default, range and help."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, field, fields
from typing import Any

from ..core.errors import InputError
from ..form.ranges import Range, Stem, checked_choice, checked_text, choice_option, shown, text_option

MOST_VALUES = 16  # of an option that takes several
Rule = Range | Stem | Sequence[str] | None


def setting(default: Any, help: str, rule: Rule = None) -> Any:  # noqa: A002 as argparse calls it
    """A dataclass field with a default, the help that its option shows, and a range or choices for its values."""
    return field(default=default, metadata={"help": help, "rule": rule})


class Checked:
    """A dataclass of settings that refuses values out of their range, by the name of the option."""

    def __post_init__(self) -> None:
        """InputError for the first value that cannot be used."""
        for entry in _settings(type(self), ()):
            value = getattr(self, entry.name)
            if isinstance(entry.default, tuple):
                _check_several(entry, value)
            else:
                _check_one(entry, value)


def _check_several(entry: Field, value: Any) -> None:
    if not isinstance(value, (tuple, list)) or len(value) > MOST_VALUES or (entry.default and not value):
        raise InputError(f"{flag(entry)} {shown(value)}", f"1 to {MOST_VALUES} values", f"correct {flag(entry)}")
    for each in value:
        _check_one(entry, each)


def _check_one(entry: Field, value: Any) -> None:
    rule = entry.metadata["rule"]
    if isinstance(rule, (Range, Stem)):
        rule.checked(flag(entry), value)
    elif rule is not None:
        checked_choice(flag(entry), value, rule)
    elif isinstance(entry.default, bool):
        checked_choice(flag(entry), str(value), ("True", "False"))
    else:
        checked_text(flag(entry), value)


def flag(entry: Field) -> str:
    """The option of a field, as one writes it."""
    return f"--{entry.name.replace('_', '-')}"


def add_options(parser: argparse.ArgumentParser, kind: type, skip: Iterable[str] = ()) -> None:
    """An option for each `setting` of dataclass `kind`, but those in `skip`."""
    group = parser.add_argument_group((kind.__doc__ or kind.__name__).split("\n")[0].rstrip(".").lower())
    for entry in _settings(kind, skip):
        group.add_argument(flag(entry), **_argument(entry))


def read_options(arguments: argparse.Namespace, kind: type, **given: Any) -> Any:
    """`kind` from parsed options; `given` fields are not looked up."""
    names = [entry.name for entry in _settings(kind, given)]
    found = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}, **given)


def _settings(kind: type, skip: Iterable[str]) -> list[Field]:
    skipped = set(skip)
    return [entry for entry in fields(kind) if "help" in entry.metadata and entry.name not in skipped]


def _argument(entry: Field) -> dict[str, Any]:
    """argparse's arguments for a field, from its default and its rule."""
    default = entry.default
    if default is MISSING:
        raise TypeError(f"setting {entry.name} without a plain default")
    shown_default = " ".join(map(str, default)) if isinstance(default, tuple) else default
    help_text = f"{entry.metadata['help']} (default: {shown_default if shown_default != '' else 'none'})"
    text = {"help": help_text.replace("%", "%%")}
    if isinstance(default, bool):
        return {"default": default, "action": argparse.BooleanOptionalAction, **text}
    several = {"nargs": "+"} if isinstance(default, tuple) else {}
    return {"default": default, "type": _reader(entry.metadata["rule"]), "metavar": _metavar(entry), **several, **text}


def _reader(rule: Rule) -> Any:
    if rule is None:
        return text_option
    return rule.parse if isinstance(rule, (Range, Stem)) else choice_option(tuple(rule))


def _metavar(entry: Field) -> str:
    if isinstance(entry.default, tuple):
        return entry.name.upper()
    return type(entry.default).__name__.upper()
