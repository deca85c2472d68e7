"""Script and style sheet of the extension in headless Chromium, on a page built like a WebUI's: no WebUI is needed.

What counts is that they leave the page alone: every control near a picture can be pressed, with the box off and on.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from browser_tabs import Tabs
from PIL import Image

from lib_layerdiffuse.webui.page.page_state import ADDRESS

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "javascript/layerdiffuse.js").read_text(encoding="utf-8")
STYLE = (ROOT / "style.css").read_text(encoding="utf-8")
PATIENCE = 20_000
URL = "http://webui.test/"
SIZES = {"wide": (240, 60), "tall": (60, 240), "square": (128, 128)}
PERIOD = 1.0  # seconds, in which the script has asked again
CONTROLS = (
    "#txt2img_gallery .icons a, #txt2img_gallery .icons button, #txt2img_gallery .thumbnails button, #tools button"
)
# What a WebUI gives to extensions, a gallery with a large picture under buttons that lie on it, and an accordion.
PAGE = """<!doctype html><html><head><style>
body {{ margin: 0; font: 14px sans-serif; background: rgb(255, 255, 255); }}
body.dark {{ background: rgb(0, 0, 0); }}
.gallery {{ position: relative; width: 500px; height: 400px; }}
.icons {{ position: absolute; top: 6px; right: 6px; display: flex; gap: 4px; }}
.icons > *, .thumbnails button {{ width: 30px; height: 30px; padding: 0; }}
.large {{ width: 100%; height: 340px; object-fit: contain; }}
.thumbnails {{ position: absolute; bottom: 0; }}
.thumbnails img {{ width: 100%; height: 100%; object-fit: cover; }}
.hidden {{ display: none !important; }}
</style><style>{style}</style></head><body class="{theme}">
<div id="txt2img_gallery" class="gallery"><div class="icons"><a href="#saved">S</a><button>X</button></div>
  <img class="large" alt="" src="{picture}">
  <div class="thumbnails"><button><img alt="" src="{picture}"></button>
  <button><img alt="" src="{picture}"></button></div></div>
<div id="tools"><button>Save</button><button>Zip</button></div>
<div id="img2img_gallery"><img alt="" src="{picture}"></div><div id="extras_gallery"></div>
<div id="lightboxModal"><img alt="" src="{picture}"></div>
<div id="txt2img_layerdiffuse_accordion-checkbox"><input type="checkbox"></div>
<div id="img2img_layerdiffuse_accordion-checkbox"><input type="checkbox"></div>
<div id="txt2img_layerdiffuse_weight"><div>help of the weight</div><input type="range"></div>
<div id="txt2img_layerdiffuse_checkerboard" class="gradio-checkbox"><div class="wrap hidden"></div>
  <div class="help">help of the box</div><label><input type="checkbox" checked><span>Checkerboard</span></label></div>
<div id="img2img_layerdiffuse_checkerboard" class="gradio-checkbox"><label><input type="checkbox" checked></label></div>
<div id="txt2img_layerdiffuse_visitor" class="hidden"><textarea oninput="written.push(this.value)"></textarea></div>
<div id="img2img_layerdiffuse_visitor" class="hidden"><input oninput="written.push(this.value)"></div>
<div id="txt2img_layerdiffuse_state" class="hidden"><textarea></textarea></div>
<div id="img2img_layerdiffuse_state" class="hidden"><textarea></textarea></div>
<button id="txt2img_layerdiffuse_refresh" class="hidden" onclick="press('txt2img')"></button>
<button id="img2img_layerdiffuse_refresh" class="hidden" onclick="press('img2img')"></button>
<script>
const opts = {{}}, loaded = [], updated = [], changed = [], pressed = [], written = [];
let busy = false; // answers no click
const press = (tab) => {{
    pressed.push(tab);
    if (!busy) fetch("{address}").then((answer) => answer.json()).then(({{state}}) => {{
        document.querySelector(`#${{tab}}_layerdiffuse_state textarea`).value = state;
    }});
}};
const gradioApp = () => document;
const onUiLoaded = (call) => loaded.push(call);
const onAfterUiUpdate = (call) => updated.push(call);
const onOptionsChanged = (call) => changed.push(call);
</script><script>{script}</script><script>loaded.forEach((call) => call());</script></body></html>"""


def png(size: tuple[int, int]) -> str:
    """A data URL of a picture with nothing on it."""
    file = io.BytesIO()
    Image.new("RGBA", size, (0, 0, 0, 0)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


class WebUiPage:
    """A tab with the page, which says what checkpoint is loaded and counts how often it is asked."""

    def __init__(self, tab, theme: str = "", size: str = "square", extension: bool = True):
        self.asked, self.state = 0, "sd15"
        self.tab = tab
        self.tab.set_default_timeout(PATIENCE)
        sources = {"script": SCRIPT, "style": STYLE} if extension else {"script": "", "style": ""}
        page = PAGE.format(theme=theme, picture=png(SIZES[size]), address=ADDRESS, **sources)
        self.tab.route("**/*", lambda route: route.fulfill(body=page, content_type="text/html"))
        self.tab.route(f"**{ADDRESS}", self.answer)
        self.tab.goto(URL)

    def answer(self, route) -> None:
        self.asked += 1
        route.fulfill(json={"state": self.state})

    def tick(self, tab: str, on: bool = True, name: str = "accordion-checkbox") -> None:
        self.tab.set_checked(f"#{tab}_layerdiffuse_{name} input", on)

    def covered(self) -> list[str]:
        """The controls that something lies over."""
        return self.tab.evaluate(
            """(controls) => [...document.querySelectorAll(controls)].filter((control) => {
                const box = control.getBoundingClientRect();
                const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
                return top !== control && !control.contains(top);
            }).map((control) => control.innerText)""",
            CONTROLS,
        )

    def looks(self) -> dict[str, dict[str, str]]:
        """All styles of all pictures and controls."""
        return self.tab.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll('img, a, button, body')].map((element, place) => {
                const look = getComputedStyle(element);
                return [place, Object.fromEntries([...look].map((name) => [name, look.getPropertyValue(name)]))];
            }))"""
        )

    def pressed(self) -> list[str]:
        return self.tab.evaluate("() => pressed")

    def pixels(self, selector: str) -> np.ndarray:
        """What is seen of an element, uint8 [H,W,3]."""
        shot = self.tab.locator(selector).screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))


@pytest.fixture(scope="module")
def quick_tabs(tabs) -> Tabs:
    tabs.hurry(5)
    return tabs


@pytest.fixture
def open_page(quick_tabs) -> Iterator[Callable[..., WebUiPage]]:
    yield lambda *arguments, **named: WebUiPage(quick_tabs.lend(), *arguments, **named)
    quick_tabs.give_back()


@pytest.mark.parametrize("theme", ["", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_every_control_near_the_gallery_can_be_pressed(open_page, theme, size):
    page = open_page(theme, size)
    for on in (False, True):
        page.tick("txt2img", on)
        assert page.covered() == [], "box on" if on else "box off"
        for number in range(page.tab.locator(CONTROLS).count()):
            page.tab.locator(CONTROLS).nth(number).click(timeout=3000)  # Playwright refuses to press what is covered


def test_a_mask_on_the_pictures_would_be_seen(open_page):
    """The mistake that was made: what lifts the picture lies over the buttons before it."""
    page = open_page("", "square")
    page.tab.add_style_tag(content="#txt2img_gallery img { mask: linear-gradient(#000, #000); }")
    assert page.covered() == ["S", "X"]


def test_without_the_box_the_page_is_what_it_is_without_the_extension(open_page):
    plain, ours = open_page(extension=False), open_page()
    assert ours.looks() == plain.looks()
    page = ours
    page.tick("txt2img")
    page.tab.wait_for_function("() => pressed.length")
    assert page.looks() != plain.looks()
    page.tick("txt2img", False)
    assert page.looks() == plain.looks()


def test_with_the_box_nothing_but_backgrounds_of_pictures_changes(open_page):
    page = open_page()
    before = page.looks()
    page.tick("txt2img")
    after = page.looks()
    changed = {name for place in before for name in before[place] if before[place][name] != after[place][name]}
    assert "background-image" in changed and all(name.startswith("background-") for name in changed)


def boards(page: WebUiPage) -> dict[str, bool]:
    """Which galleries have a board behind their pictures."""
    names = ("txt2img_gallery", "img2img_gallery", "lightboxModal")
    script = "(name) => getComputedStyle(document.querySelector(`#${name} img`)).backgroundImage !== 'none'"
    return {name: page.tab.evaluate(script, name) for name in names}


def test_each_tab_has_a_board_of_its_own(open_page):
    page = open_page()
    assert not any(boards(page).values())
    page.tick("img2img")
    assert boards(page) == {"txt2img_gallery": False, "img2img_gallery": True, "lightboxModal": True}
    page.tick("img2img", on=False, name="checkerboard")
    assert not any(boards(page).values())
    page.tick("txt2img")
    assert boards(page) == {"txt2img_gallery": True, "img2img_gallery": False, "lightboxModal": True}
    page.tab.evaluate("() => { opts.layerdiffuse_checkerboard = false; changed.forEach((call) => call()); }")
    assert not any(boards(page).values())


@pytest.mark.parametrize(("theme", "ground"), [("", 255), ("dark", 0)])
@pytest.mark.parametrize("size", ["wide", "tall"])
def test_the_board_ends_where_the_picture_ends(open_page, theme, ground, size):
    page = open_page(theme, size)
    page.tick("txt2img")
    page.tab.add_style_tag(content=".icons { visibility: hidden; }")
    seen = page.pixels("#txt2img_gallery .large")[..., 0].astype(int)
    width, height = SIZES[size]
    scale = min(500 / width, 340 / height)
    rows = np.abs(np.arange(seen.shape[0]) + 0.5 - seen.shape[0] / 2) < height * scale / 2
    columns = np.abs(np.arange(seen.shape[1]) + 0.5 - seen.shape[1] / 2) < width * scale / 2
    inside = np.outer(rows, columns)
    assert (seen[~inside] == ground).mean() > 0.99
    assert (seen[inside] == ground).mean() < 0.02 and len(np.unique(seen[inside])) >= 2
    line = seen[seen.shape[0] // 2, columns]
    edges = np.flatnonzero(np.abs(np.diff(line)) > 10)
    assert np.median(np.diff(edges)) == pytest.approx(12, abs=1), "squares as large on the screen in any picture"


def test_a_picture_that_comes_later_has_its_board_too(open_page):
    page = open_page()
    page.tick("txt2img")
    page.tab.evaluate(
        """async (source) => {
            const picture = document.createElement('img');
            picture.src = source;
            document.querySelector('#extras_gallery').append(picture);
            await picture.decode();
        }""",
        png((80, 80)),
    )
    page.tab.wait_for_function("() => document.querySelector('#extras_gallery img').style.backgroundImage !== ''")


def test_the_accordion_follows_the_checkpoint_while_its_box_is_ticked(open_page):
    page = open_page()
    page.tab.wait_for_timeout(PERIOD * 1000)
    assert page.asked == 0 and page.pressed() == []  # nobody is asked for what nobody sees
    page.tick("txt2img")
    page.tab.wait_for_function("() => pressed.length === 1")
    page.tab.wait_for_timeout(PERIOD * 1000)
    assert page.asked >= 2 and page.pressed() == ["txt2img"]
    page.state = "sdxl"
    page.tab.wait_for_function("() => pressed.length === 2")
    page.tick("img2img")
    page.tab.wait_for_function("() => pressed.length === 3")
    assert page.pressed() == ["txt2img", "txt2img", "img2img"]
    page.tick("txt2img", False)
    page.tick("img2img", False)
    page.state, asked = "sd15", page.asked
    page.tab.wait_for_timeout(PERIOD * 1000)
    assert page.asked == asked and len(page.pressed()) == 3


def test_a_click_that_was_passed_over_is_made_again(open_page):
    page = open_page()
    page.tab.evaluate("() => { busy = true; }")
    page.tick("txt2img")
    page.tab.wait_for_function("() => pressed.length >= 2")
    page.tab.evaluate("() => { busy = false; }")
    page.tab.wait_for_function("() => document.querySelector('#txt2img_layerdiffuse_state textarea').value === 'sd15'")


def test_a_webui_that_is_restarting_is_asked_again(open_page):
    page = open_page()
    page.tab.route(f"**{ADDRESS}", lambda route: route.abort())
    page.tick("txt2img")
    page.tab.wait_for_timeout(500)
    assert page.pressed() == []
    page.tab.route(f"**{ADDRESS}", page.answer)
    page.tab.wait_for_function("() => pressed.length === 1")


def test_both_tabs_of_a_page_have_one_name_that_no_other_page_has(open_page):
    page, other = open_page(), open_page()
    for one in (page, other):
        assert one.tab.evaluate("() => written") == []
        one.tick("txt2img")
        one.tick("img2img")
    told = "() => [...new Set(written.filter(Boolean))]"
    names = [one.tab.evaluate(told) for one in (page, other)]
    assert [len(written) for written in names] == [1, 1] and names[0] != names[1]
    assert len(names[0][0]) == 32
    page.tab.reload()
    page.tick("txt2img")
    assert page.tab.evaluate(told) == names[0]


def test_the_help_of_a_check_box_stands_under_it_in_line_with_its_label(open_page):
    page = open_page()
    help_text, label = (
        page.tab.locator(f"#txt2img_layerdiffuse_checkerboard {part}").bounding_box() for part in (".help", "label")
    )
    weight = page.tab.locator("#txt2img_layerdiffuse_weight").bounding_box()
    assert help_text["y"] >= label["y"] + label["height"] - 1
    assert label["y"] >= weight["y"] + weight["height"] - 1
    assert help_text["x"] > label["x"] + 15


@pytest.mark.parametrize("language", ["zh_CN", "None"])
def test_texts_that_gradio_changes_in_place_are_translated_too(open_page, language):
    """`processNode` is what WebUIs have for translation; they call it for nodes that are added, and for no others."""
    page = open_page()
    file = ROOT / "localizations" / f"{language}.json"
    page.tab.evaluate(
        """(texts) => {
            window.localization = texts;
            window.processed = [];
            window.processNode = (node) => {
                processed.push(node.data);
                if (texts[node.data] !== undefined) node.data = texts[node.data];
            };
            const accordion = document.createElement("div");
            accordion.id = "img2img_layerdiffuse_accordion";
            accordion.innerHTML = "<button id='last'>Use last result</button>";
            document.body.append(accordion);
            loaded.forEach((call) => call());
        }""",
        json.loads(file.read_text(encoding="utf-8")) if file.exists() else {},
    )
    seen = []
    for text in ("No foreground yet", "Use last result"):
        page.tab.evaluate("(text) => { document.getElementById('last').firstChild.data = text; }", text)
        page.tab.wait_for_timeout(100)
        seen.append(page.tab.inner_text("#last"))
    processed = page.tab.evaluate("() => processed")
    if file.exists():
        assert seen == ["还没有前景", "使用上次结果"] and len(processed) == 4  # each translation once more, in vain
    else:
        assert seen == ["No foreground yet", "Use last result"] and processed == []
