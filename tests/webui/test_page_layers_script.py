"""The buttons under the gallery in headless Chromium, on a page built like a WebUI's: what they fetch and send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlparse

import pytest

from lib_layerdiffuse.sets.save_options import KINDS
from lib_layerdiffuse.webui.saving.layer_download import ADDRESS, NOTES

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "javascript/layerdiffuse_layers.js").read_text(encoding="utf-8")
STYLE = (ROOT / "style.css").read_text(encoding="utf-8")
URL = "http://webui.test/"
PATIENCE = 10_000
NAME = "一只猫-7.ora"
PAGE = """<!doctype html><html><head><meta charset="utf-8"><style>{style}</style></head><body>
<div id="txt2img_gallery"><div class="preview"><img alt="" src="/file=out/00007-%E7%8C%AB.png?1"></div></div>
<div id="image_buttons_txt2img"><button>Save</button></div>
<div id="img2img_gallery"></div><div id="image_buttons_img2img"></div>
<div id="txt2img_layerdiffuse_accordion-checkbox"><input type="checkbox"></div>
<div id="img2img_layerdiffuse_accordion-checkbox"><input type="checkbox"></div>
<div id="txt2img_layerdiffuse_visitor"><textarea>me</textarea></div>
<script>
const loaded = [], gradioApp = () => document, onUiLoaded = (call) => loaded.push(call), onAfterUiUpdate = () => 0;
</script><script>{script}</script><script>loaded.forEach((call) => call());</script></body></html>"""
PHOTOPEA = """<script>
onmessage = (event) => {
    document.title = String(event.data.byteLength);
    document.body.append(event.origin + " " + event.data.byteLength);
    parent.postMessage("done", "*");
};
parent.postMessage("done", "*");
</script><body></body>"""


class Page:
    """A tab with the page; what it asks for is kept, and answered with `answer`."""

    def __init__(self, tab):
        self.asked: list[dict[str, str]] = []
        told = f"attachment; filename*=UTF-8''{quote(NAME)}"
        self.answer = {"body": b"layers", "headers": {"Content-Disposition": told, NOTES: quote("to 30.0 dB")}}
        self.tab = tab
        self.tab.set_default_timeout(PATIENCE)
        page = PAGE.replace("{style}", STYLE).replace("{script}", SCRIPT)
        self.tab.route("**/*", lambda route: route.fulfill(body=page, content_type="text/html"))
        self.tab.route(
            "https://www.photopea.com/*", lambda route: route.fulfill(body=PHOTOPEA, content_type="text/html")
        )
        self.tab.route(f"**{ADDRESS}?*", self.give)
        self.tab.goto(URL)

    def give(self, route) -> None:
        query = parse_qs(urlparse(route.request.url).query, keep_blank_values=True)
        self.asked.append({name: values[0] for name, values in query.items()})
        route.fulfill(**self.answer)

    def tick(self, on: bool = True, tab: str = "txt2img") -> None:
        self.tab.set_checked(f"#{tab}_layerdiffuse_accordion-checkbox input", on)

    def told(self) -> str:
        return self.tab.locator(".layerdiffuse_told").first.inner_text()


@pytest.fixture
def page(tabs) -> Iterator[Page]:
    yield Page(tabs.lend())
    tabs.give_back()


def test_the_buttons_are_there_only_while_the_box_is_ticked(page):
    bars = page.tab.locator(".layerdiffuse_layers")
    assert bars.count() == 0
    page.tick()
    assert bars.count() == 1 and bars.is_visible()
    assert page.tab.locator("#image_buttons_txt2img + .layerdiffuse_layers").count() == 1
    page.tick(False)
    assert not bars.is_visible()
    page.tick()
    page.tick(tab="img2img")
    assert bars.count() == 2


def test_the_formats_are_those_of_the_program(page):
    page.tick()
    values = page.tab.eval_on_selector_all("option", "(all) => all.map((one) => one.value)")
    assert values == list(KINDS)


def test_layers_are_saved_under_the_name_that_the_server_gives(page):
    page.tick()
    page.tab.select_option(".layerdiffuse_format", "ora")
    page.tab.set_checked(".layerdiffuse_layers label input", True)
    with page.tab.expect_download() as download:
        page.tab.click("text=Save layers as")
    assert download.value.suggested_filename == NAME and Path(download.value.path()).read_bytes() == b"layers"
    wanted = {"visitor": "me", "tab": "txt2img", "picture": "00007-猫.png", "kind": "ora", "recomposite": "true"}
    assert page.asked == [wanted] and page.told() == "to 30.0 dB"


def test_what_went_wrong_is_told_and_nothing_is_saved(page):
    page.tick()
    body = json.dumps({"got": "no layers <b>", "expected": "a set", "what_to_do": "generate"})
    page.answer = {"status": 422, "body": body, "content_type": "application/json"}
    page.tab.click("text=Save layers as")
    page.tab.wait_for_function("document.querySelector('.layerdiffuse_told').textContent.includes('expected')")
    assert page.told() == "got no layers <b>; expected a set. What to do: generate."
    page.tab.unroute(f"**{ADDRESS}?*")
    page.tab.route(f"**{ADDRESS}?*", lambda route: route.abort())
    page.tab.click("text=Save layers as")
    page.tab.wait_for_function("document.querySelector('.layerdiffuse_told').textContent.includes('Error')")


def test_photopea_gets_the_psd_and_nothing_before_somebody_asks(page):
    fetched = []
    page.tab.on("request", lambda request: fetched.append(request.url))
    page.tick()
    assert not any("photopea" in url for url in fetched)
    page.tab.click("text=Open in Photopea")
    frame = page.tab.frame_locator("#layerdiffuse_photopea iframe")
    frame.locator("text=http://webui.test 6").wait_for()
    page.tab.wait_for_timeout(200)
    assert frame.locator("body").inner_text().count("webui.test") == 1  # once, though it says "done" again
    assert [wanted["kind"] for wanted in page.asked] == ["psd"]
    page.tab.click("text=Close")
    assert (
        page.tab.locator("#layerdiffuse_photopea").count() == 0 and page.tab.locator("text=Save layers as").is_visible()
    )
