"""One download of layer files at a time, in the background, that can be watched and stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import NamedTuple

from ...core.bases import BASES
from ...core.errors import InputError, LayerDiffuseError, unforeseen
from ...core.files.weights import SUFFIX
from ...core.methods import stems_of
from ..page.options import read_options
from .downloads import HostLayerFiles

logger = logging.getLogger(__name__)


class Busy(InputError):
    """A download is under way already."""


class Transfer:
    """A download at work; stands in for the WebUI's `state`, which it tells and asks in a job."""

    def __init__(self) -> None:
        self.interrupted, self.textinfo = False, None
        self.done: list[str] = []
        self.error: LayerDiffuseError | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether it is not over yet."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, stems: Sequence[str]) -> None:
        """Download what is missing of these files, in a thread."""
        self._thread = threading.Thread(target=self._run, args=(tuple(stems),), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; what has arrived is kept, and the next one goes on from there."""
        self.interrupted = True

    def wait(self, seconds: float | None = None) -> None:
        """Until it is over, or for so long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, stems: tuple[str, ...]) -> None:
        files = HostLayerFiles(read_options(), state=self)
        try:
            for stem in stems:
                files.find(stem)
                self.done.append(stem + SUFFIX)
        except LayerDiffuseError as error:
            self.error = error
        except Exception as error:  # nobody waits for a thread: whatever it was must be told
            logger.exception("the download ended")
            self.error = unforeseen(error)
        finally:
            self.textinfo = None


class Transfers:
    """The last transfer of this process."""

    def __init__(self) -> None:
        self.last = Transfer()
        self._lock = threading.Lock()

    def start(self, stems: Sequence[str]) -> Transfer:
        """A new one; Busy while another is under way."""
        with self._lock:
            if self.last.running:
                raise Busy("a second download", "one at a time", "wait for the first one, or stop it")
            self.last = Transfer()
            self.last.start(stems)
            return self.last


TRANSFERS = Transfers()


class ListedFile(NamedTuple):
    """A layer file of a base: what it is for, and where it is, if it is there; size in bytes."""

    name: str
    purpose: str
    present: bool
    path: str | None
    size: int | None


def listed(files: HostLayerFiles, base: str) -> list[ListedFile]:
    """All layer files of a base."""
    rows = []
    for stem, purpose in stems_of(base).items():
        path = files.present(stem) or files.as_published(stem)
        there = (False, None, None) if path is None else (True, str(path), path.stat().st_size)
        rows.append(ListedFile(stem + SUFFIX, purpose, *there))
    return rows


def missing(files: HostLayerFiles, base: str) -> list[str]:
    """Stems of those that are not there."""
    return [stem for stem in stems_of(base) if (files.present(stem) or files.as_published(stem)) is None]


def checked_stems(names: Sequence[str], base: str) -> list[str]:
    """Stems of files by their names; InputError for one that the base does not have."""
    known = stems_of(base)
    stems = [name.removesuffix(SUFFIX) for name in names]
    strange = ", ".join(name for name, stem in zip(names, stems, strict=True) if stem not in known)
    if strange:
        wanted = ", ".join(stem + SUFFIX for stem in known)
        raise InputError(f"{strange[:200]}, no layer file of {BASES[base].title}", wanted, "correct the name")
    return stems
