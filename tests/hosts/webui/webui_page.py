"""The WebUI's page as tests use it: a tab in Chromium, and what a user does with it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

PATIENCE = 120_000  # milliseconds; a busy machine is slow, a broken page is for ever
SEED = 11
PREFIX = "txt2img_layerdiffuse"
RECOMMENDED = {
    "demo": {"steps": 20, "cfg_scale": 1.5, "width": 128, "height": 128},
    "sd15": {"steps": 2, "cfg_scale": 5, "width": 64, "height": 64},
    "sdxl": {"steps": 1, "cfg_scale": 5, "width": 64, "height": 64},
    "flux": {"steps": 2, "cfg_scale": 1, "width": 64, "height": 64},
}
SAMPLERS = {"demo": "DDIM", "sd15": "DDIM", "sdxl": "DDIM", "flux": "Euler"}
FIRST_IMAGE = "(document.querySelector('#{tab}_gallery img')?.src ?? '')"


class Page:
    """A tab on the WebUI's page, and what a user does with it."""

    def __init__(self, browser, url: str, base: str, screenshots: Path | None = None):
        self.base, self.screenshots = base, screenshots
        self.tab = browser.new_page()
        self.tab.set_default_timeout(PATIENCE)
        self.tab.goto(url)
        self.tab.wait_for_selector("#txt2img_seed input")
        self.tab.wait_for_selector("#txt2img_generate")
        self.tab.wait_for_function("() => typeof opts === 'object' && Object.keys(opts).length > 0")

    def enable(self, on: bool, tab: str = "txt2img") -> None:
        """Click the accordion's title, which opens it and ticks its box, or the other way round."""
        if self.is_enabled(tab) != on:
            self.tab.click(f"#{tab}_layerdiffuse_accordion > .label-wrap")
        self.tab.wait_for_selector(f"#{tab}_layerdiffuse_weight", state="visible" if on else "hidden")
        assert self.is_enabled(tab) == on

    def is_enabled(self, tab: str = "txt2img") -> bool:
        return self.tab.is_checked(f"#{tab}_layerdiffuse_accordion .input-accordion-checkbox")

    def unfold(self, name: str) -> None:
        """Open the fold that a component is in, if it is closed."""
        fold = f"#{name.rpartition('_layerdiffuse_')[0]}_layerdiffuse_advanced"
        if not self.tab.is_visible(f"#{name}"):
            self.tab.click(f"{fold} > :is(.label-wrap, button)")
            self.tab.wait_for_selector(f"#{name}")

    def number(self, name: str, value: float) -> None:
        field = f"#{name} input[type=number]"
        self.tab.fill(field, str(value))
        self.tab.press(field, "Tab")

    def value(self, name: str) -> float:
        return float(self.tab.input_value(f"#{name} input[type=number]"))

    def choose(self, name: str, text: str) -> None:
        """Choose from a drop-down list by typing."""
        field = f"#{name} input"
        self.tab.click(field)
        self.tab.fill(field, text)
        self.tab.press(field, "Enter")

    def choose_exactly(self, name: str, text: str) -> None:
        """Choose from a drop-down list the very entry: "Euler", and not "Euler a"."""
        self.tab.click(f"#{name} input")
        self.tab.click(f"#{name} li[aria-label='{text}']")

    @property
    def size(self) -> tuple[int, int]:
        """That of the pictures."""
        return RECOMMENDED[self.base]["width"], RECOMMENDED[self.base]["height"]

    def skip_unless_trained(self) -> None:
        """Skip what made-up weights cannot tell."""
        if self.base != "demo":
            pytest.skip("needs a checkpoint that was trained")

    def fill_in(self, prompt: str, seed: int) -> None:
        """The recommended settings of the model."""
        self.tab.fill("#txt2img_prompt textarea", prompt)
        self.choose_exactly("txt2img_sampling", SAMPLERS[self.base])
        if self.base == "flux":
            self.choose_exactly("txt2img_scheduler", "Simple")
        for name, number in RECOMMENDED[self.base].items():
            self.number(f"txt2img_{name}", number)
        self.number("txt2img_seed", seed)

    def choose_mode(self, title: str) -> None:
        """Click a mode of the accordion."""
        self.tab.click(f"#{PREFIX}_mode label:has-text('{title}')")

    def give(self, argument: str, path: Path) -> None:
        """Put a picture into a field of the accordion."""
        field = f"#{PREFIX}_{argument}"
        self.tab.wait_for_selector(field, state="visible")
        self.tab.set_input_files(f"{field} input[type=file]", str(path))
        self.tab.wait_for_selector(f"{field} img")

    def generate(self, tab: str = "txt2img") -> Image.Image:
        """Press the button; the new picture of the gallery, as the page shows it."""
        script = FIRST_IMAGE.format(tab=tab)
        before = self.tab.evaluate(f"() => {script}")
        self.tab.click(f"#{tab}_generate")
        found = f"before => {script} && !{script}.startsWith('data:') && {script} !== before"
        self.tab.wait_for_function(found, arg=before)
        self.tab.wait_for_selector(f"#{tab}_interrupt", state="hidden")
        return read(self.tab.request.get(self.tab.evaluate(f"() => {script}")).body())

    def save(self) -> tuple[str, Image.Image]:
        """Press Save, then the link to the file: its name and the picture."""
        link = "#download_files_txt2img a[href*='.png']"
        before = self.tab.get_attribute(link, "href") if self.tab.locator(link).count() else ""
        self.tab.click("#save_txt2img")
        self.tab.wait_for_selector(f"{link}:not([href='{before}'])")
        with self.tab.expect_download() as waiting:
            self.tab.click(link)
        return waiting.value.suggested_filename, read(Path(waiting.value.path()).read_bytes())

    def infotext(self) -> str:
        return self.tab.inner_text("#html_info_txt2img")

    def screenshot(self, name: str) -> None:
        """A picture of the page for the README, where a folder is wanted."""
        if self.screenshots is not None:
            self.screenshots.mkdir(parents=True, exist_ok=True)
            self.tab.screenshot(path=str(self.screenshots / f"{name}.png"))


def read(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
