"""The page around a result: every control near the gallery, checkpoints that change, and whose last result it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from client import is_transparent, layered
from webui_page import PREFIX, RECOMMENDED, SEED, Page, read

GALLERY, BUTTONS = "#txt2img_gallery", "#image_buttons_txt2img"
LARGE = f"{GALLERY} [data-testid=detailed-image]"
DOWNLOAD, CLOSE = f"{GALLERY} [title=Download]", f"{GALLERY} :is([title=Clear], [title=Close])"
SMALL, TILES = f"{GALLERY} .thumbnail-small", f"{GALLERY} .thumbnail-lg"
SENT_TO = {"img2img": "#img2img_image", "inpaint": "#img2maskimg", "extras": "#extras_image"}
SIZES = {"wide": (2, 1), "tall": (1, 2)}
COVERED = """(places) => [...document.querySelectorAll(places)].filter((control) => {
    const box = control.getBoundingClientRect();
    if (!box.width || !box.height) return false;
    const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    return top !== control && !control.contains(top) && !top?.contains(control);
}).map((control) => control.title || control.id || control.className)"""
OF_THE_LAYERS_TAB = "#txt2img_send_to_layers"  # the tab is there without the box, and so is the way to it
LOOKS = """([places, ours]) => [...document.querySelectorAll(`:is(${places}):not(${ours})`)].map((element) => {
    const look = getComputedStyle(element), box = element.getBoundingClientRect();
    const styles = [...look].map((name) => `${name}: ${look.getPropertyValue(name)}`);
    return [element.tagName, element.className.baseVal ?? element.className, box.width, box.height, ...styles];
})"""


@pytest.fixture(scope="session", params=["light", "dark"])
def themed(webui, browser, request) -> Iterator[Page]:
    """A tab of each theme."""
    base = "demo" if "demo" in webui.checkpoints else "sd15"
    webui.use(base, page=True)
    page = Page(browser, f"{webui.server.url}/?__theme={request.param}", base)
    yield page
    page.tab.close()


def generate(page: Page, shape: tuple[int, int], count: int = 2):
    """The pictures of a quick job of this shape, and a grid of them first."""
    page.fill_in("a red apple", seed=SEED)
    width, height = (side * factor for side, factor in zip(page.size, shape, strict=True))
    quick = {"steps": 4, "width": width, "height": height, "batch_count": count}
    for name, number in quick.items():
        page.number(f"txt2img_{name}", number)
    page.generate()
    page.tab.wait_for_function(
        "([small, count]) => document.querySelectorAll(small).length === count", arg=[SMALL, count + 1]
    )


def shown(page: Page) -> str:
    """The address of the picture that is shown large."""
    return page.tab.get_attribute(LARGE, "src")


def fetched(page: Page, address: str):
    return read(page.tab.request.get(address).body())


@pytest.mark.parametrize("on", [False, True], ids=["box-off", "box-on"])
@pytest.mark.parametrize("size", list(SIZES))
def test_every_control_near_the_gallery_works(themed, size, on):
    page, tab = themed, themed.tab
    tab.click("#tabs button:has-text('txt2img')")
    page.enable(on)
    generate(page, SIZES[size])
    assert tab.evaluate(COVERED, f"{GALLERY} .preview :is(a, button), {BUTTONS} button") == []
    check_preview(page, on)
    check_lightbox(page)
    check_files(page, on)
    for place, target in SENT_TO.items():
        tab.click(f"#txt2img_send_to_{place}")
        tab.wait_for_selector(f"{target} :is(img, canvas) >> visible=true")
        tab.click("#tabs button:has-text('txt2img')")


def check_preview(page: Page, on: bool) -> None:
    """Small pictures choose the large one, Download gives its file, Close gives way to the tiles."""
    tab = page.tab
    tab.click(f"{SMALL} >> nth=2")
    chosen = tab.get_attribute(f"{SMALL} >> nth=2 >> img", "src")
    tab.wait_for_function("([large, chosen]) => document.querySelector(large).src === chosen", arg=[LARGE, chosen])
    with tab.expect_download() as waiting:
        tab.click(DOWNLOAD)
    saved = read(Path(waiting.value.path()).read_bytes())
    assert is_transparent(saved) == on
    assert np.array_equal(np.asarray(saved), np.asarray(fetched(page, shown(page))))
    tab.click(CLOSE)
    tab.wait_for_selector(LARGE, state="hidden")
    assert tab.evaluate(COVERED, f"{TILES}, {BUTTONS} button") == []
    tab.click(f"{TILES} >> nth=1")
    tab.wait_for_selector(LARGE)


def check_lightbox(page: Page) -> None:
    """The large view: next, previous, zoom, close."""
    tab = page.tab
    tab.click(f"{LARGE}[data-modded]")  # by which a WebUI remembers that it listens to it
    tab.wait_for_selector("#lightboxModal", state="visible")
    seen = [tab.get_attribute("#modalImage", "src")]
    for button in (".modalNext", ".modalPrev"):
        tab.click(f"#lightboxModal {button}")
        tab.wait_for_function("(old) => document.querySelector('#modalImage').src !== old", arg=seen[-1])
        seen.append(tab.get_attribute("#modalImage", "src"))
    assert seen[0] == seen[2] != seen[1]
    tab.click("#lightboxModal .modalZoom")
    tab.click("#lightboxModal .modalClose")
    tab.wait_for_selector("#lightboxModal", state="hidden")


def check_files(page: Page, on: bool) -> None:
    """Save gives the picture that is shown, Zip all of them."""
    name, saved = page.save()
    assert name.endswith(".png") and is_transparent(saved) == on
    page.tab.click("#save_zip_txt2img")
    page.tab.wait_for_selector("#download_files_txt2img a[href*='.zip']")


def test_without_the_box_the_page_looks_as_without_the_extension(webui, themed, browser):
    query = f"/?{themed.tab.url.partition('?')[2]}"
    base = "sd15" if "sd15" in webui.checkpoints else themed.base  # the demo model is not built without the extension
    webui.use(base, page=True)
    fresh = Page(browser, webui.server.url + query, base)
    fresh.enable(True)
    fresh.enable(False)
    ours = looks(fresh)
    with webui.without_extension(base) as server:
        theirs = looks(Page(browser, server.url + query, base))
    assert ours[0] == theirs[0]
    assert [one[:4] for one in ours[1]] == [other[:4] for other in theirs[1]]
    different = {look for one, other in zip(ours[1], theirs[1], strict=True) for look in set(one[4:]) ^ set(other[4:])}
    free = re.compile("file=|^flex-grow: [78]$")  # addresses; how many buttons the row counts
    assert not {look for look in different if not free.search(look)}


def looks(page: Page) -> tuple[list, list]:
    """The body's classes and style, and all styles around the gallery after a job; the page is closed."""
    places = f"{GALLERY}, {GALLERY} *, {BUTTONS}, {BUTTONS} *, #lightboxModal, #lightboxModal *"
    generate(page, SIZES["wide"])
    page.tab.mouse.move(0, 0)
    page.tab.wait_for_timeout(1000)  # until what moves has come to rest
    body = page.tab.evaluate("() => [document.body.className, document.body.getAttribute('style')]")
    found = page.tab.evaluate(LOOKS, [places, OF_THE_LAYERS_TAB])
    page.tab.close()
    return body, found


def wait_for_modes(page: Page, count: int) -> None:
    """Until the accordion offers so many modes; a list of one is not shown."""
    page.tab.wait_for_function(
        """([mode, count]) => {
            const choices = [...document.querySelectorAll(`#${mode} label`)];
            return choices.filter((choice) => choice.offsetParent).length === count;
        }""",
        arg=[f"{PREFIX}_mode", count],
    )


@pytest.mark.parametrize("way", ["list", "api", "job"])
def test_modes_follow_the_checkpoint_both_ways_round(webui, page, way):
    if not {"demo", "sdxl"} <= set(webui.checkpoints):
        pytest.skip("needs two checkpoints of bases with other modes")
    webui.loaded = ""  # whatever a test before left
    client = webui.use("demo", page=True)
    page.enable(True)
    wait_for_modes(page, 4)
    page.choose_mode("Joint")
    page.tab.wait_for_selector(f"#{PREFIX}_bg_additional_prompt")
    for base, steps in (("sdxl", True), ("demo", False), ("sdxl", True)):
        choose(webui, page, client, way, base)
        wait_for_steps(page, steps)
        assert page.tab.is_checked(f"#{PREFIX}_mode label:has-text('Joint') input"), "both bases have that mode"
        assert page.tab.is_visible(f"#{PREFIX}_bg_additional_prompt")
    webui.loaded = ""
    webui.use("demo", page=True)
    wait_for_steps(page, False)


def wait_for_steps(page: Page, several: bool) -> None:
    """Until the accordion says, or no longer says, that its way has several steps: with SDXL, which has chains."""
    told = page.tab.locator(f"#{PREFIX}_note", has_text="3 steps").first
    told.wait_for(state="visible" if several else "hidden")


def choose(webui, page: Page, client, way: str, base: str) -> None:
    """Load a checkpoint, as a user, a program or a job does."""
    title = webui.title(client, base)
    if way == "list":
        page.tab.click("#setting_sd_model_checkpoint input")
        page.tab.click(f"#setting_sd_model_checkpoint li:has-text('{title.split(' [')[0]}')")
    elif way == "api":
        client.post("/sdapi/v1/options", {"sd_model_checkpoint": title})
    else:
        override = {"override_settings": {"sd_model_checkpoint": title}, "override_settings_restore_afterwards": False}
        client.txt2img(steps=1, **override)


def test_the_last_result_is_the_visitors_own(webui, page, chromium):
    if "demo" not in webui.checkpoints:
        pytest.skip("needs a base that gives layers and takes them")
    client = webui.use("demo", page=True)
    page.enable(True)
    page.fill_in("a red apple", seed=SEED)
    page.number("txt2img_steps", 4)
    page.generate()
    client.txt2img(**RECOMMENDED["demo"] | {"steps": 2}, **layered("", passes=1))
    stranger = Page(chromium.new_context(), webui.server.url, "demo")
    stranger.enable(True)
    for one, given in ((stranger, 0), (page, 1)):
        wait_for_modes(one, 4)
        one.choose_mode("From foreground")
        one.tab.click(f"#{PREFIX}_fg_image_last")
        one.tab.wait_for_selector(f"#{PREFIX}_fg_image img" if given else f"#{PREFIX}_fg_image_last:has-text('yet')")
        assert one.tab.locator(f"#{PREFIX}_fg_image img").count() == given
    stranger.tab.context.close()
    page.choose_mode("Single")


def test_the_accordion_reads_from_top_to_bottom(webui, page):
    """Each help text in reach of its own control, the advanced folded away, all in one line on the left."""
    webui.use(page.base, page=True)
    page.enable(True)
    tab = page.tab
    assert tab.locator(f"#{PREFIX}_accordion [type=radio]:visible").count() != 1
    assert not tab.is_visible(f"#{PREFIX}_ending_step")
    tab.click(f"#{PREFIX}_advanced > :is(.label-wrap, button)")
    tab.wait_for_selector(f"#{PREFIX}_ending_step")
    for box in ("checkerboard", "output_origin"):
        label = tab.locator(f"#{PREFIX}_{box} label").bounding_box()
        text = tab.locator(f"#{PREFIX}_{box} :text('picture') >> visible=true >> nth=-1").bounding_box()
        assert text["y"] >= label["y"] - 1 and text["y"] - label["y"] < 60
    page.screenshot("webui-advanced")
    tab.click(f"#{PREFIX}_advanced > :is(.label-wrap, button)")
