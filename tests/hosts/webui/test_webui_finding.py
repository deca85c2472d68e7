"""A picture without alpha on the WebUI's page and by its API: the comment that says why, and the button that tries."""

from __future__ import annotations

import numpy as np
from client import layered
from webui_page import PATIENCE, PREFIX, RECOMMENDED, SAMPLERS, SEED

WEIGHT, AS_IT_WAS = "Weight and Stop At 1", "as it was"
ROUTE = "/layerdiffuse/v1/find-out"
BUTTON, TABLE = f"#{PREFIX}_find_out", f"#{PREFIX}_found table"


def broken(page) -> None:
    """A picture that cannot be transparent."""
    page.enable(True)
    page.number(f"{PREFIX}_weight", 0)
    page.fill_in("a red apple", seed=SEED)
    page.generate()


def test_the_comment_says_why_and_the_button_what_helps(page, webui):
    webui.use(page.base, page=True)
    tab = page.tab
    broken(page)
    tab.wait_for_function("() => document.querySelector('#txt2img_results').innerText.includes('LayerDiffuse: ')")
    told = tab.inner_text("#txt2img_results")
    assert "Weight is 0: set it to 1" in told
    shown, files = tab.get_attribute("#txt2img_gallery img", "src"), saved(webui)
    assert files
    page.screenshot("webui-diagnosis")

    tab.click(BUTTON)
    tab.wait_for_selector("#txt2img_interrupt", state="visible")
    tab.wait_for_selector("#txt2img_results .progressDiv, .progressDiv")
    tab.wait_for_selector(TABLE, timeout=5 * PATIENCE)
    tab.wait_for_selector("#txt2img_interrupt", state="hidden")
    found = tab.inner_text(f"#{PREFIX}_found .layerdiffuse_findings")
    assert AS_IT_WAS in found and WEIGHT in found
    if page.base == "demo":
        assert f"This helps: {WEIGHT}" in found
    tab.locator(TABLE).scroll_into_view_if_needed()
    page.screenshot("webui-findings")
    assert tab.get_attribute("#txt2img_gallery img", "src") == shown and saved(webui) == files
    assert tab.locator(".progressDiv").count() == 0

    page.number(f"{PREFIX}_weight", 1)
    assert "layerdiffusion_weight: 1" in page.generate().text["parameters"]


def test_interrupt_shows_what_was_found_so_far(page, webui):
    webui.use(page.base, page=True)
    tab = page.tab
    page.number("txt2img_batch_size", 4)
    broken(page)
    tab.click(BUTTON)
    tab.wait_for_function("() => document.querySelector('.progressDiv')?.innerText.includes('as it was')")
    tab.click("#txt2img_interrupt")
    tab.wait_for_selector("#txt2img_interrupt", state="hidden")
    tab.wait_for_selector(f"#{PREFIX}_found :text('Stopped before')")
    assert tab.locator(f"{TABLE} tbody tr").count() < 4
    page.number(f"{PREFIX}_weight", 1)
    page.number("txt2img_batch_size", 1)
    page.generate()
    assert "Weight is" not in tab.inner_text("#txt2img_results")


def test_the_api_asks_about_its_own_last_job(page, webui):
    client = webui.use(page.base, page=True)
    fields = {"prompt": "a red apple", "seed": SEED, "sampler_name": SAMPLERS[page.base], **RECOMMENDED[page.base]}
    fields |= {"scheduler": "Simple"} if page.base == "flux" else {}
    before = client.txt2img(**fields).images[0]
    client.txt2img(**fields, **layered("", weight=0))
    files = saved(webui)
    found = client.post(ROUTE, {"tab": "txt2img"})
    rows = {row["name"]: row for row in found["runs"]}
    assert {AS_IT_WAS, WEIGHT} <= set(rows) and not any(row["error"] for row in rows.values())
    if page.base == "demo":
        assert found["helpful"] == [WEIGHT]
        assert rows[AS_IT_WAS]["pictures"][0]["verdict"] == "haze"
    assert saved(webui) == files
    assert np.array_equal(np.asarray(client.txt2img(**fields).images[0]), np.asarray(before))


def saved(webui) -> list[str]:
    """All that lies in the outputs."""
    folders = webui.data.glob("output*")  # by the WebUI with an s or without
    return sorted(str(path) for folder in folders for path in folder.rglob("*") if path.is_file())
