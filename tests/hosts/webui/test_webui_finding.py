"""A picture without alpha on the WebUI's page and by its API: the comment that says why, and the button that tries."""

from __future__ import annotations

import numpy as np
import pytest
from client import layered
from webui_page import PATIENCE, PREFIX, RECOMMENDED, SAMPLERS, SEED, Page

from lib_layerdiffuse.core.methods import find_method

WEIGHT, AS_IT_WAS = "Weight and Stop At 1", "as it was"
ROUTE = "/layerdiffuse/v1/find-out"
LANGUAGES = {"zh_CN": ("权重为 0", "有帮助的改动"), "ja_JP": ("重みが 0 です", "効果があった変更")}
BUTTON, TABLE = f"#{PREFIX}_find_out", f"#{PREFIX}_found table"


def broken(page, larger: int = 1) -> None:
    """A picture that cannot be transparent, so many times as large as is recommended."""
    page.enable(True)
    page.number(f"{PREFIX}_weight", 0)
    page.fill_in("a red apple", seed=SEED)
    for name, side in zip(("width", "height"), page.size, strict=True):
        page.number(f"txt2img_{name}", larger * side)
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
    page.number("txt2img_batch_size", 2)
    broken(page, larger=2 if page.base == "demo" else 1)  # or the first run is over before the page hears of it
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


@pytest.mark.parametrize("base", ["sd15", "demo"])
def test_loras_of_layers_own_prompts_are_named_and_left_out(host):
    method = find_method(f"{host.base}_joint")
    lora = host.lora if host.base != "demo" else "<lora:there_is_none:1>"
    result = host.txt2img(batch_size=3, **layered(method, weight=0, bg_additional_prompt=f"a wall {lora}"))
    assert result.error == "" and "bg_additional_prompt" in result.infotexts[0]
    found = {row["name"]: row for row in host.client.post(ROUTE, {"tab": "txt2img"})["runs"]}
    before, without = found[AS_IT_WAS], found["without LoRAs"]
    assert not before["error"] and not without["error"]
    if host.base != "demo":
        assert before["pictures"] != without["pictures"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_comment_and_table_in_the_language_of_the_page(webui, browser, pytestconfig, language):
    comment, helps = LANGUAGES[language]
    if webui.full_size:
        pytest.skip("a second server with a large model")
    with webui.in_language(language, "demo") as server:
        page = Page(browser, server.url, "demo", pytestconfig.getoption("--screenshots"))
        tab = page.tab
        broken(page)
        tab.wait_for_function(f"() => document.querySelector('#txt2img_results').innerText.includes('{comment}')")
        assert "In this job" not in tab.inner_text("#txt2img_results")
        tab.locator("#html_log_txt2img").last.scroll_into_view_if_needed()
        page.screenshot(f"webui-diagnosis-{language}")
        tab.click(BUTTON)
        tab.wait_for_selector(TABLE, timeout=5 * PATIENCE)
        tab.wait_for_function(f"() => document.querySelector('#{PREFIX}_found').innerText.includes('{helps}')")
        found = tab.inner_text(f"#{PREFIX}_found .layerdiffuse_findings")
        tab.locator(TABLE).scroll_into_view_if_needed()
        page.screenshot(f"webui-findings-{language}")
        assert AS_IT_WAS not in found and "This helps" not in found
        tab.close()


def saved(webui) -> list[str]:
    """All that lies in the outputs."""
    folders = webui.data.glob("output*")  # by the WebUI with an s or without
    return sorted(str(path) for folder in folders for path in folder.rglob("*") if path.is_file())
