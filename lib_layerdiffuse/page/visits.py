"""What the page keeps for each visitor: a folder of files and the switch that stops a run."""

from __future__ import annotations

import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from lib_layerdiffuse.core.errors import OutputError


@dataclass
class Visit:
    """One visitor: the folder for the files, the running generation's stop switch, the texts of the last pictures."""

    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)
    parameters: list[str] = field(default_factory=list)
    seed: int = -1
    runs: int = 0

    def begin_run(self) -> Path:
        """Resets the stop switch and makes a new empty folder; the files of the run before last are removed."""
        self.stop = threading.Event()
        self.runs += 1
        shutil.rmtree(self.folder / str(self.runs - 2), ignore_errors=True)
        folder = self.folder / str(self.runs)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"{folder}: {error}", "a folder that can be written", "free some disk space") from error
        return folder


class Visits:
    """All visitors of one running page, under one temporary folder."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="layerdiffuse-page-"))
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()

    @property
    def served(self) -> Path:
        """Where gradio keeps its copies of files that it serves or takes in."""
        return self.folder / "served"

    def of(self, session: str | None) -> Visit:
        """The visit of a browser session, made at its first call."""
        name = session or "local"
        with self._lock:
            if name not in self._visits:
                self._visits[name] = Visit(Path(tempfile.mkdtemp(dir=self.folder)))
            return self._visits[name]

    def leave(self, session: str | None) -> None:
        """Stops the visitor's run and removes the files."""
        with self._lock:
            visit = self._visits.pop(session or "local", None)
        if visit is not None:
            visit.stop.set()
            shutil.rmtree(visit.folder, ignore_errors=True)

    def close(self) -> None:
        """Ends all visits."""
        for session in list(self._visits):
            self.leave(session)
        shutil.rmtree(self.folder, ignore_errors=True)
