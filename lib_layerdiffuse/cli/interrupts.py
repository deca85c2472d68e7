"""Ctrl-C: the first ends the command, which then finishes or removes what it was writing; more of them change nothing.

The third ends the program at once, should that work hang.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

PATIENCE = 3
INTERRUPTED = 130


class Interrupts:
    """A context in which SIGINT raises KeyboardInterrupt once only."""

    def __init__(self) -> None:
        self.count = 0
        self.before = None

    def __enter__(self) -> Interrupts:
        ours = threading.current_thread() is threading.main_thread()
        # somebody else's handling, or SIGINT ignored as under nohup, is left as it is
        if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self.before = signal.signal(signal.SIGINT, self.interrupt)
        return self

    def interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """The handler: KeyboardInterrupt in the main thread."""
        self.count += 1
        if self.count >= PATIENCE:
            os._exit(INTERRUPTED)
        if self.count == 1:
            raise KeyboardInterrupt

    def __exit__(self, *_exception: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)
