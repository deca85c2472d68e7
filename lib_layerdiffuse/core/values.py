"""What counts as a text and as a number, wherever it comes from: a form, a file, a command line."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any


def is_text(value: str) -> bool:
    """Whether a str is text throughout, as UTF-8 holds it: the shell's undecodable bytes arrive as lone surrogates."""
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_finite(value: Any) -> bool:
    """Whether a value is a real number that a float can hold, and no switch; a whole one in JSON may be too large."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
