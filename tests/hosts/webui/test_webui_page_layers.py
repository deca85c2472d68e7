"""The demo model's layers on the WebUI's page: mode by mode, as the API and the standalone program paint them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import difference
from client import as_base64, layered, same
from demo_layers import JOB, PROMPT, given, painted
from PIL import Image
from webui_page import PREFIX, SEED, read

from lib_layerdiffuse.core.methods import find_method, modes_of

FIELDS = {"foreground": "fg_image", "background": "bg_image"}
TITLES = {"joint": "Joint", "from-foreground": "From foreground", "from-background": "From background"}
METHODS = {"joint": "demo_joint", "from-foreground": "demo_fg2bg", "from-background": "demo_bg2fg"}
ROUNDING = 1.0


@pytest.fixture
def demo(webui, page) -> Iterator:
    """The page with the demo model; its plain picture must be the same before and after."""
    if "demo" not in webui.checkpoints:
        pytest.skip("this WebUI loads no small checkpoints")
    client = webui.use("demo", page=True)
    before = client.txt2img(**JOB, seed=SEED).images[0]
    page.tab.click("#tabs button:has-text('txt2img')")
    page.enable(True)
    yield page
    page.choose_mode("Single")
    assert same(before, client.txt2img(**JOB, seed=SEED).images[0])


def pictures_of(webui) -> set[Path]:
    """The pictures in the outputs but for grids."""
    return {path for path in (webui.data / "outputs").rglob("*.png") if "grid" not in path.name}


@pytest.mark.parametrize("mode", list(METHODS))
def test_a_set_by_page_is_that_by_api_and_by_the_standalone_program(demo, webui, tmp_path, mode):
    method = find_method(METHODS[mode])
    images = given(method)
    demo.choose_mode(TITLES[mode])
    for name, image in images.items():
        image.save(tmp_path / f"{name}.png")
        demo.give(FIELDS[name], tmp_path / f"{name}.png")
    demo.tab.wait_for_selector(f"#{PREFIX}_blend_additional_prompt")
    demo.fill_in(PROMPT, seed=SEED)
    demo.choose_exactly("txt2img_sampling", "Euler")
    known = pictures_of(webui)
    demo.generate()
    shown = {path.stem.rpartition("-")[2]: read(path.read_bytes()) for path in pictures_of(webui) - known}
    demo.screenshot(f"webui-set-{mode}")
    assert set(shown) == set(method.frames)
    sent = {FIELDS[name]: as_base64(image) for name, image in images.items()}
    by_api = webui.server.client.txt2img(**JOB, seed=SEED, **layered(method, passes=8, **sent)).images
    layers = [shown[frame] for frame in method.frames]
    assert all(map(same, layers, by_api))
    alone = painted(method, SEED, webui.layer_models)
    assert max(map(difference, layers, alone)) < ROUNDING


def test_the_page_offers_the_demo_models_four_modes(demo):
    labels = demo.tab.locator(f"#{PREFIX}_mode label:visible").all_inner_texts()
    assert len(labels) == len(modes_of("demo")) == 4


def test_a_foreground_goes_on_to_its_scene_by_use_last_result(demo, webui):
    demo.choose_mode("Single")
    demo.fill_in("a red apple", seed=SEED)
    apple = demo.generate()
    demo.choose_mode("From foreground")
    demo.tab.click(f"#{PREFIX}_fg_image_last")
    demo.tab.wait_for_selector(f"#{PREFIX}_fg_image img")
    demo.tab.fill("#txt2img_prompt textarea", PROMPT)
    known = pictures_of(webui)
    demo.generate()
    assert len(pictures_of(webui) - known) == 2
    assert isinstance(apple, Image.Image) and apple.mode == "RGBA"
