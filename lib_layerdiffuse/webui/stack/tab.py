"""The Layers tab on a WebUI's page, and the pictures that go to and from its other tabs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ...form.ranges import Range
from ...form.stack.events import StackEvents
from ...form.stack.handlers import StackHandlers
from ...form.stack.layout import StackLayout
from ...form.stack.place import Setting, StackPlace
from ...sets.stack_store import StackStore
from ..host.host import loaded_base
from ..host.modules import host_module
from ..host.sampling import samplers
from . import painting

TAB_TITLE, TAB_ID = "Layers", "layerdiffuse_layers"
LARGEST = 4096  # pixels of a side
STORE = "layerdiffuse-layers"  # below the WebUI's cache
SEND = "Send to Layers"
# what suits a base: the side of a picture, guidance, sampler
USUAL = {
    "demo": (128, 1.5, "DDIM"),
    "sd15": (512, 7.0, "DPM++ 2M"),
    "sdxl": (1024, 7.0, "DPM++ 2M"),
}
UNKNOWN = USUAL["sd15"]
DESTINATIONS = {"img2img": "Send to img2img", "inpaint": "Send to inpaint"}


def usual() -> tuple[int, float, str]:
    """What suits the loaded checkpoint."""
    return USUAL.get(loaded_base() or "", UNKNOWN)


def canvas() -> tuple[int, int]:
    """The size of a new stack."""
    side = usual()[0]
    return side, side


def settings() -> tuple[Setting, ...]:
    """How to paint."""
    _, guidance, sampler = usual()
    names = samplers()
    return (
        Setting("steps", "Steps", 20, Range(1, 150, whole=True)),
        Setting("guidance", "CFG Scale", guidance, Range(1, 30), 0.5),
        Setting("sampler", "Sampling method", sampler if sampler in names else names[0], choices=names),
        Setting("negative_prompt", "Negative prompt", ""),
    )


def suggested() -> dict[str, Any]:
    """The settings that suit the loaded checkpoint, by name."""
    return {row.name: row.default for row in settings() if row.name in ("guidance", "sampler")}


def store_folder() -> Path:
    """Where stacks are kept over a restart."""
    return Path(host_module("paths_internal").data_path) / "cache" / STORE


class StackTabs:
    """The tab of the page that is being built, and the buttons that were seen on the way."""

    def __init__(self) -> None:
        self.buttons: list[tuple[Any, Any]] = []  # a button below a gallery, and the gallery
        self._gallery: Any = None

    def begin(self) -> None:
        """The WebUI's on_before_ui: the page is built anew."""
        self.buttons, self._gallery = [], None

    def after_component(self, component: Any, **named: Any) -> None:
        """The WebUI's on_after_component: a button of ours after the last that sends a gallery's picture."""
        element = named.get("elem_id") or getattr(component, "elem_id", None)
        if element in ("txt2img_gallery", "img2img_gallery"):
            self._gallery = component
        elif element in ("txt2img_send_to_extras", "img2img_send_to_extras") and self._gallery is not None:
            tab = element.split("_")[0]
            tool = host_module("ui_components").ToolButton
            button = tool("\U0001f5c2\ufe0f", elem_id=f"{tab}_send_to_layers", tooltip=SEND)
            self.buttons.append((button, self._gallery))

    def build(self) -> list[tuple[Any, str, str]]:
        """The WebUI's on_ui_tabs."""
        gradio = importlib.import_module("gradio")
        rows = settings()
        place = StackPlace(
            StackStore(store_folder()),
            painting.paint,
            canvas,
            rows,
            suggested=suggested,
            most_side=LARGEST,
            preview_side=LARGEST,
        )
        with gradio.Blocks(analytics_enabled=False) as blocks:
            layout = StackLayout(gradio, canvas(), rows, destinations=DESTINATIONS).build()
            StackEvents(StackHandlers(layout, place)).connect()
        self.connect(layout)
        return [(blocks, TAB_TITLE, TAB_ID)]

    def connect(self, layout: StackLayout) -> None:
        """Lets the WebUI carry pictures between its tabs and this one."""
        sending = pasting()
        sending.add_paste_fields(TAB_ID, layout["picture"], [])
        for tab in DESTINATIONS:
            sending.register_paste_params_button(
                sending.ParamBinding(
                    paste_button=layout[f"to_{tab}"], tabname=tab, source_image_component=layout["composite"]
                )
            )
        for button, gallery in self.buttons:
            sending.register_paste_params_button(
                sending.ParamBinding(paste_button=button, tabname=TAB_ID, source_image_component=gallery)
            )


def pasting() -> Any:
    """The WebUI's module for pictures and texts that go from tab to tab: it was renamed."""
    try:
        return host_module("infotext_utils")
    except ImportError:
        return host_module("generation_parameters_copypaste")


TABS = StackTabs()
