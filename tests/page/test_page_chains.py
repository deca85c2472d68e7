"""Chains on the page: whole sets of SDXL's layers by one click, and what is shown meanwhile."""

from __future__ import annotations

import re

import numpy as np
import pytest
from page_visitor import Visitor, settings
from PIL import Image

gradio = pytest.importorskip("gradio", minversion="6.0")
pytest.importorskip("tiny", reason="needs the standalone extra")

from lib_layerdiffuse.core.errors import InputError  # noqa: E402
from lib_layerdiffuse.form.arguments import BY_NAME  # noqa: E402
from lib_layerdiffuse.page.form import Form  # noqa: E402
from lib_layerdiffuse.page.handlers import Handlers  # noqa: E402
from lib_layerdiffuse.page.layout import Layout  # noqa: E402
from lib_layerdiffuse.page.server import Server, ServerSettings  # noqa: E402
from lib_layerdiffuse.page.visits import Visits  # noqa: E402

SET = ["foreground", "background", "blended"]


@pytest.fixture
def page(sdxl):
    """The handlers of a page that is not served."""
    with gradio.Blocks():
        layout = Layout(sdxl)
        layout.build()
    visits = Visits(grace=0.3)
    yield Handlers(sdxl, layout, visits)
    visits.close()


def form_values(page: Handlers, layers: dict, **choices) -> list:
    """Raw values of the whole form, as the browser sends them; `layers` are the accordion's."""
    fields = settings(**choices)
    accordion = {name: page.layout.accordion.components[name].value for name in BY_NAME} | {"enabled": True} | layers
    return [*(fields[name] for name in page.layout.form), *accordion.values()]


def frames(page: Handlers) -> list[str]:
    return [file.frame for file in page.visits.of(None).shown.files]


def test_chains_stand_in_the_list_of_modes_and_before_the_single_steps(page):
    accordion = page.layout.accordion
    assert [mode for _, mode in accordion.mode.choices] == ["single", "from-foreground", "from-background", "joint"]
    methods = dict(zip(accordion.outputs, accordion.choose_mode("from-foreground"), strict=True))
    chosen = methods[accordion.components["method"]]
    assert chosen["value"] == "xl_fg2bg"
    assert [name for _, name in chosen["choices"]] == ["xl_fg2bg", "xl_fg2blend", "xl_fgblend2bg"]


def test_prompts_and_seeds_of_layers_reach_the_settings(page):
    layers = {"method": "xl_joint", "bg_seed": 7, "fg_additional_prompt": "a red one"}
    form = Form.parse(list(page.layout.form), tuple(form_values(page, layers)), "sdxl")
    chosen = form.generate_settings("sdxl")
    assert (chosen.method, chosen.mode, chosen.background_seed, chosen.foreground_seed) == ("xl_joint", "joint", 7, -1)
    assert chosen.foreground_prompt == "a red one"
    for hostile in ("x", 1.5, 2**32, -2, [], True):
        with pytest.raises(InputError):
            Form.parse(list(page.layout.form), tuple(form_values(page, {**layers, "bg_seed": hostile})), "sdxl")


def test_sets_of_layers_with_one_bar_over_all_steps(page):
    shown = list(page.generate(None, *form_values(page, {"method": "xl_joint"}, count=2, steps=20)))
    files = page.visits.of(None).shown.files
    assert [file.caption for file in files] == [f"{frame}, seed {seed}" for seed in (5, 6) for frame in SET]
    bars = [updates[page.layout.results["progress"]].get("value", "") for updates in shown]
    steps = [int(step) for step in re.findall(r"step ([123]) of 3", " ".join(map(str, bars)))]
    assert steps == sorted(steps) and len(set(steps)) > 1
    assert shown[-1][page.layout.results["gallery"]]["columns"] == 3
    assert page.visits.of(None).shown.zip is not None


def test_stopped_in_the_second_step_the_layers_that_are_done_stay(page):
    visit = page.visits.of(None)
    for _ in page.generate(None, *form_values(page, {"method": "xl_joint"}, count=2, steps=40)):
        if visit.running and "step 2 of 3" in visit.running.progress.text:
            page.stop(None)
    assert frames(page) == ["foreground"] * 2 and "stopped after 2 of 6 pictures" in visit.shown.notes


def test_the_chosen_layer_stays_chosen_and_brings_back_its_set(page):
    list(page.generate(None, *form_values(page, {"method": "xl_joint", "bg_seed": 70}, count=2)))
    assert [file.seed for file in page.visits.of(None).shown.files] == [5, 5, 5, 6, 6, 6]
    page.choose(gradio.EventData(None, {"index": 4}), None)
    assert page.chosen_seed(None) == 6, "the seed of its set, not the background's own"
    told = page.visits.of(None).shown.files[4].parameters
    assert "Seed: 6," in told and "layerdiffusion_bg_seed: 71" in told


def test_a_chain_that_lacks_its_image_is_told(page):
    (told,) = list(page.generate(None, *form_values(page, {"method": "xl_fg2bg"})))
    assert "fg_image" in told[page.layout.results["messages"]]["value"]


def test_a_set_by_one_click_in_the_browser(browser, sdxl, tmp_path):
    with Server(sdxl, ServerSettings(port=0), grace=5.0) as server:
        someone = Visitor(browser, server)
        tab = someone.tab
        tab.check("#layerdiffuse_mode input[value=joint]")
        tab.wait_for_selector("#layerdiffuse_bg_seed")
        assert not tab.is_visible("#layerdiffuse_fg_image")
        tab.fill("#layerdiffuse_bg_seed input", "9")
        someone.fill_in("a cat", count=2, steps=1)
        someone.generate()
        someone.wait_for_pictures(6)
        captions = tab.locator("#page_gallery .caption-label").all_inner_texts()
        assert [text.split(",")[0] for text in captions] == SET * 2 and captions[1].endswith("seed 9")

        tab.check("#layerdiffuse_mode input[value=from-background]")
        tab.wait_for_selector("#layerdiffuse_bg_image")
        Image.fromarray(np.full((40, 30, 3), 90, np.uint8)).save(tmp_path / "wood.png")
        tab.set_input_files("#layerdiffuse_bg_image input[type=file]", tmp_path / "wood.png")
        tab.wait_for_selector("#layerdiffuse_bg_image img")
        someone.fill_in("a cat", count=1, steps=1)
        someone.generate()
        someone.wait_for_pictures(2)
        captions = tab.locator("#page_gallery .caption-label").all_inner_texts()
        assert [text.split(",")[0] for text in captions] == ["foreground", "blended"]
        assert someone.foreign == [] and someone.errors == []
        tab.close()
