"""In the settings: a table of the loaded checkpoint's layer files, with a button that downloads what is missing."""

from __future__ import annotations

import html
import importlib
from collections.abc import Iterator
from typing import Any

from ...core.bases import BASES
from ...core.errors import LayerDiffuseError
from ..host.host import loaded_base
from ..page.options import PREFIX, read_options
from .downloads import MEGABYTE, HostLayerFiles
from .transfers import TRANSFERS, ListedFile, Transfer, listed, missing

BELOW = f"setting_{PREFIX}offline"  # the element that it stands beneath
HEADS = ("Layer file", "For", "Here")
SHIPPED = "its files come with this extension"
NOTHING = "No checkpoint with layer methods is loaded: load one, then press Refresh."
DOWNLOAD, REFRESH, STOP = "Download what is missing", "Refresh", "Stop the download"
EVERY = 0.5  # seconds between two looks at a download


class FilesTable:
    """Builds it once for each page, when the WebUI has made the setting above it."""

    def __init__(self) -> None:
        self.built = False

    def begin(self) -> None:
        """The WebUI's on_before_ui: a new page."""
        self.built = False

    def after_component(self, _component: Any, **named: Any) -> None:
        """The WebUI's on_after_component, for every component of the page."""
        if named.get("elem_id") == BELOW and not self.built:
            self.built = True  # before anything is built, as that calls this function again
            build(importlib.import_module("gradio"))


def build(gradio: Any) -> None:
    """The table and its buttons, inside the page that is being built."""
    name = f"{PREFIX}files"
    with gradio.Column(elem_id=name):
        table = gradio.HTML(table_html, elem_id=f"{name}_table")  # asked anew whenever the page is opened
        with gradio.Row():
            buttons = [
                gradio.Button(text, size="sm", elem_id=f"{name}_{act}")
                for act, text in (("refresh", REFRESH), ("download", DOWNLOAD), ("stop", STOP))
            ]
    for component in (table, *buttons):
        component.do_not_save_to_config = True
    refresh, download, stop = buttons
    refresh.click(table_html, None, [table], show_progress="hidden", queue=False)
    download.click(fetched, None, [table], show_progress="hidden")
    stop.click(stopped, None, [table], show_progress="hidden", queue=False)


def fetched() -> Iterator[str]:
    """Download what the loaded base lacks; the table again and again until that is over."""
    base = loaded_base()
    if base is None:
        yield table_html()
        return
    try:
        transfer = TRANSFERS.start(missing(HostLayerFiles(read_options()), base))
    except LayerDiffuseError as error:
        yield table_html() + paragraph(str(error))
        return
    while transfer.running:
        yield table_html()
        transfer.wait(EVERY)
    yield table_html()


def stopped() -> str:
    """The table after the download was stopped."""
    TRANSFERS.last.stop()
    TRANSFERS.last.wait(10 * EVERY)
    return table_html()


def table_html() -> str:
    """The files of the loaded base, where they come from, and the download that is under way."""
    base = loaded_base()
    if base is None:
        return paragraph(NOTHING)
    head = "".join(f"<th>{text}</th>" for text in HEADS)
    rows = "".join(row_html(file) for file in listed(HostLayerFiles(read_options()), base))
    hub = BASES[base].hub
    source = SHIPPED if hub is None else f"from {hub.repository}, licence {hub.licence}"
    table = f"<table><tr>{head}</tr>{rows}</table>"
    return paragraph(f"{BASES[base].title}: {source}") + table + progress_html(TRANSFERS.last)


def row_html(file: ListedFile) -> str:
    """One file."""
    here = f"{file.size / MEGABYTE:.1f} MB" if file.size is not None else "missing"
    cells = "".join(f"<td>{html.escape(text)}</td>" for text in (file.name, file.purpose, here))
    return f'<tr title="{html.escape(file.path or "")}">{cells}</tr>'


def progress_html(transfer: Transfer) -> str:
    """How the download is getting on, or why it ended."""
    if transfer.running:
        return paragraph(transfer.textinfo or "Downloading ...")
    return paragraph(str(transfer.error)) if transfer.error else ""


def paragraph(text: str) -> str:
    """A line of text."""
    return f"<p>{html.escape(text)}</p>"


TABLE = FilesTable()
