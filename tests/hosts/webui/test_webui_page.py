"""The WebUI's page in headless Chromium: what a user of the README does, click by click.

With the demo model where the WebUI loads it, else with the checkpoint of SD1.5 in few steps.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
from cases import difference
from client import is_transparent, layered, same
from PIL import Image, ImageDraw
from webui_page import PATIENCE, PREFIX, RECOMMENDED, SAMPLERS, SEED, read

from lib_layerdiffuse.core.methods import find_method

# a method of another base, a field that it shows, its id
WRONG = {
    "demo": ("(SD1.5) Generate Everything Together (need batch size 3)", "bg_additional_prompt", "sd15_joint"),
    "sd15": ("(SDXL) From Foreground to Blending", "fg_image", "xl_fg2blend"),
    "flux": ("(SDXL) From Foreground to Blending", "fg_image", "xl_fg2blend"),
}


def test_issue_9_tick_prompt_generate_and_save_the_real_rgba_file(page):
    page.enable(True)
    page.screenshot("webui-accordion")
    page.fill_in("a red apple", seed=SEED)
    shown = page.generate()
    assert shown.size == page.size and is_transparent(shown)
    assert "layerdiffusion_method" in shown.text["parameters"]
    page.screenshot("webui-gallery")

    name, saved = page.save()
    assert name.endswith(".png") and is_transparent(saved)
    assert np.array_equal(np.asarray(saved), np.asarray(shown))
    text = page.infotext()
    assert "layerdiffusion_enabled: True" in text and f"Seed: {SEED}" in text


def test_the_picture_is_a_red_apple_on_nothing(page):
    """A thing in the middle on nothing."""
    page.skip_unless_trained()
    page.enable(True)
    page.fill_in("a red apple", seed=SEED)
    pixels = np.asarray(page.generate()).astype(float) / 255
    alpha = pixels[..., 3]
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    assert border.mean() < 0.1 and alpha[48:80, 48:80].mean() > 0.9
    assert 0.15 < alpha.mean() < 0.85
    red, green, blue = pixels[alpha > 0.9][:, :3].mean(axis=0)
    assert red > 2 * green and red > 2 * blue


def test_the_standalone_program_paints_the_same_thing(page):
    """Loosely: it spaces the steps from the noisiest one on, where the WebUI's DDIM begins a step later."""
    page.skip_unless_trained()
    api = pytest.importorskip("lib_layerdiffuse.api")
    pytest.importorskip("diffusers")
    page.enable(True)
    page.fill_in("a red apple", seed=SEED)
    ours = page.generate()
    sizes = {"width": 128, "height": 128, "steps": 20, "guidance": 1.5, "sampler": "ddim"}
    theirs = api.generate("a red apple", seed=SEED, count=1, passes=1, **sizes)[0].image
    one, other = (image.getchannel("A") for image in (ours, theirs))
    overlap = np.minimum(np.asarray(one, float), np.asarray(other, float)).sum()
    together = np.maximum(np.asarray(one, float), np.asarray(other, float)).sum()
    assert overlap / together > 0.7, f"alpha differs by {difference(one, other):.1f} levels"


def test_box_off_gives_the_ordinary_picture(page):
    page.enable(False)
    page.fill_in("a red apple", seed=SEED)
    shown = page.generate()
    assert not is_transparent(shown) and "layerdiffusion" not in shown.text["parameters"]
    assert "layerdiffusion" not in page.infotext()


def test_pasting_the_infotext_restores_the_settings(page):
    tab = page.tab
    page.enable(True)
    page.number(f"{PREFIX}_weight", 0.8)
    page.unfold(f"{PREFIX}_ending_step")
    page.number(f"{PREFIX}_ending_step", 0.9)
    page.fill_in("a red apple", seed=SEED)
    made = page.generate()
    page.enable(False)
    page.number("txt2img_seed", 99)
    tab.fill("#txt2img_prompt textarea", made.text["parameters"])
    tab.click("#txt2img_tools #paste")
    tab.wait_for_function(f"() => document.querySelector('#txt2img_seed input').value === '{SEED}'")
    tab.wait_for_function("() => !document.querySelector('#txt2img_prompt textarea').value.includes('Steps: ')")
    tab.wait_for_selector(f"#{PREFIX}_weight")
    assert page.is_enabled()
    assert page.value(f"{PREFIX}_weight") == 0.8 and page.value(f"{PREFIX}_ending_step") == 0.9
    again = page.generate()
    assert again.text["parameters"] == made.text["parameters"]
    assert np.array_equal(np.asarray(again), np.asarray(made))

    plain = re.sub(r", layerdiffusion_\w+: (\"[^\"]*\"|[^,]*)", "", made.text["parameters"])
    assert "layerdiffusion" not in plain
    tab.fill("#txt2img_prompt textarea", plain)
    tab.click("#txt2img_tools #paste")
    tab.wait_for_selector(f"#{PREFIX}_weight", state="hidden")
    assert not page.is_enabled()


def test_issue_84_send_to_img2img_keeps_alpha_and_settings(page):
    tab = page.tab
    page.enable(True)
    page.fill_in("a red apple", seed=SEED)
    page.generate()
    tab.click("#txt2img_send_to_img2img")
    tab.wait_for_selector("#img2img_image img, #img2img_image canvas")
    tab.wait_for_selector("#img2img_layerdiffuse_weight")
    assert page.is_enabled("img2img")
    page.number("img2img_denoising_strength", 0.3)
    result = page.generate("img2img")
    assert result.size == page.size and is_transparent(result)
    corners = np.asarray(result)[[0, 0, -1, -1], [0, -1, 0, -1], 3]
    assert corners.max() < 60 or page.base != "demo", "the start picture's nothing became something"
    tab.click("#tabs button:has-text('txt2img')")


def write_discs(folder: Path, size: tuple[int, int]) -> None:
    """Two cut-outs: a disc on the left, and one on the right."""
    folder.mkdir()
    for name, middle in (("left", 0.3), ("right", 0.7)):
        image = Image.new("RGBA", size, (200, 40, 30, 0))
        x, y, radius = size[0] * middle, size[1] / 2, size[0] * 0.2
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=(200, 40, 30, 255))
        image.save(folder / f"{name}.png")


def wait_for_files(folder: Path, count: int) -> dict[str, Image.Image]:
    """The pictures of a folder by name, once there are so many."""
    end = time.monotonic() + PATIENCE / 1000
    while len(list(folder.glob("*.png"))) < count and time.monotonic() < end:
        time.sleep(0.5)
    time.sleep(1)  # until the last is written
    return {path.stem: read(path.read_bytes()) for path in folder.glob("*.png")}


def test_issue_84_115_the_batch_folder_keeps_the_alpha_of_every_picture(page, tmp_path):
    tab = page.tab
    write_discs(tmp_path / "given", page.size)
    tab.click("#tabs button:has-text('img2img')")
    page.enable(True, "img2img")
    for name, number in RECOMMENDED[page.base].items():
        page.number(f"img2img_{name}", number)
    page.number("img2img_denoising_strength", 0.2)
    tab.click("#mode_img2img button:has-text('Batch')")
    tab.click("#img2img_batch_source button:has-text('From directory')")
    tab.fill("#img2img_batch_input_dir textarea", str(tmp_path / "given"))
    tab.fill("#img2img_batch_output_dir textarea", str(tmp_path / "made"))
    tab.click("#img2img_generate")
    made = wait_for_files(tmp_path / "made", 2)
    tab.wait_for_selector("#img2img_interrupt", state="hidden")
    tab.click("#mode_img2img button >> nth=0")
    tab.click("#tabs button:has-text('txt2img')")
    assert len(made) == 2 and all(map(is_transparent, made.values())), made
    middles = []  # in the order of their numbers, which is that of the given pictures
    for _, image in sorted(made.items()):
        alpha = np.asarray(image, float)[..., 3]
        middles.append((alpha.sum(0) * np.arange(alpha.shape[1])).sum() / alpha.sum())
    if page.base == "demo":
        assert middles[1] - middles[0] > 5


def test_errors_are_told_under_the_gallery(page):
    tab = page.tab
    page.enable(True)
    page.fill_in("a red apple", seed=SEED)
    label, field, name = WRONG[page.base]
    wrong = "a red apple\nSteps: 2, Sampler: DDIM, Seed: 1, Size: 128x128, layerdiffusion_enabled: True, "
    wrong += f'layerdiffusion_method: "{label}"'
    tab.fill("#txt2img_prompt textarea", wrong)
    tab.click("#txt2img_tools #paste")
    tab.wait_for_selector(f"#{PREFIX}_{field}")
    page.screenshot("webui-joint")
    tab.click("#txt2img_generate")
    tab.wait_for_function("() => document.querySelector('#txt2img_results').innerText.includes('What to do')")
    told = tab.inner_text("#txt2img_results")
    assert name in told and told.count("What to do") == told.count("LayerDiffuse: ") == 1
    assert "rounded" not in told and "\\" not in told


def pasted(page, webui, infotext: str) -> tuple[str, list[Image.Image]]:
    """Paste an infotext and generate: the foreground prompt in the accordion, and the files that were saved."""
    tab, field = page.tab, f"#{PREFIX}_fg_additional_prompt textarea"
    tab.fill("#txt2img_prompt textarea", infotext)
    tab.click("#txt2img_tools #paste")
    tab.wait_for_selector(field)
    tab.wait_for_function("() => !document.querySelector('#txt2img_prompt textarea').value.includes('Steps: ')")
    shown, known = tab.input_value(field), saved(webui)
    page.generate()
    return shown, [Image.open(path) for path in sorted(saved(webui) - known)]


def saved(webui) -> set[Path]:
    """The pictures in the outputs but for grids."""
    return {path for path in (webui.data / "outputs").rglob("*.png") if "grid" not in path.name}


def test_dynamic_prompts_561_extra_prompts_are_expanded_on_the_page(page, webui):
    client = webui.use("sd15", page=True)
    if not any(name.startswith("dynamic prompts") for name in client.get("/sdapi/v1/scripts")["txt2img"]):
        pytest.skip("needs sd-dynamic-prompts: --webui-extension FOLDER")
    template = "{one|two|three} cats"
    settings = "Steps: 2, Sampler: Euler, CFG scale: 5, Seed: 11, Size: 64x64, layerdiffusion_enabled: True, "
    settings += f'layerdiffusion_method: "{find_method("sd15_joint").label}", '
    settings += f"layerdiffusion_fg_additional_prompt: {template}"
    shown, first = pasted(page, webui, f"a {{red|blue}} car\n{settings}")
    assert shown == template and len(first) == 3
    text = first[0].info["parameters"]
    used = re.search("layerdiffusion_fg_additional_prompt: ((one|two|three) cats)", text)[1]
    assert re.match(r"a (red|blue) car\b", text) and f"template: {template}" in text
    page.screenshot("webui-extra-prompts")
    shown, again = pasted(page, webui, text)
    assert shown == used and all(map(same, first, again))


def test_the_plain_picture_is_the_same_by_page_and_api_and_after_all_that(page, webui):
    client = webui.use(page.base, page=True)
    page.enable(False)
    page.fill_in("a red apple", seed=SEED)
    shown = page.generate()
    fields = RECOMMENDED[page.base]
    choices = {"prompt": "a red apple", "negative_prompt": "", "seed": SEED, **fields}
    choices["sampler_name"] = SAMPLERS[page.base]
    if page.base == "flux":
        guidance = re.search(r"Distilled CFG Scale: ([\d.]+)", page.infotext())[1]
        choices |= {"scheduler": "Simple", "distilled_cfg_scale": float(guidance)}
    by_api = client.txt2img(**choices).images[0]
    assert np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(by_api))  # Forge hides text in an opaque alpha
    page.enable(True)
    if page.base != "flux":  # which has no other; the infotext of an earlier test chose one
        page.choose_mode("Single")
    layer = page.generate()
    by_api = client.txt2img(**choices, **layered("", passes=8)).images[0]  # as the page has it
    assert np.array_equal(np.asarray(layer), np.asarray(by_api))
