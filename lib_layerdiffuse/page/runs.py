"""A run in a thread of its own, which goes on while pages come and go, and the files that it makes."""

from __future__ import annotations

import logging
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import LayerDiffuseError, OutputError
from ..files.whole_files import write_whole
from ..standalone.outputs import PictureFolder
from ..standalone.pictures import Picture, Watchers, seed_of_layer
from ..standalone.settings import GenerateSettings

if TYPE_CHECKING:
    from PIL import Image

    from .model import PageModel

# A browser that gets several answers at once may pass over those between.
PAUSE = 0.2
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a run is: fraction in [0,1] and a short text."""

    fraction: float = 0.0
    text: str = "starting"


@dataclass(frozen=True)
class PictureFile:
    """A finished picture's file and what is told about it; the pixels are on the disk only."""

    path: Path
    frame: str
    parameters: str
    place: tuple[int, int]  # number of its set, and of its layer there
    caption: str
    seed: int  # that makes it again with its set
    layer_prompt: str
    seed_of_layer: int  # that belongs into the field of its layer, or of all


class Run:
    """What a run has brought so far; any number of pages may follow it.

    `notes` are there when it ended well, `error` when it did not; finished files stay either way.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.checkerboard = True
        self.stop = threading.Event()
        self.progress = Progress()
        self.files: list[PictureFile] = []
        self.notes: list[str] = []
        self.zip: Path | None = None
        self.given: dict[str, Image.Image] = {}  # layers that the visitor gave
        self.layered: dict[tuple[int, str], Path] = {}  # layered files by number of the set and kind
        self.lock = threading.Lock()  # around them
        self.error: Exception | None = None
        self.ended = False
        self._target = PictureFolder(folder)
        self._changes = 0
        self._changed = threading.Condition()

    def start(self, model: PageModel, settings: GenerateSettings) -> None:
        """Begins the work."""
        threading.Thread(target=self._work, args=(model, settings), daemon=True).start()

    def follow(self) -> Iterator[Progress]:
        """The state of progress at changes, a few times a second, until the run has ended."""
        seen = -1
        while not self.ended:
            with self._changed:
                self._changed.wait_for(lambda before=seen: self._changes != before)
                seen = self._changes
            yield self.progress
            with self._changed:
                self._changed.wait_for(lambda: self.ended, timeout=PAUSE)

    def _work(self, model: PageModel, settings: GenerateSettings) -> None:
        try:
            painted = model.paint(settings, Watchers(self._report, self.stop.is_set, self._add))
            self.notes, self.given = painted.notes, painted.given
        except OutputError as error:
            self.error = self.unwritable(error)
        except Exception as error:  # whatever it was, the visitor gets an answer and the log the rest
            self.error = error
            if not isinstance(error, LayerDiffuseError):
                LOGGER.exception("a run of the page failed")
        finally:
            self._end()

    def unwritable(self, error: OutputError) -> OutputError:
        """The error as a visitor can use it; the log names the folder."""
        LOGGER.error("%s", error)
        what_to_do = "tell whoever runs this page; finished pictures can be downloaded"
        return OutputError(error.got.replace(f"{self.folder}/", ""), "room for the page's files", what_to_do)

    def _end(self) -> None:
        try:
            self.zip = self._pack() if self.files else None
        except OutputError as error:
            self.error = self.error or self.unwritable(error)
        self.ended = True
        self._tell()

    def _report(self, fraction: float, text: str) -> None:
        self.progress = Progress(fraction, text)
        self._tell()

    def _add(self, picture: Picture) -> None:
        path = self._target.save(picture)
        about = (picture.frame, picture.parameters, picture.place, picture.caption, picture.seed)
        layer = (picture.layer_prompt, seed_of_layer(picture))
        # the layers of a set stand beside each other, in whatever order they are made
        self.files = sorted([*self.files, PictureFile(path, *about, *layer)], key=lambda file: file.place)
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _pack(self) -> Path:
        """All files in one ZIP named after the first; PNG is packed already, so it is only stored."""
        path = self.files[0].path.with_suffix(".zip")
        write_whole(path, self._write_zip)
        return path

    def _write_zip(self, partial: Path) -> None:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for file in self.files:
                archive.write(file.path, file.path.name)
