"""The interface that an accordion stands in: what it offers, and what it knows of the loaded checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from ..core.methods import Method, methods_for
from ..core.modes import MODES
from .arguments import BY_NAME
from .ways import Way, steps_of, ways_for

TITLE = "Transparent picture (LayerDiffuse)"
SINGLE = next(iter(MODES))
# No progress overlay, and no place in the queue of generations.
QUIET = {"show_progress": "hidden", "queue": False}
Header = Callable[[Any, str], AbstractContextManager[Any]]


@contextmanager
def checkbox_header(gradio: Any, prefix: str) -> Iterator[Any]:
    """A ticked box that opens the body beneath it: for interfaces that bring no accordion with a box of their own."""
    argument = BY_NAME["enabled"]
    with gradio.Column(elem_id=f"{prefix}_accordion"):
        enabled = gradio.Checkbox(argument.default, label=TITLE, info=argument.help, elem_id=f"{prefix}_enabled")
        with gradio.Column(visible=bool(argument.default), elem_id=f"{prefix}_body") as body:
            yield enabled
    enabled.change(lambda ticked: gradio.update(visible=bool(ticked)), [enabled], [body], **QUIET)


def state_text(base: str | None, note: str) -> str:
    """A loaded base, and what is said about a checkpoint that has none."""
    return f"{base or 'none'} {note}".strip()


@dataclass(frozen=True)
class Surroundings:
    """The interface that an accordion stands in."""

    base: str | Callable[[], str | None] | None = None  # the loaded base model, or a function that tells it
    header: Header = checkbox_header  # header(gradio, prefix) is a context manager that yields the enable box
    prefix: str = "layerdiffuse"  # begins every element's id
    hidden: tuple[str, ...] = ()  # arguments that this interface never shows
    base_note: Callable[[], str] | None = None  # says what is wrong with the loaded checkpoint; "" when nothing is
    last_result: Callable[[str, str], Any] | None = None  # a visitor's last picture of a frame, or None
    files: Callable[[str, Method | None], list[str]] | None = None  # names that an argument offers for a method
    offers: Callable[[Method], bool] | None = None  # whether a method's weights can be had; None: all can
    chains: bool = False  # whether chains stand beside the methods
    find_out: Callable[[str, str], Any] | None = None  # HTML that answers a task and a visitor, where that can be asked

    @property
    def in_webui(self) -> bool:
        """Whether the checkpoint may change while the page is open, so that the method may be left to it."""
        return callable(self.base)

    @property
    def state(self) -> str:
        """What the choices and the note depend on, as a text to compare."""
        return state_text(self.loaded_base, self.base_note() if self.base_note else "")

    @property
    def loaded_base(self) -> str | None:
        """The base model that is loaded now; None when it is not known, which offers all methods."""
        return self.base() if callable(self.base) else self.base

    def methods(self, base: str | None, mode: str | None = None) -> list[Way]:
        """The methods, and chains, of a base and a mode whose weights can be had; of an unknown base all."""
        rows = (ways_for if self.chains else methods_for)(base, mode)
        offers = self.offers
        return [row for row in rows if base is None or offers is None or all(map(offers, steps_of(row)))]

    def modes(self, base: str | None) -> list[tuple[str, str]]:
        """Pairs of what is shown and the id for the modes that a base has methods for."""
        return [(mode.title, mode.id) for mode in MODES.values() if self.methods(base, mode.id)]
