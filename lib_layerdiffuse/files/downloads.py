"""Layer files: looked for in the user's folders first, else fetched from the hub, resumable and whole or not at all."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.bases import SD_HUB, Hub
from ..core.errors import LayerDiffuseError, OutputError, WeightsError
from ..core.files.weights import SUFFIX, find_weights
from ..core.methods import Method, hub_of
from .converting import as_safetensors
from .hub import fetch_file

logger = logging.getLogger(__name__)

LAYOUTS = ("", "layer_model", "models/layer_model")  # a folder of files, a WebUI's models folder, a WebUI's own folder
# the machine's faults, in contrast to the network's
LOCAL_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EFBIG}


def cache_folder() -> Path:
    """Where files go when no folder is named: the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "sd-webui-layerdiffuse" / "layer_model"


class LayerFiles:
    """Finds `<stem>.safetensors` in folders, in order, in a WebUI's sub-folders too; downloads what is not there.

    `target` is looked in last and takes the downloads; None: the user's cache is looked in last, and downloads go to
    the first folder named, or to the cache. WeightsError for a folder that is not there.
    """

    elsewhere = "name --models FOLDER"

    def __init__(self, folders: Sequence[str | Path] = (), offline: bool = False, target: Path | None = None):
        for folder in folders:
            if not Path(folder).is_dir():
                raise WeightsError(f"no folder {folder}", "a folder with layer files", "correct --models FOLDER")
        self.folders = [Path(folder) for folder in folders]
        self.offline, self.target = offline, target

    def search_folders(self) -> Iterator[Path]:
        """Existing folders in the order in which they are looked in."""
        places = (folder / layout for folder in (*self.folders, self.target or cache_folder()) for layout in LAYOUTS)
        yield from dict.fromkeys(place for place in places if place.is_dir())

    def choice_folders(self) -> list[Path]:
        """The folders whose files a user can choose by name."""
        return list(self.search_folders())

    def download_folder(self) -> Path:
        """The target, else the `layer_model` folder of the first folder named, else the cache."""
        if self.target or not self.folders:
            return self.target or cache_folder()
        layouts = (self.folders[0] / layout for layout in reversed(LAYOUTS))
        return next(folder for folder in layouts if folder.is_dir())

    def places_of(self, stem: str) -> list[Path]:
        """The folders in which the file of `stem` is looked for, in order."""
        return list(self.search_folders())

    def present(self, stem: str) -> Path | None:
        """The file of `stem` where it is there already; nothing is downloaded."""
        return next((path for folder in self.places_of(stem) if (path := folder / (stem + SUFFIX)).is_file()), None)

    def as_published(self, stem: str) -> Path | None:
        """The file of `stem` in the form that its hub has, where that is another one and the file is there."""
        name = published_name(stem)
        places = self.places_of(stem) if name != stem + SUFFIX else ()
        return next((path for folder in places if (path := folder / name).is_file()), None)

    def find(self, stem: str) -> Path:
        """The file of `stem`; WeightsError that says how to get it by hand when it is nowhere."""
        # the hub has no file of a base that ships
        return find_weights(stem, self.places_of(stem), None if hub_of(stem) is None else self.download)

    def offers(self, method: Method) -> bool:
        """Whether the weights of a method are there or may be downloaded."""
        return hub_of(method.weights) is not None or self.present(method.weights) is not None

    def download(self, name: str) -> Path:
        """Fetch the file called `name` here, and make it what it is here where the hub has it in another form."""
        stem = name.removesuffix(SUFFIX)
        path = self.as_published(stem) or self.transfer(hub_of(stem) or SD_HUB, name)
        return path if path.suffix == SUFFIX else as_safetensors(path)

    def transfer(self, hub: Hub, name: str) -> Path:
        """Fetch a hub's file into `download_folder`, going on where an earlier try stopped.

        WeightsError where it cannot be had, OutputError where it cannot be written.
        """
        from huggingface_hub import constants

        target = self.download_folder()
        if self.offline or constants.HF_HUB_OFFLINE:
            raise self._missing(hub, name, "offline mode forbids the download")
        name = hub.name_of(name)
        logger.info("downloading %s from %s (licence %s) to %s", name, hub.repository, hub.licence, target)
        try:
            return self.fetch(hub, name, target)
        except LayerDiffuseError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in LOCAL_FAULTS:
                raise unwritable(target / name, error, self.elsewhere) from error
            raise self._missing(hub, name, first_line(error)) from error

    def fetch(self, hub: Hub, name: str, target: Path) -> Path:
        """The transfer itself."""
        return fetch_file(hub.repository, name, target)

    def by_hand(self, hub: Hub, name: str) -> str:
        """How a user gets a file without this program."""
        return (
            f"get {name} from {hub.repository} by hand (or set HF_ENDPOINT to a mirror), put it into "
            f"{self.download_folder()} or any folder, and name that with --models FOLDER"
        )

    def _missing(self, hub: Hub, name: str, reason: str) -> WeightsError:
        looked = ", ".join(str(folder) for folder in self.search_folders()) or "no folder yet"
        name = hub.name_of(name)
        return WeightsError(
            f"no {name} (looked in {looked}; {reason})",
            f"the file {name} of the hub repository {hub.repository}",
            self.by_hand(hub, name),
        )


def published_name(stem: str) -> str:
    """What the hub calls the file of `stem`."""
    hub = hub_of(stem)
    return stem + SUFFIX if hub is None else hub.name_of(stem + SUFFIX)


def unwritable(path: Path, error: OSError, elsewhere: str) -> OutputError:
    """The OutputError for a file that could not be written into a folder of layer files."""
    reason = error.strerror or first_line(error)
    return OutputError(
        f"{reason} while writing {path}", "room and permission to write there", f"free space or {elsewhere}"
    )


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type when it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
