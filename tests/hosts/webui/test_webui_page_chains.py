"""Chains on the WebUI's page: one click gives a set, the progress tells the step, any layer's text brings it back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from client import same
from webui_page import PREFIX, SEED, read

from lib_layerdiffuse.form.ways import ways_for
from lib_layerdiffuse.sets.chains import FRAMES

SMALL = "#txt2img_gallery .thumbnail-small"
SETTINGS = {"txt2img_steps": 3, "txt2img_cfg_scale": 5, "txt2img_width": 64, "txt2img_height": 64}
PROGRESS = "() => document.querySelector('.progressDiv .progress')?.innerText.includes('Step 2 of 3 (blended)')"
TOLD = "() => document.querySelector('#html_log_txt2img').innerText.includes('the user interrupted it')"


@pytest.fixture
def sdxl(webui, page) -> Iterator:
    """The page with an SDXL checkpoint, its mode Joint chosen; a plain picture must be the same before and after."""
    client = webui.use("sdxl", page=True)
    before = client.txt2img().images[0]
    tab = page.tab
    tab.click("#tabs button:has-text('txt2img')")
    page.enable(True)
    tab.wait_for_selector(f"#{PREFIX}_mode label:has-text('Joint')")
    page.choose_mode("Joint")
    tab.wait_for_selector(f"#{PREFIX}_fg_seed")
    tab.fill("#txt2img_prompt textarea", "a red apple")
    for name, number in (SETTINGS | {"txt2img_seed": SEED}).items():
        page.number(name, number)
    yield page
    page.choose_mode("Single")
    assert same(before, client.txt2img().images[0])


def pictures_of(webui) -> set[Path]:
    """The pictures in the outputs but for grids."""
    return {path for path in (webui.data / "outputs").rglob("*.png") if "grid" not in path.name}


def layers_of(paths: set[Path]) -> dict[str, Path]:
    """Files by the frame in their names."""
    return {path.stem.rpartition("-")[2]: path for path in paths}


def test_one_click_gives_a_set_and_any_layer_brings_it_back(sdxl, webui):
    tab = sdxl.tab
    tab.fill(f"#{PREFIX}_bg_additional_prompt textarea", "a sandy beach")
    sdxl.number(f"{PREFIX}_bg_seed", 50)
    known = pictures_of(webui)
    sdxl.generate()
    tab.wait_for_function(f"() => document.querySelectorAll('{SMALL}').length === 4")  # a grid, three layers
    sdxl.screenshot("webui-chain")
    made = layers_of(pictures_of(webui) - known)
    assert set(made) == set(FRAMES)
    texts = [read(made[frame].read_bytes()).text["parameters"] for frame in FRAMES]
    assert "layerdiffusion_bg_seed: 50" in texts[0] and f"Seed: {SEED}" in texts[1]

    sdxl.number(f"{PREFIX}_bg_seed", -1)
    sdxl.choose_mode("Single")
    sdxl.number("txt2img_seed", 99)
    tab.fill("#txt2img_prompt textarea", texts[1])  # the background's
    tab.click("#txt2img_tools #paste")
    tab.wait_for_function(f"() => document.querySelector('#txt2img_seed input').value === '{SEED}'")
    tab.wait_for_selector(f"#{PREFIX}_fg_seed")
    assert sdxl.value(f"{PREFIX}_bg_seed") == 50
    known = pictures_of(webui)
    sdxl.generate()
    again = layers_of(pictures_of(webui) - known)
    assert all(same(read(made[frame].read_bytes()), read(again[frame].read_bytes())) for frame in FRAMES)
    assert [read(again[frame].read_bytes()).text["parameters"] for frame in FRAMES] == texts
    sdxl.number(f"{PREFIX}_bg_seed", -1)
    tab.fill(f"#{PREFIX}_bg_additional_prompt textarea", "")


def test_the_progress_tells_the_step_and_an_interrupt_leaves_the_layers_so_far(sdxl, webui):
    tab, known = sdxl.tab, pictures_of(webui)
    sdxl.number("txt2img_steps", 60)
    tab.click("#txt2img_generate")
    tab.wait_for_function(PROGRESS)
    sdxl.screenshot("webui-chain-progress")
    tab.click("#txt2img_interrupt")
    tab.wait_for_function(TOLD)
    assert set(layers_of(pictures_of(webui) - known)) == {"foreground", "blended"}


def test_single_steps_stand_beside_the_chain(sdxl):
    sdxl.choose_mode("From foreground")
    sdxl.tab.wait_for_selector(f"#{PREFIX}_fg_image")
    shown = sdxl.tab.locator(f"#{PREFIX}_method label:visible").all_inner_texts()
    assert [text.strip() for text in shown] == [way.title for way in ways_for("sdxl", "from-foreground")]
    assert sdxl.tab.is_visible(f"#{PREFIX}_bg_seed") and not sdxl.tab.is_visible(f"#{PREFIX}_fg_seed")
    assert "2 steps: blended, background" in sdxl.tab.inner_text(f"#{PREFIX}_note")
