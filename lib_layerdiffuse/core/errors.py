"""Typed errors: every one says what was got, what was expected and what to do about it."""

from __future__ import annotations


class LayerDiffuseError(Exception):
    """Base of all errors a user can meet; `got`, `expected` and `what_to_do` are whole phrases.

    `exit_code` is what the command line returns when the error reaches it.
    """

    exit_code = 1

    def __init__(self, got: str, expected: str, what_to_do: str):
        self.got, self.expected, self.what_to_do = got, expected, what_to_do
        super().__init__(f"got {got}; expected {expected}. What to do: {what_to_do}.")


class InputError(LayerDiffuseError, ValueError):
    """An argument, prompt, size or image that cannot be used."""

    exit_code = 2


class WeightsError(LayerDiffuseError):
    """A weight file that is missing, truncated, foreign or made for another model."""

    exit_code = 3


class BaseMismatchError(LayerDiffuseError):
    """A method chosen for another base model than the one that is loaded."""

    exit_code = 4


class OutputError(LayerDiffuseError, OSError):
    """A result that could not be written (full disk, missing permission)."""

    exit_code = 5


class MissingExtraError(LayerDiffuseError, ImportError):
    """An optional dependency that is not installed; `what_to_do` names the pip line."""

    exit_code = 6


def without_frames(error: LayerDiffuseError) -> LayerDiffuseError:
    """The error alone, to be kept: its traceback would keep all that the functions on it had at hand."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def unforeseen(error: BaseException) -> LayerDiffuseError:
    """A message for an error that nobody foresaw; the log has the rest."""
    return LayerDiffuseError(
        f"an error inside LayerDiffuse ({type(error).__name__}: {error})",
        "none",
        "look into the log, and report it with your settings",
    )
