"""The stacks of many visitors, each known by a token: the last ones in memory, all on the disk for some days."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from ..core.errors import InputError, LayerDiffuseError
from .stack import Stack, StackState
from .stack_files import DOCUMENT, read_folder, write_folder

logger = logging.getLogger(__name__)

TOKEN_LENGTH = 32
HEXADECIMAL = frozenset("0123456789abcdef")
DAY = 86_400.0


def is_token(token: object) -> bool:
    """Whether this is what a browser keeps to be known again: 32 hexadecimal digits."""
    return isinstance(token, str) and len(token) == TOKEN_LENGTH and set(token) <= HEXADECIMAL


class StackStore:
    """Stacks by token below one folder: at most `most` on the disk, for `seconds`; some in memory, with undo."""

    def __init__(self, folder: str | Path, most: int = 64, seconds: float = 14 * DAY, in_memory: int = 8):
        self.folder, self.most, self.seconds, self.in_memory = Path(folder), most, seconds, in_memory
        self._stacks: OrderedDict[str, Stack] = OrderedDict()
        self._saved: dict[str, StackState] = {}
        self._lock = threading.RLock()

    def of(self, token: str, new: Callable[[], Stack]) -> Stack:
        """The stack of a token: the one in memory, else the saved one, else a new one.

        InputError for what is no token.
        """
        if not is_token(token):
            raise InputError("a browser that is not known here", "a page that keeps a name", "load the page again")
        with self._lock:
            stack = self._stacks.get(token) or self._read(token) or new()
            self._keep(token, stack)
            return stack

    def _keep(self, token: str, stack: Stack) -> None:
        """In memory, where those go first that were not asked for lately and are saved as they are."""
        self._stacks[token] = stack
        self._stacks.move_to_end(token)
        saved = [name for name, each in self._stacks.items() if self._saved.get(name) is each.state and name != token]
        for name in saved[: max(0, len(self._stacks) - self.in_memory)]:
            del self._stacks[name], self._saved[name]

    def _read(self, token: str) -> Stack | None:
        folder = self.folder / token
        if not (folder / DOCUMENT).is_file():
            return None
        try:
            stack = Stack(read_folder(folder))
        except (LayerDiffuseError, OSError) as error:
            logger.warning("a saved stack of layers cannot be read: %s", error)
            return None
        self._saved[token] = stack.state
        return stack

    def save(self, token: str, stack: Stack) -> None:
        """Write the stack that a token has from now on, where it changed; OutputError where there is no room."""
        with self._lock:
            self._keep(token, stack)
            state = stack.state
            if self._saved.get(token) is not state:
                write_folder(state, self.folder / token)
                self._saved[token] = state
                self.tidy()

    def forget(self, token: str) -> None:
        """Without a token's stack, on the disk too."""
        with self._lock:
            self._stacks.pop(token, None)
            self._saved.pop(token, None)
        if is_token(token):
            shutil.rmtree(self.folder / token, ignore_errors=True)

    def tidy(self) -> None:
        """Remove what is too old, and the oldest of too many; only folders that are named by a token."""
        now = time.time()
        with self._lock:
            ours = [path for path in self.folder.iterdir() if is_token(path.name) and not path.is_symlink()]
            found = sorted(((changed(path), path) for path in ours if path.is_dir()), reverse=True)
            for place, (when, folder) in enumerate(found):
                if (place >= self.most or now - when > self.seconds) and folder.name not in self._stacks:
                    shutil.rmtree(folder, ignore_errors=True)


def changed(folder: Path) -> float:
    """When a stack was saved last."""
    document = folder / DOCUMENT
    return (document if document.exists() else folder).stat().st_mtime
