"""Layer files in a WebUI: looked for where its users keep them, else downloaded there, with progress and Interrupt."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...core.bases import NETWORKS, Hub
from ...core.errors import WeightsError
from ...core.methods import Method, is_shipped
from ...files.demo_folder import DEMO_FOLDER
from ...files.downloads import LayerFiles
from ...files.hub import fetch_file
from ..host.modules import host_module
from ..page.options import Options

logger = logging.getLogger(__name__)

LAYER_FOLDER = "layer_model"  # of the WebUI's models folder, as users of layer files know it
SETTING = "Settings > LayerDiffuse"
MEGABYTE = 1_000_000


class DownloadStopped(WeightsError):
    """The user interrupted a download; what has arrived is kept."""


class HostLayerFiles(LayerFiles):
    """Layer files from the folder of the settings, the WebUI's models/layer_model, its models folder, or the hub.

    `models` and `state` stand in for those of the running WebUI.
    """

    elsewhere = f"put it into another folder and name that in {SETTING}"

    def __init__(self, options: Options, models: Path | None = None, state: Any = None):
        models = Path(models or host_module("paths").models_path)
        target = models / LAYER_FOLDER
        named = [Path(options.models_folder)] if options.models_folder else []
        folders = [folder for folder in (*named, target, models) if folder.is_dir()]
        super().__init__(folders, options.offline, target)
        self.mirror = options.mirror
        self.named = named
        self.absent = [folder for folder in named if not folder.is_dir()]
        self._state = state

    def find(self, stem: str) -> Path:
        """The file of `stem`; WeightsError when it is nowhere."""
        if self.absent:
            logger.warning("no folder %s, which %s or --layerdiffuse-models names", self.absent[0], SETTING)
        return super().find(stem)

    def places_of(self, stem: str) -> list[Path]:
        """For files of the demo model the package too."""
        return [*self.search_folders(), *([DEMO_FOLDER] if is_shipped(stem) else [])]

    def choice_folders(self) -> list[Path]:
        """The settings' folder and models/layer_model: the models folder itself is full of other files."""
        return [folder for folder in (*self.named, self.target) if folder is not None and folder.is_dir()]

    def offers(self, method: Method) -> bool:
        """Not those whose VAE is another one than the WebUI's."""
        return method.codec.kind == NETWORKS and super().offers(method)

    def fetch(self, hub: Hub, name: str, target: Path) -> Path:
        """The transfer, shown in the WebUI."""
        state = host_module("shared").state if self._state is None else self._state
        with shown_download(name, state) as watch:
            return fetch_file(hub.repository, name, target, self.mirror or None, watch)

    def by_hand(self, hub: Hub, name: str) -> str:
        """How a user gets a file without this program."""
        absent = f"; {self.absent[0]}, named there or by --layerdiffuse-models, does not exist" if self.absent else ""
        return (
            f"get {name} from {hub.repository} by hand and put it into {self.download_folder()}, or into a folder that "
            f"you name in {SETTING}, where a mirror can be named too{absent}"
        )


@contextmanager
def shown_download(name: str, state: Any) -> Iterator[Any]:
    """Yields a watch for `fetch_file` that writes into the WebUI's `state`, and raises when the user interrupts."""

    def watch(done: int, size: int | None) -> None:
        if getattr(state, "interrupted", False) and done != size:
            raise stopped(name, done, size)
        state.textinfo = f"Downloading {name}: {amount(done, size)}"

    try:
        yield watch
    finally:
        state.textinfo = None


def amount(done: int, size: int | None) -> str:
    """How much has arrived, in per cent where the size is known."""
    if not size:
        return f"{done / MEGABYTE:.0f} MB"
    return f"{100 * done // size} % of {size / MEGABYTE:.0f} MB"


def stopped(name: str, done: int, size: int | None) -> DownloadStopped:
    """The error that ends an interrupted download."""
    return DownloadStopped(
        f"an interrupt while downloading {name} ({amount(done, size)} have arrived)",
        "the whole file",
        "generate again: the download goes on where it stopped",
    )
