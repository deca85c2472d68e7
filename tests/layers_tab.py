"""The Layers tab in a browser, on the page and in a WebUI: what a user does with it."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

TAB = "button[role=tab]:has-text('Layers'), #tabs > .tab-nav > button:has-text('Layers')"
PLACE = "#layerdiffuse_layers_"
LINES = f"{PLACE}list label"


def wait_until(condition, seconds: float = 30) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(condition())


class LayersTab:
    """The tab in a visitor's browser."""

    def __init__(self, tab: Any, patience: float = 30):
        self.tab, self.patience = tab, patience
        self.open()

    def open(self) -> None:
        self.tab.click(TAB)
        self.tab.wait_for_selector(f"{PLACE}prompt textarea")

    def names(self) -> list[str]:
        """Lines of the list, top first."""
        return [text.strip() for text in self.tab.locator(LINES).all_inner_texts()]

    def wait_for(self, *names: str) -> None:
        assert wait_until(lambda: self.names() == list(names), self.patience), self.names()

    def click(self, name: str) -> None:
        self.tab.click(f"{PLACE}{name}")

    def number(self, name: str, value: float) -> None:
        self.tab.fill(f"{PLACE}{name} input[type=number]", str(value))

    def unfold(self, name: str, part: str) -> None:
        if not self.tab.is_visible(f"{PLACE}{part}"):
            self.tab.click(f"{PLACE}{name} > :is(button, .label-wrap)")
            self.tab.wait_for_selector(f"{PLACE}{part}")

    def few_steps(self) -> None:
        self.unfold("settings", "setting_steps")
        self.number("setting_steps", 1)
        self.tab.keyboard.press("Tab")

    def paint(self, prompt: str, button: str, seed: int = 5) -> None:
        self.tab.fill(f"{PLACE}prompt textarea", prompt)
        self.number("seed", seed)
        self.tab.wait_for_selector(f"{PLACE}{button}:not([disabled])")
        self.click(button)

    def shown(self) -> str:
        """The address of the composite."""
        return self.tab.evaluate(f"() => document.querySelector('{PLACE}composite img')?.src ?? ''")

    def picture(self) -> Image.Image:
        """The composite as the page shows it."""
        address = self.shown()
        from playwright.sync_api import Error

        try:
            data = base64.b64decode(address.partition(",")[2]) if address.startswith("data:") else self.fetched(address)
        except Error:  # another one is shown by now, and the page's file of this one may be gone
            if self.shown() == address:
                raise
            return self.picture()
        return Image.open(io.BytesIO(data))

    def fetched(self, address: str) -> bytes:
        return self.tab.request.get(address).body()

    def composite(self) -> Image.Image:
        """RGBA of the composite."""
        return self.picture().convert("RGBA")

    def after_change(self, act) -> Image.Image:
        """The composite after something that changes it."""
        before = self.shown()
        act()
        assert wait_until(lambda: self.shown() not in ("", before), self.patience)
        return self.composite()

    def message(self) -> str:
        return self.tab.inner_text(f"{PLACE}messages") if self.tab.is_visible(f"{PLACE}messages") else ""

    def save(self, title: str) -> tuple[str, bytes]:
        self.unfold("files", "save")
        self.tab.check(f"{PLACE}format label:has-text('{title}') input")
        link = f"{PLACE}download a"
        address = f"() => document.querySelector('{link}')?.href ?? ''"
        before = self.tab.evaluate(address)
        self.click("save")
        # on a busy machine the link of the file before is there for a while
        assert wait_until(lambda: self.tab.evaluate(address) not in ("", before))
        with self.tab.expect_download() as waiting:
            self.tab.click(link)
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def cut_out(size=(64, 64)) -> bytes:
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((8, 8, 23, 23), fill=(255, 0, 0, 255))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def give(tab: LayersTab, data: bytes, name: str = "cut-out.png") -> None:
    tab.unfold("given", "add_picture")
    tab.tab.set_input_files(f"{PLACE}picture input[type=file]", {"name": name, "mimeType": "image/png", "buffer": data})
    tab.tab.wait_for_selector(f"{PLACE}picture img")
