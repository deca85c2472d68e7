"""A painting in a thread of its own, which goes on while pages come and go; one at a time for each stack."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import InputError, LayerDiffuseError, unforeseen, without_frames
from ...sets.stack import PaintRequest, Stopped

logger = logging.getLogger(__name__)
PAUSE = 0.4  # seconds between two answers to a browser


@dataclass
class Watch:
    """What whoever paints tells and asks."""

    fraction: float = 0.0
    text: str = "starting"
    stop: threading.Event = field(default_factory=threading.Event)
    notes: list[str] = field(default_factory=list)
    look: Callable[[], None] | None = None  # brings it up to date
    on_stop: Callable[[], object] | None = None  # ends what is at work

    def report(self, fraction: float, text: str) -> None:
        """How far it is: fraction in [0,1] and a short text."""
        self.fraction, self.text = min(max(fraction, 0.0), 1.0), text


class Work:
    """A painting; `key` is the layer that came of it, `error` what went wrong."""

    def __init__(self, request: PaintRequest):
        self.request, self.watch = request, Watch()
        self.key: int | None = None
        self.error: LayerDiffuseError | None = None
        self._done = threading.Event()

    @property
    def ended(self) -> bool:
        return self._done.is_set()

    def start(self, paint: Callable[[Work], int]) -> None:
        """Begin; `paint` gives the key of the layer that it made."""
        threading.Thread(target=self._run, args=(paint,), daemon=True).start()

    def _run(self, paint: Callable[[Work], int]) -> None:
        try:
            self.key = paint(self)
        except Stopped:
            self.watch.notes.append("stopped; the layers are as they were")
        except LayerDiffuseError as error:
            self.error = without_frames(error)
        except Exception as error:  # whatever it was, the visitor gets an answer and the log the rest
            logger.exception("a layer could not be painted")
            self.error = without_frames(unforeseen(error))
        finally:
            self._done.set()

    def follow(self) -> Iterator[Watch]:
        """The state of progress whenever it has changed, at most a few times a second, until it has ended."""
        told: tuple[Any, ...] = ()
        while not self._done.wait(PAUSE):
            watch, look = self.watch, self.watch.look
            if look is not None:
                look()
            state = (round(watch.fraction, 2), watch.text, watch.stop.is_set())
            if state != told:
                told = state
                yield watch


class Works:
    """The paintings that go on, by token."""

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}
        self._lock = threading.Lock()

    def of(self, token: str) -> Work | None:
        """The painting of a token that goes on."""
        work = self._works.get(token)
        return work if work is not None and not work.ended else None

    def last(self, token: str) -> Work | None:
        """The painting of a token that goes on, or the last one."""
        return self._works.get(token)

    def begin(self, token: str, request: PaintRequest, paint: Callable[[Work], int]) -> Work:
        """A started painting; InputError while another goes on."""
        with self._lock:
            if self.of(token) is not None:
                raise InputError("a second layer while one is painted", "one at a time", "wait for it, or press Stop")
            self._works = {name: work for name, work in self._works.items() if not (work.ended and work.key is None)}
            self._works[token] = work = Work(request)
        work.start(paint)
        return work

    def stop(self, token: str) -> Work | None:
        """Ask the painting of a token to end."""
        work = self.of(token)
        if work is not None:
            work.watch.stop.set()
            end = work.watch.on_stop
            if end is not None:
                end()
        return work

    def stop_all(self) -> None:
        """Ask all to end."""
        for token in list(self._works):
            self.stop(token)
