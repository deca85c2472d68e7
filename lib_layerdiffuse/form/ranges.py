"""What options may hold, as rows: ranges of numbers, texts, paths; for settings, command line and training alike.

No torch here: the command line's help and the page's form must come up at once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypeGuard

from ..core.errors import InputError
from ..core.values import is_text

LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes
SHOWN = 60  # characters of a refused value that a message repeats


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a real number, numpy's too, and no switch."""
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, ends included unless `above`; whole ones only, or multiples of `multiple`."""

    low: float
    high: float
    whole: bool = False
    multiple: int = 1
    above: bool = False  # `low` itself is out

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.multiple > 1:
            kind = f"a multiple of {self.multiple}"
        start = "above" if self.above else "from"
        return f"{kind} {start} {self._shown(self.low)} to {self._shown(self.high)}"

    def _shown(self, bound: float) -> str:
        return str(int(bound)) if self.whole else f"{bound:g}"

    def number(self, value: Any) -> int | float:
        """`value` as a plain int or float in the range; ValueError otherwise."""
        if not is_number(value):
            raise ValueError(f"{type(value).__name__} is no number")
        # an int may be too long for a float, and nan fails every comparison
        if not self.low <= value <= self.high or (self.above and value == self.low):
            raise ValueError("out of range")
        if not self.whole:
            return float(value)
        whole = int(value)
        if value != whole or whole % self.multiple:
            raise ValueError("between the numbers that count")
        return whole

    def parse(self, text: str) -> int | float:
        """A number written by a user; ArgumentTypeError with the range, for argparse."""
        try:
            return self.number(int(text) if self.whole else float(text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"got {shown(text)}; expected {self}") from error

    def checked(self, name: str, value: Any) -> int | float:
        """`value` as a plain number; InputError with the name and the range."""
        try:
            return self.number(value)
        except ValueError as error:
            raise InputError(f"{name} {shown(value)}", str(self), f"choose {name} in that range") from error


@dataclass(frozen=True)
class Stem:
    """A part of a file's name: letters, digits, dots, hyphens and underscores, `least` to 100 of them."""

    least: int = 1

    def __str__(self) -> str:
        return f"{self.least} to 100 letters, digits, dots, hyphens or underscores"

    def holds(self, value: Any) -> bool:
        """Whether `value` is such a text."""
        if not isinstance(value, str) or not self.least <= len(value) <= 100 or value.startswith("."):
            return False
        return all(letter.isalnum() or letter in "._-" for letter in value)

    def parse(self, text: str) -> str:
        """argparse's type. ArgumentTypeError for what is none."""
        if not self.holds(text):
            raise argparse.ArgumentTypeError(f"got {shown(text)}; expected {self}")
        return text

    def checked(self, name: str, value: Any) -> str:
        """`value`, or InputError with the name."""
        if not self.holds(value):
            raise InputError(f"{name} {shown(value)}", str(self), f"correct {name}")
        return value


def shown(value: Any) -> str:
    """A value in a message: as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an int with more digits than Python likes to print
        text = f"a {type(value).__name__} of many digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def encodable(text: str) -> str:
    """A text with `?` for the halves of letters in it, which neither a file nor an answer can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def checked_choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """The one of `choices` that `value` equals; InputError otherwise."""
    plain = isinstance(value, (str, Real)) and not isinstance(value, bool)
    if plain and value in choices:
        return choices[choices.index(value)]
    listed = ", ".join(str(choice) for choice in choices)
    raise InputError(f"{name} {shown(value)}", f"one of {listed}", f"choose {name} among them")


def checked_text(name: str, value: Any, optional: bool = False) -> Any:
    """`value`, which must be a text that UTF-8 can hold; None where `optional`; InputError otherwise."""
    if value is None and optional:
        return None
    if not isinstance(value, str):
        raise InputError(f"{name} {shown(value)}", "a text", f"write {name} as a text")
    if not is_text(value):
        raise InputError(f"{name} with bytes that are no text", "text in UTF-8", f"write {name} anew")
    return value


def checked_path(name: str, value: Any, optional: bool = True) -> Any:
    """`value`, which must be a path, str or Path, not empty; None where `optional`; InputError otherwise."""
    if value is None and optional:
        return None
    if isinstance(value, (str, os.PathLike)) and is_path(os.fspath(value)):
        return value
    raise InputError(f"{name} {shown(value)}", "a path", f"name a file or folder as {name}")


def is_path(value: Any) -> bool:
    """Whether a text may name a file on any system: not empty, no part longer than names may be."""
    if not isinstance(value, str) or not value.strip() or "\0" in value or len(value) > LONGEST_PATH:
        return False
    return all(len(os.fsencode(part)) <= LONGEST_NAME for part in Path(value).parts)


def text_option(text: str) -> str:
    """argparse's type of options that are text. ArgumentTypeError for bytes that are none."""
    if not is_text(text):
        raise argparse.ArgumentTypeError("got bytes that are no text; expected text in UTF-8")
    return text


def path_option(text: str) -> str:
    """argparse's type of options that are paths. ArgumentTypeError for what no system takes for one."""
    if not is_path(text):
        raise argparse.ArgumentTypeError(f"got {shown(text)}; expected a path")
    return text


def file_option(text: str) -> str:
    """argparse's type of options that are files to read; whether they exist is for their reader to say.

    ArgumentTypeError for what is no file, such as a folder.
    """
    path = Path(path_option(text))
    if (kind := _foreign_kind(path)) is not None:
        raise argparse.ArgumentTypeError(f"got {shown(text)}, which is {kind}; expected a file")
    return text


def source_option(text: str) -> str:
    """argparse's type of options that are files or folders to read. ArgumentTypeError for pipes and devices."""
    path = Path(path_option(text))
    if not path.is_dir() and (kind := _foreign_kind(path)) is not None:
        raise argparse.ArgumentTypeError(f"got {shown(text)}, which is {kind}; expected a file or folder")
    return text


def _foreign_kind(path: Path) -> str | None:
    """What a path is that exists without being a regular file; reading a pipe would wait for ever."""
    try:
        if path.is_dir():
            return "a folder"
        return None if path.is_file() or not path.exists() else "a pipe or device"
    except OSError:  # a name that is too long, or a folder that may not be looked into
        return None


def choice_option(choices: tuple[str, ...]) -> Callable[[str], str]:
    """argparse's type of options that take one of `choices`."""

    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"got {shown(text)}; expected {' or '.join(choices)}")
        return text

    return parse
