"""The accordion in a WebUI: its header, the checkpoint that is loaded, last results, and what is pasted into it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from accordions import build, build_webui, by_component, gradio
from fakes import ui
from PIL import Image

from lib_layerdiffuse.core.methods import BASES, METHODS, methods_for
from lib_layerdiffuse.form.accordion import LayerAccordion
from lib_layerdiffuse.form.arguments import ARGUMENTS, LayerArguments, parse_positional, to_infotext
from lib_layerdiffuse.webui.page.header import input_accordion_header
from lib_layerdiffuse.webui.page.options import PREFIX, Options
from lib_layerdiffuse.webui.page.page_state import ADDRESS
from lib_layerdiffuse.webui.saving.last_result import VISITORS, LastResults, visitor_in

ROOT = Path(__file__).parents[2]


def test_in_a_webui_the_box_is_in_the_hosts_accordion(monkeypatch):
    accordion = build_webui(monkeypatch)
    assert accordion.inputs[0].elem_id == "txt2img_layerdiffuse_accordion-checkbox"
    assert [component.elem_id for component in accordion.inputs[1:]] == [
        f"txt2img_layerdiffuse_{argument.name}" for argument in ARGUMENTS[1:]
    ]


@pytest.mark.parametrize("base", [None, *BASES])
def test_an_api_call_that_leaves_everything_out_leaves_the_method_to_the_checkpoint(monkeypatch, base):
    values = [component.value for component in build_webui(monkeypatch, base).inputs]
    assert values[1] == ""  # and not None: an API restores an infotext by the type of the value
    assert parse_positional(values) == LayerArguments()


def test_the_page_offers_all_methods_first_and_those_of_the_base_once_opened(monkeypatch):
    accordion = build_webui(monkeypatch, "sdxl")
    offered = {name for _, name in accordion.components["method"].choices}
    assert offered == {"", *(method.id for method in METHODS)}
    opened = by_component(accordion, accordion.refresh(""))
    assert [name for _, name in opened["method"]["choices"]] == ["", "xl_fg_attn", "xl_fg_conv"]
    assert "value" not in opened["mode"] and "value" not in opened["method"], "single and automatic, as they were built"
    assert "joint" not in [mode for _, mode in opened["mode"]["choices"]]


@pytest.mark.parametrize("base", [None, *BASES])
def test_modes_lead_to_their_first_method_and_back_to_the_automatic_one(monkeypatch, base):
    accordion = build_webui(monkeypatch, base)
    for _, mode in accordion.mode.choices:
        method = by_component(accordion, accordion.choose_mode(mode))["method"]
        rows = methods_for(base, mode)
        assert method["value"] == ("" if mode == "single" or not rows else rows[0].id)
        assert method["value"] in [name for _, name in method["choices"]]


def test_what_was_set_from_elsewhere_is_followed_without_setting_it_again(monkeypatch):
    accordion = build_webui(monkeypatch, "sdxl")
    followed = by_component(accordion, accordion.follow("from-background", "xl_bgblend2fg"))
    assert "value" not in followed["mode"] and "value" not in followed["method"]
    assert [name for _, name in followed["method"]["choices"]] == ["xl_bg2blend", "xl_bgblend2fg"]
    assert followed["blend_image"]["visible"] and not followed["fg_image"]["visible"]
    unsettled = accordion.follow("single", "xl_bgblend2fg")
    assert all("visible" not in update and "value" not in update for update in unsettled)


def test_nothing_of_mode_method_and_buttons_is_kept_as_a_users_default(monkeypatch):
    accordion = build_webui(monkeypatch)
    assert accordion.mode.do_not_save_to_config and accordion.components["method"].do_not_save_to_config
    assert not getattr(accordion.components["weight"], "do_not_save_to_config", False)


def test_a_foreign_checkpoint_is_told_under_the_mode(monkeypatch):
    accordion = build_webui(monkeypatch, None, "it is an <SD2> checkpoint")
    update = dict(zip(accordion.outputs, accordion.refresh(""), strict=True))[accordion.note]
    assert update["visible"] and update["value"] == "it is an &lt;SD2&gt; checkpoint"


def test_issue_3_the_batch_rule_is_told_where_there_are_several_frames(monkeypatch):
    accordion = build_webui(monkeypatch, "sd15")
    assert accordion.note_html(methods_for("sd15", "single")[0]) == ""
    (joint,) = methods_for("sd15", "joint")
    assert accordion.note_html(joint) == "Batch size is rounded up to a multiple of 3: foreground, background, blended"
    assert build("sd15").note_html(joint) == ""  # the standalone page counts whole results


def test_the_last_result_fills_an_image(monkeypatch):
    last = LastResults()
    accordion = build_webui(monkeypatch, "sdxl", last=last)
    image, button = accordion.use_last("foreground", "me")
    assert "value" not in image and button["value"] == "No foreground yet"
    picture = Image.new("RGBA", (4, 4), (1, 2, 3, 4))
    last.remember("me", "foreground", picture)
    image, button = accordion.use_last("foreground", "me")
    assert image is picture and button["value"] == "Use last result"
    assert last.get("me", "background") is None


def test_each_visitor_has_last_results_of_his_own_and_the_api_has_none():
    last = LastResults()
    picture = Image.new("RGBA", (4, 4))
    last.remember("me", "foreground", picture)
    last.remember("", "foreground", picture)
    assert last.get("me", "foreground") is picture
    assert last.get("somebody else", "foreground") is None and last.get("", "foreground") is None
    for number in range(VISITORS):  # as many as are kept
        last.remember(str(number), "foreground", picture)
    assert last.get("me", "foreground") is None and last.get("0", "foreground") is picture


@pytest.mark.parametrize(
    ("values", "name"),
    [((1, 2, "me"), "me"), ((1, 2), ""), ((1, 2, None), ""), ((1, 2, 3), ""), ((1, 2, "m" * 99), "")],
)
def test_the_name_of_a_page_is_a_short_text_after_the_arguments(values, name):
    assert visitor_in(values, 2) == name


def test_buttons_show_with_their_images_and_only_where_there_are_results(monkeypatch):
    accordion = build_webui(monkeypatch, "sdxl")
    columns = {names[0]: column for column, names in accordion.lines if names[0].endswith("image") and len(names) == 1}
    assert set(columns) == {"fg_image", "bg_image", "blend_image"}
    updates = dict(zip(accordion.outputs, accordion.choose_method("xl_bg2blend"), strict=True))
    assert {name: updates[column]["visible"] for name, column in columns.items()} == {
        "fg_image": False,
        "bg_image": True,
        "blend_image": False,
    }
    plain = [names for _, names in build("sdxl").lines if len(names) == 1 and names[0].endswith("image")]
    assert plain == []


def pasted(accordion: LayerAccordion, parameters: dict) -> dict:
    """What each key makes of pasted parameters, called as WebUIs call it."""
    return {str(key): key(parameters) for _, key in accordion.infotext_fields() if callable(key)}


def test_pasting_a_picture_of_ours_restores_what_its_infotext_leaves_out(monkeypatch):
    accordion = build_webui(monkeypatch, "sdxl")
    arguments = LayerArguments(True, "xl_fg_conv", 0.5)
    values = pasted(accordion, {"Steps": "20"} | {key: str(value) for key, value in to_infotext(arguments).items()})
    assert values["layerdiffusion_enabled"] is True
    assert values["layerdiffusion_weight"] == 0.5
    assert values["layerdiffusion_passes"] == "Best (as published)"
    assert values["layerdiffusion_resize_mode"] == "Crop and Resize"
    assert values["layerdiffusion_method"]["value"] == "xl_fg_conv"
    assert values["layerdiffusion_mode"]["value"] == "single"


def test_pasting_another_picture_switches_off_and_a_lone_prompt_nothing(monkeypatch):
    accordion = build_webui(monkeypatch)
    plain = pasted(accordion, {"Prompt": "a cat", "Steps": "20"})
    assert plain.pop("layerdiffusion_enabled") is False and set(plain.values()) == {None}
    assert set(pasted(accordion, {"Prompt": "a cat"}).values()) == {None}


def test_fields_are_carried_to_another_tab_by_their_names(monkeypatch):
    first, second = build_webui(monkeypatch), build_webui(monkeypatch)
    names = first.paste_field_names
    carried = [[key for _, key in accordion.infotext_fields() if key in names] for accordion in (first, second)]
    assert carried[0] == carried[1] and len(carried[0]) == len(first.infotext_fields())
    assert {"layerdiffusion_enabled", "layerdiffusion_method", "layerdiffusion_mode"} <= set(names)
    assert len(set(carried[0])) == len(names)  # WebUIs make them keys of a dictionary


def test_the_preview_is_the_users_whatever_is_pasted(monkeypatch):
    assert "layerdiffusion_checkerboard" not in build_webui(monkeypatch).paste_field_names


def test_script_and_style_sheet_know_the_accordions_names(monkeypatch):
    script = (ROOT / "javascript" / "layerdiffuse.js").read_text(encoding="utf-8")
    style = (ROOT / "style.css").read_text(encoding="utf-8")
    build_webui(monkeypatch)
    known = {block.elem_id for block in build_webui(monkeypatch).gradio_blocks if block.elem_id}
    named = set(re.findall(r"\$\{tab\}(_layerdiffuse_[\w-]+)", script))
    assert len(named) >= 3
    for name in named | set(re.findall(r"id\$=\"(_layerdiffuse_\w+)\"", style)):
        assert any(element.endswith(name) for element in known), name
    assert any(f"opts.{PREFIX}{row.name} " in script for row in fields(Options))
    assert f'"./{ADDRESS.lstrip("/")}"' in script


def test_another_checkpoint_is_followed_but_not_against_the_user(monkeypatch):
    """What the page's script asks for when the checkpoint was changed by a list, a job or the API."""
    loaded = {"base": "sd15"}
    ui.put_modules(monkeypatch, ui_components=SimpleNamespace(InputAccordion=ui.input_accordion(gradio)))
    accordion = build(lambda: loaded["base"], header=input_accordion_header, prefix="txt2img_layerdiffuse")

    def modes(updates: list) -> list[str]:
        assert updates[-1] == accordion.place.state == loaded["base"]
        return [mode for _, mode in by_component(accordion, updates[:-1])["mode"]["choices"]]

    assert modes(accordion.watch("joint", "sd15_joint")) == ["single", "from-foreground", "from-background", "joint"]
    loaded["base"] = "demo"
    gone = by_component(accordion, accordion.watch("joint", "sd15_joint")[:-1])
    assert (gone["mode"]["value"], gone["method"]["value"], gone["mode"]["visible"]) == ("joint", "demo_joint", True)
    loaded["base"] = "sdxl"
    assert modes(accordion.watch("single", "")) == ["single", "from-foreground", "from-background"]
    unsettled = accordion.watch("from-foreground", "")  # the user's choice of a mode is just being answered
    assert all("value" not in update and "choices" not in update for update in unsettled)


def test_the_page_can_ask_for_the_loaded_checkpoint(make_webui):
    webui = make_webui("a1111", "sd15")
    routes = {}
    app = SimpleNamespace(add_api_route=lambda path, answer, **_: routes.update({path: answer}))
    webui.callbacks.fire("app_started", None, app)
    assert routes[ADDRESS]() == {"state": "sd15"}
    webui.engine.model_data.sd_model = None
    assert routes[ADDRESS]() == {"state": "none"}
