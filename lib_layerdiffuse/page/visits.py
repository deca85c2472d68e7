"""What the page keeps for each visitor: the runs and their files, what stood in the form, and which tab it is."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import InputError, OutputError
from .runs import Run

# gradio keeps what it serves and takes in below the folder that this variable names.
TEMPORARY = "GRADIO_TEMP_DIR"
GRACE_SECONDS = 15.0  # a tab that is loaded again comes back within this time
TOKEN_LENGTH, HASH_LENGTH = 32, 64
HEXADECIMAL = frozenset("0123456789abcdef")


@dataclass
class Visit:
    """One visitor: runs with their files, what stood in the form, uploads, and the browser sessions that look on."""

    folder: Path
    token: str = ""
    prompt: str = ""
    values: tuple[Any, ...] = ()  # of the form at the last run
    chosen: Path | None = None  # the file of the picture that was clicked
    uploads: set[Path] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)
    begun: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def running(self) -> Run | None:
        """The run that is going on."""
        return next((run for run in self.runs if not run.ended), None)

    @property
    def shown(self) -> Run | None:
        """The last run that has pictures."""
        return next((run for run in reversed(self.runs) if run.files), None)

    def begin_run(self) -> Run:
        """A run with a new folder, InputError while another goes on; only the last one's pictures are kept beside."""
        with self.lock:
            if self.running is not None:
                raise InputError(
                    "a second run while one goes on", "one run at a time", "wait until it is done, or press Stop"
                )
            kept = [self.shown] if self.shown is not None else []
            for run in self.runs:
                if run not in kept:
                    shutil.rmtree(run.folder, ignore_errors=True)
            self.begun += 1
            self.chosen = None
            self.runs = [*kept, Run(made_folder(self.folder / str(self.begun)))]
            return self.runs[-1]

    def remember(self, names: list[str], values: tuple[Any, ...]) -> None:
        """Keeps what stood in the form, by its fields' names, for when the tab is loaded again."""
        self.prompt = values[names.index("prompt")]
        self.values = values

    def own(self, path: Path | None) -> None:
        """Notes an uploaded file, so that it is deleted with the visit; no other file than an upload."""
        if path is not None and is_upload(path):
            self.uploads.add(path)

    def stop(self) -> None:
        """Asks every run to stop after the step at hand."""
        for run in self.runs:
            run.stop.set()


class Visits:
    """All visitors of one running page, under one temporary folder that gradio serves from without making copies."""

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        outer = os.environ.get(TEMPORARY)
        if outer:
            made_folder(Path(outer))
        self.folder = Path(tempfile.mkdtemp(prefix="layerdiffuse-page-", dir=outer)).resolve()
        self.grace = grace
        self._visits: dict[str, Visit] = {}  # by browser session
        self._timers: dict[int, threading.Timer] = {}  # by the visit's id, while nobody looks on
        self._lock = threading.RLock()
        self.closing: list[Callable[[], object]] = []  # called when all visits end

    def of(self, session: str | None) -> Visit:
        """The visit of a browser session, made at its first call."""
        name = session or "local"
        with self._lock:
            visit = self._visits.get(name) or Visit(self.folder / secrets.token_hex(16))
            self._join(name, visit)
            return visit

    def arrive(self, session: str | None, token: Any) -> Visit:
        """The visit of a tab by the token that it keeps: the one from before it was loaded again, or a new one."""
        name = session or "local"
        if not is_token(token):
            return self.of(session)
        with self._lock:
            known = next((visit for visit in self._all() if visit.token == token), None)
            visit = known or Visit(self.folder / secrets.token_hex(16), token)
            self._join(name, visit)
            return visit

    def leave(self, session: str | None) -> None:
        """Ends the visit of a session, with its runs and files, unless its tab comes back in time."""
        with self._lock:
            visit = self._visits.get(session or "local")
            if visit is None:
                return
            visit.sessions.discard(session or "local")
            if visit.sessions:
                return
            if not (visit.token and self.grace):
                self._end(visit)
                return
            timer = threading.Timer(self.grace, self._end, [visit])
            timer.daemon = True
            self._timers[id(visit)] = timer
            timer.start()

    def close(self) -> None:
        """Ends all visits."""
        for end in self.closing:
            end()
        with self._lock:
            for timer in self._timers.values():
                timer.cancel()
            for visit in self._all():
                visit.stop()
            self._visits.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Visit]:
        return list({id(visit): visit for visit in self._visits.values()}.values())

    def _join(self, session: str, visit: Visit) -> None:
        timer = self._timers.pop(id(visit), None)
        if timer is not None:
            timer.cancel()
        before = self._visits.get(session)
        if before is not None and before is not visit:
            self.leave(session)
        visit.sessions.add(session)
        self._visits[session] = visit

    def _end(self, visit: Visit) -> None:
        with self._lock:
            if visit.sessions:
                return
            self._timers.pop(id(visit), None)
            self._visits = {name: other for name, other in self._visits.items() if other is not visit}
            used = {path for other in self._all() for path in other.uploads}
        visit.stop()
        shutil.rmtree(visit.folder, ignore_errors=True)
        for upload in visit.uploads - used:  # gradio stores equal pictures of two visitors as one
            shutil.rmtree(upload.parent, ignore_errors=True)


def is_upload(path: Path) -> bool:
    """Whether a path, which a browser may make up, is of a file as gradio stores uploads: folder, hash, name."""
    served = os.environ.get(TEMPORARY)
    if not served or ".." in path.parts:
        return False
    hashed = len(path.parent.name) == HASH_LENGTH and set(path.parent.name) <= HEXADECIMAL
    return hashed and path.parent.parent == Path(served) and not path.parent.is_symlink()


def is_token(token: Any) -> bool:
    """Whether this is what a tab keeps to be known again: 32 hexadecimal digits."""
    return isinstance(token, str) and len(token) == TOKEN_LENGTH and set(token) <= HEXADECIMAL


def made_folder(folder: Path) -> Path:
    """`folder`, made with all above it; OutputError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error}", "a folder that can be written", "free some disk space") from error
    return folder
