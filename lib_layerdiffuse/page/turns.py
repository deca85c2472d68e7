"""One run at a time, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.errors import InputError
from ..standalone.pictures import Watchers

LIMIT = 16
LOOK_SECONDS = 0.2  # how often somebody who waits is asked whether to go on


class Turns:
    """The line of runs before a model: the first one works, at most `limit` stand in it."""

    def __init__(self, limit: int = LIMIT):
        self.limit = limit
        self._line: deque[object] = deque()
        self._moved = threading.Condition()

    @contextmanager
    def taken(self, watchers: Watchers) -> Iterator[bool]:
        """Waits for the turn and keeps it for the `with` block: False when stopped before; InputError for no room."""
        ticket = object()
        with self._moved:
            if len(self._line) >= self.limit:
                raise InputError(
                    f"{len(self._line)} runs in line already", f"at most {self.limit}", "try again in some minutes"
                )
            self._line.append(ticket)
        try:
            yield self._waited(ticket, watchers)
        finally:
            with self._moved:
                self._line.remove(ticket)
                self._moved.notify_all()

    def wait_for_all(self, seconds: float) -> bool:
        """Waits until nobody stands in the line, so many seconds at most; whether that is so."""
        with self._moved:
            return self._moved.wait_for(lambda: not self._line, seconds)

    def _waited(self, ticket: object, watchers: Watchers) -> bool:
        with self._moved:
            while (before := self._line.index(ticket)) and not watchers.stopping():
                watchers.report(0.0, f"waiting for the model, {before} before you")
                self._moved.wait(LOOK_SECONDS)
            return not before
