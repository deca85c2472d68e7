"""The accordion in the page: built by the real gradio, as often as WebUIs build it, with what the API needs."""

from __future__ import annotations

import pytest
from fakes.running import run

from lib_layerdiffuse.form.arguments import ARGUMENTS, parse_positional

gradio = pytest.importorskip("gradio")


@pytest.mark.parametrize("is_img2img", [False, True])
def test_the_page_has_a_component_for_each_argument(make_webui, is_img2img) -> None:
    webui = make_webui("a1111", "sd15")
    script = webui.runners[is_img2img].ours
    assert script.title() == "LayerDiffuse"
    for _ in range(3):  # once for the page, twice for the API's defaults
        with gradio.Blocks():
            controls = script.ui(is_img2img)
    *controls, visitor = controls
    assert len(controls) == len(ARGUMENTS) and not webui.errors
    assert visitor.value == "" and not visitor.visible  # an API's job is no visitor's
    defaults = [control.value for control in controls]
    assert parse_positional(defaults).enabled is False
    tab = "img2img" if is_img2img else "txt2img"
    assert all(tab in control.elem_id for control in controls)
    assert {str(key) for _, key in script.infotext_fields} == set(script.paste_field_names)


def test_the_pages_own_defaults_make_a_transparent_picture(make_webui) -> None:
    webui = make_webui("forge", "sdxl")
    script = webui.runners[False].ours
    with gradio.Blocks():
        defaults = [control.value for control in script.ui(False)]
    outcome = run(webui, [True, *defaults[1:]], steps=1)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not webui.errors


def test_a_page_before_any_checkpoint_is_loaded(make_webui) -> None:
    webui = make_webui("a1111", "sd15")
    webui.engine.model_data.sd_model = None
    with gradio.Blocks():
        assert len(webui.runners[False].ours.ui(False)) == len(ARGUMENTS) + 1
    assert not webui.errors


def test_infotext_of_a_picture_restores_the_settings(make_webui) -> None:
    webui = make_webui("a1111", "sd15")
    layer = {"method": "sd15_joint", "weight": 0.8, "bg_additional_prompt": "a forest"}
    outcome = run(webui, layer, batch_size=3, steps=1)
    pasted = {key: str(value) for key, value in outcome.parameters.items()}
    script = webui.runners[False].ours
    with gradio.Blocks():
        controls = script.ui(False)
    names = [argument.name for argument in ARGUMENTS]
    restored = {}
    for component, key in script.infotext_fields:
        value = key(pasted) if callable(key) else pasted.get(key)
        if component in controls:
            restored[names[controls.index(component)]] = value
    assert float(restored["weight"]) == 0.8 and restored["bg_additional_prompt"] == "a forest"
    assert restored["method"]["value"] == "sd15_joint" and str(restored["enabled"]).lower() == "true"
