"""Chains on the WebUI's page: one click gives a set, the progress tells the step, any layer's text brings it back.

Every set is saved as a file by the buttons under the gallery, and read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from client import as_base64, layered, picture, same
from PIL import Image
from server import changed_settings
from webui_page import PREFIX, SEED, read

from lib_layerdiffuse.core.modes import MODES
from lib_layerdiffuse.form.frames import FRAMES as ROWS
from lib_layerdiffuse.form.ways import CHAINS, ways_for
from lib_layerdiffuse.sets.chains import FRAMES
from lib_layerdiffuse.sets.layer_set import Layer
from lib_layerdiffuse.sets.reading import READERS
from lib_layerdiffuse.sets.save_options import KINDS, VISIBLE

BAR = "#txt2img_layerdiffuse_layers"
SMALL = "#txt2img_gallery .thumbnail-small"
SETTINGS = {"steps": 1, "cfg_scale": 5, "width": 64, "height": 64}
LONG, LONG_ENOUGH = 60, 8  # steps while which there is time for a click; of a full-size checkpoint
FULL_SIZE_PATIENCE = 600_000  # milliseconds
PROGRESS = "() => document.querySelector('.progressDiv .progress')?.innerText.includes('Step 2 of 3 (blended)')"
TOLD = "() => document.querySelector('#html_log_txt2img').innerText.includes('the user interrupted it')"


@pytest.fixture
def sdxl(webui, page) -> Iterator:
    """The page with an SDXL checkpoint, its mode Joint chosen; a plain picture must be the same before and after."""
    client = webui.use("sdxl", page=True)
    plain = webui.plain.get("by page") or client.txt2img().images[0]
    tab = page.tab
    if webui.full_size:
        tab.set_default_timeout(FULL_SIZE_PATIENCE)
    tab.click("#tabs button:has-text('txt2img')")
    page.enable(True)
    tab.wait_for_selector(f"#{PREFIX}_mode label:has-text('Joint')")
    page.choose_mode("Joint")
    tab.wait_for_selector(f"#{PREFIX}_fg_seed")
    tab.fill("#txt2img_prompt textarea", "a red apple")
    tab.fill(f"#{PREFIX}_bg_additional_prompt textarea", "")
    page.number(f"{PREFIX}_bg_seed", -1)
    for name, number in (SETTINGS | {"seed": SEED}).items():
        page.number(f"txt2img_{name}", number)
    yield page
    page.choose_mode("Single")
    webui.plain["by page"] = client.txt2img().images[0]
    assert same(plain, webui.plain["by page"])


def layers_of(paths: set[Path]) -> dict[str, Path]:
    """Files by the frame in their names."""
    return {path.stem.rpartition("-")[2]: path for path in paths}


def test_one_click_gives_a_set_and_any_layer_brings_it_back(sdxl, webui):
    tab = sdxl.tab
    tab.fill(f"#{PREFIX}_bg_additional_prompt textarea", "a sandy beach")
    sdxl.number(f"{PREFIX}_bg_seed", 50)
    known = webui.saved()
    sdxl.generate()
    tab.wait_for_function(f"() => document.querySelectorAll('{SMALL}').length === 4")  # a grid, three layers
    sdxl.screenshot("webui-chain")
    made = layers_of(webui.saved() - known)
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
    own_seed = f"#{PREFIX}_bg_seed input[type=number]"
    tab.wait_for_function(f"() => document.querySelector('{own_seed}').value === '50'")
    known = webui.saved()
    sdxl.generate()
    again = layers_of(webui.saved() - known)
    assert all(same(read(made[frame].read_bytes()), read(again[frame].read_bytes())) for frame in FRAMES)
    assert [read(again[frame].read_bytes()).text["parameters"] for frame in FRAMES] == texts


@pytest.mark.parametrize("at_once", [False, True])
def test_the_progress_tells_the_step_and_an_interrupt_leaves_the_layers_so_far(sdxl, webui, at_once):
    """After the step at hand, which is then whole, or in its middle: a half picture is shown and not saved."""
    tab, known = sdxl.tab, webui.saved()
    sdxl.number("txt2img_steps", LONG_ENOUGH if webui.full_size else LONG)
    with changed_settings(webui.server.client, interrupt_after_current=not at_once):
        tab.click("#txt2img_generate")
        tab.wait_for_function(PROGRESS)
        sdxl.screenshot("webui-chain-progress")
        tab.click("#txt2img_interrupt")
        tab.wait_for_function(TOLD)
    tab.wait_for_selector("#txt2img_interrupt", state="hidden")
    assert set(layers_of(webui.saved() - known)) == ({"foreground"} if at_once else {"foreground", "blended"})
    assert tab.locator(SMALL).count() >= 2
    sdxl.number("txt2img_steps", 1)
    tab.click("#txt2img_generate")
    tab.wait_for_function(f"{TOLD.replace('=> ', '=> !')} && document.querySelectorAll('{SMALL}').length === 4")


def test_single_steps_stand_beside_the_chain(sdxl):
    sdxl.choose_mode("From foreground")
    sdxl.tab.wait_for_selector(f"#{PREFIX}_fg_image")
    shown = sdxl.tab.locator(f"#{PREFIX}_method label:visible").all_inner_texts()
    assert [text.strip() for text in shown] == [way.title for way in ways_for("sdxl", "from-foreground")]
    assert sdxl.tab.is_visible(f"#{PREFIX}_bg_seed") and not sdxl.tab.is_visible(f"#{PREFIX}_fg_seed")
    assert "2 steps: blended, background" in sdxl.tab.inner_text(f"#{PREFIX}_note")


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.id)
def test_every_chain_by_the_page_is_that_of_the_api(sdxl, webui, tmp_path, chain):
    tab = sdxl.tab
    sdxl.choose_mode(MODES[chain.mode].title)
    tab.click(f"#{PREFIX}_method label:has-text('{chain.title}')")
    for frame in chain.images:
        picture(frame).save(tmp_path / f"{frame}.png")
        sdxl.give(ROWS[frame].image, tmp_path / f"{frame}.png")
    sdxl.choose_exactly("txt2img_sampling", "Euler")
    sdxl.choose_exactly("txt2img_scheduler", "Automatic")
    known = webui.saved()
    sdxl.generate()
    made = layers_of(webui.saved() - known)
    assert set(made) == set(chain.makes)
    given = {ROWS[frame].image: as_base64(picture(frame)) for frame in chain.images}
    fields = SETTINGS | {"seed": SEED, "negative_prompt": "", "scheduler": "Automatic"}
    by_api = webui.server.client.txt2img(**fields, **layered(chain.label, passes=8, **given)).images
    assert all(map(same, (read(made[frame].read_bytes()) for frame in FRAMES if frame in made), by_api))
    check_files(tab, webui.saved() - known, set(chain.makes) | set(chain.images))


def check_files(tab, saved: set[Path], frames: set[str]) -> None:
    """The set as every kind of file that can be read again: its layers are the pictures that were saved."""
    pictures = {frame: read(path.read_bytes()) for frame, path in layers_of(saved).items()}
    for kind in ("psd", "ora", "zip"):
        name, content = downloaded(tab, kind)
        assert name.endswith(f".{kind}") and f"{SEED}" in name
        found = READERS[f".{kind}"](content)
        layers = {layer.role: layer for layer in found.layers} | {"blended": Layer("blended", found.blended)}
        assert set(layers) == frames
        assert [frame for frame, image in pictures.items() if not shows(layers[frame], image)] == [], kind


def downloaded(tab, kind: str) -> tuple[str, bytes]:
    """Press the button: the file's name and what is in it."""
    tab.select_option(f"{BAR} select", kind)
    with tab.expect_download() as waiting:
        tab.click(f"{BAR} button:has-text('Save layers as')")
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_every_control_of_the_bar_below_the_gallery(sdxl):
    tab = sdxl.tab
    sdxl.choose_mode("From background")
    sdxl.choose_mode("Joint")
    sdxl.generate()
    for kind in KINDS:
        assert downloaded(tab, kind)[1]
    plain = downloaded(tab, "psd")[1]
    tab.check(f"{BAR} label input")
    assert downloaded(tab, "psd")[1] != plain
    assert "dB" in tab.inner_text(f"{BAR} .layerdiffuse_told")
    tab.uncheck(f"{BAR} label input")
    tab.click(f"{BAR} button:has-text('Photopea')")
    tab.wait_for_selector("#layerdiffuse_photopea iframe")
    sdxl.screenshot("webui-chain-photopea")
    tab.click("#layerdiffuse_photopea button")
    tab.wait_for_selector("#layerdiffuse_photopea", state="detached")
    for on, state in ((False, "hidden"), (True, "visible")):
        sdxl.enable(on)
        tab.wait_for_selector(BAR, state=state)


def shows(layer: Layer, image: Image.Image) -> bool:
    """Whether a layer, which may be trimmed, shows all that this picture does; hidden colours may be others."""
    canvas = Image.new("RGBA", image.size)
    canvas.paste(layer.picture, (layer.left, layer.top))
    found, wanted = np.asarray(canvas).astype(int), np.asarray(image.convert("RGBA")).astype(int)
    seen = wanted[..., 3] >= VISIBLE  # the edge that trimming keeps
    return np.array_equal(found[seen], wanted[seen]) and abs(found[..., 3] - wanted[..., 3]).max() < VISIBLE


def test_hires_fix_and_batches_by_the_page(sdxl, webui):
    tab = sdxl.tab
    tab.click("#txt2img_hr > .label-wrap")
    for name, number in {"hr_scale": 2, "hires_steps": 1, "batch_count": 2, "batch_size": 2}.items():
        sdxl.number(f"txt2img_{name}", number)
    known = webui.saved()
    sdxl.generate()
    made = webui.saved() - known
    tab.click("#txt2img_hr > .label-wrap")
    for name in ("batch_count", "batch_size"):
        sdxl.number(f"txt2img_{name}", 1)
    assert len(made) == 12 and {read(path.read_bytes()).size for path in made} == {(128, 128)}
    seeds = {read(path.read_bytes()).text["parameters"].partition("Seed: ")[2].partition(",")[0] for path in made}
    assert seeds == {str(SEED + number) for number in range(4)}


def test_a_set_in_img2img(sdxl, webui, tmp_path):
    tab, prefix = sdxl.tab, "img2img_layerdiffuse"
    picture("background").save(tmp_path / "start.png")
    tab.click("#tabs button:has-text('img2img')")
    sdxl.enable(True, "img2img")
    tab.click(f"#{prefix}_mode label:has-text('Joint')")
    tab.set_input_files("#img2img_image input[type=file]", str(tmp_path / "start.png"))
    tab.wait_for_selector("#img2img_image :is(img, canvas)")
    for name, number in (SETTINGS | {"seed": SEED}).items():
        sdxl.number(f"img2img_{name}", number)
    known = webui.saved()
    sdxl.generate("img2img")
    assert set(layers_of(webui.saved() - known)) == set(FRAMES)
    assert tab.is_visible("#img2img_layerdiffuse_layers button:has-text('Save layers as')")
    sdxl.enable(False, "img2img")
    tab.click("#tabs button:has-text('txt2img')")
