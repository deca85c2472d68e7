"""The scripts that tell a page's name, on a page whose app hears as gradio's do: it hears it, however late it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_tabs import Tabs

ROOT = Path(__file__).parents[2]
PATIENCE = 10_000
# A component keeps what its field says, and tells the app of changes alone; before `ready` nobody listens.
PAGE = """<!doctype html><body>
<div id="layerdiffuse_layers_token"><textarea></textarea></div><button id="layerdiffuse_layers_arrive"></button>
<div id="layerdiffuse_layers_style"></div>
<div id="txt2img_layerdiffuse_accordion-checkbox"><input type="checkbox" checked></div>
<div id="txt2img_layerdiffuse_visitor"><textarea></textarea></div>
<script>
const loaded = [], asked = [], known = {}, keeps = {};
let ready = WHEN;
const gradioApp = () => document, onUiLoaded = (call) => loaded.push(call);
const onAfterUiUpdate = () => 0, onOptionsChanged = () => 0, opts = {};
for (const field of document.querySelectorAll("textarea")) {
    const id = field.parentElement.id;
    known[id] = keeps[id] = "";
    field.addEventListener("input", () => {
        if (field.value !== keeps[id] && ready) known[id] = field.value;
        keeps[id] = field.value;
    });
}
document.querySelector("button").onclick = () => {
    asked.push(known.layerdiffuse_layers_token);
    if (asked.at(-1)) document.querySelector("#layerdiffuse_layers_style").innerHTML = "<i data-arrived></i>";
};
</script><script>SCRIPT</script><script>loaded.forEach((call) => call());</script></body>"""


@pytest.fixture(scope="module")
def quick_tabs(tabs) -> Tabs:
    tabs.hurry(10)
    return tabs


@pytest.fixture
def opened(quick_tabs) -> Iterator:
    """`opened(script, when the app listens at first)` is a tab with the page."""

    def open_page(name: str, ready: str):
        script = (ROOT / "javascript" / name).read_text(encoding="utf-8")
        page = PAGE.replace("SCRIPT", script).replace("WHEN", ready)
        tab = quick_tabs.lend()
        tab.set_default_timeout(PATIENCE)
        tab.route("**/*", lambda route: route.fulfill(body=page, content_type="text/html"))
        tab.goto("http://webui.test/")
        return tab

    yield open_page
    quick_tabs.give_back()


@pytest.mark.parametrize("ready", ["true", "false"], ids=["listens", "listens_later"])
@pytest.mark.parametrize(
    ("script", "field"),
    [
        ("layerdiffuse_stack.js", "layerdiffuse_layers_token"),
        ("layerdiffuse.js", "txt2img_layerdiffuse_visitor"),
    ],
)
def test_the_app_hears_the_name(opened, script, field, ready):
    tab = opened(script, ready)
    tab.wait_for_function(f"keeps.{field}.length === 32")
    tab.evaluate("ready = true")
    tab.wait_for_function(f"known.{field}.length === 32")
    if script == "layerdiffuse_stack.js":
        tab.wait_for_selector("[data-arrived]", state="attached")
        assert tab.evaluate("asked.at(-1) === localStorage.getItem('layerdiffuse-layers')")


@pytest.mark.parametrize("folded", [True, False])
def test_a_picture_that_is_sent_is_to_be_seen(opened, folded):
    """The tab is shown, and the fold that the picture goes to is open, whichever it was."""
    tab = opened("layerdiffuse_stack.js", "true")
    tab.evaluate(
        """(folded) => {
            const at = document.body.appendChild(Object.assign(document.createElement("div"), {id: "tabs"}));
            at.innerHTML = `<button id="tab_layerdiffuse_layers-button"></button>
                <div id="layerdiffuse_layers_given"><button class="label-wrap ${folded ? "" : "open"}"></button></div>`;
            at.querySelector("#tab_layerdiffuse_layers-button").onclick = () => window.shown = true;
            const fold = at.querySelector(".label-wrap");
            fold.onclick = () => fold.classList.toggle("open");
        }""",
        folded,
    )
    tab.evaluate("switch_to_layerdiffuse_layers()")
    assert tab.evaluate("shown") and tab.evaluate("document.querySelector('.label-wrap').matches('.open')")
