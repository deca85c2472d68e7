"""The accordion: built with the installed gradio; what is visible follows from mode, method and loaded base."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from lib_layerdiffuse.core.methods import BASES, METHODS, methods_for
from lib_layerdiffuse.webui.accordion import LayerAccordion, build_accordion, upload_only
from lib_layerdiffuse.webui.arguments import ARGUMENTS, LayerArguments, parse_positional, visible_arguments

gradio = pytest.importorskip("gradio")


def build(base=None, **options) -> LayerAccordion:
    with gradio.Blocks():
        return build_accordion(gradio, base=base, **options)


def by_component(accordion: LayerAccordion, updates: list) -> dict:
    """Updates by argument name, and the mode's under "mode"."""
    names = ["mode", *(argument.name for argument in ARGUMENTS[1:])]
    assert len(updates) == len(accordion.outputs)
    return dict(zip(names, updates, strict=False))


@pytest.mark.parametrize("base", [None, *BASES])
def test_untouched_components_send_the_defaults(base):
    accordion = build(base)
    sent = parse_positional([component.value for component in accordion.inputs])
    assert sent == LayerArguments(method=methods_for(base)[0].id)


@pytest.mark.parametrize("base", list(BASES))
def test_only_modes_and_methods_of_the_loaded_base_are_offered(base):
    accordion = build(base)
    assert [mode for _, mode in accordion.mode.choices] == list(
        dict.fromkeys(
            mode for mode in ("single", "from-foreground", "from-background", "joint") if methods_for(base, mode)
        )
    )
    for _, mode in accordion.mode.choices:
        method = by_component(accordion, accordion.choose_mode(mode))["method"]
        assert [name for _, name in method["choices"]] == [row.id for row in methods_for(base, mode)]
        assert method["value"] == method["choices"][0][1]
        assert method["visible"] == (len(method["choices"]) > 1)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.id)
def test_choosing_a_method_shows_what_it_needs_and_no_more(method):
    accordion = build(method.base)
    updates = by_component(accordion, accordion.choose_method(method.id))
    shown = {name for name, update in updates.items() if update.get("visible")} - {"method"}
    assert shown == {argument.name for argument in visible_arguments(method)} - {"enabled", "method"}
    assert updates["mode"]["value"] == method.mode


def test_lines_without_anything_visible_are_hidden():
    accordion = build("sd15")
    shown = {
        names: update["visible"]
        for (_, names), update in zip(
            accordion.lines, accordion.choose_mode("joint")[-len(accordion.lines) :], strict=True
        )
    }
    assert not shown["fg_image", "bg_image", "blend_image"]
    assert shown["fg_additional_prompt", "bg_additional_prompt", "blend_additional_prompt"]


def test_the_first_view_is_that_of_its_method():
    accordion = build("sdxl")
    visible = {name for name, component in accordion.components.items() if component.visible}
    expected = {argument.name for argument in visible_arguments(methods_for("sdxl")[0])}
    assert visible == expected


def test_issue_135_another_checkpoint_brings_its_own_methods():
    loaded = {"base": "sd15"}
    accordion = build(lambda: loaded["base"])
    kept = by_component(accordion, accordion.refresh("sd15_joint"))
    assert (kept["mode"]["value"], kept["method"]["value"]) == ("joint", "sd15_joint")
    loaded["base"] = "sdxl"
    changed = by_component(accordion, accordion.refresh("sd15_joint"))
    assert (changed["mode"]["value"], changed["method"]["value"]) == ("single", "xl_fg_attn")
    assert "joint" not in [mode for _, mode in changed["mode"]["choices"]]


def test_image_inputs_keep_alpha_and_take_no_camera():
    accordion = build("sdxl")
    images = [accordion.components[argument.name] for argument in ARGUMENTS if argument.kind == "image"]
    assert len(images) == 3
    assert all(image.image_mode == "RGBA" and image.type == "pil" for image in images)
    assert all("webcam" not in image.sources for image in images)


def test_image_options_follow_the_signature_of_older_gradios():
    class Older:
        def __init__(self, value=None, source="upload", tool=None):
            pass

    class Wrapped:
        def __init__(self, *args, **kwargs):
            pass

    assert upload_only(Older) == {"source": "upload"}
    assert upload_only(Wrapped) == {}


def test_a_host_may_bring_its_own_box_in_the_header():
    @contextmanager
    def header(module, prefix):
        with module.Accordion("of the host"):
            yield module.Checkbox(True, elem_id=f"{prefix}_host_box")

    accordion = build("sd15", header=header, prefix="txt2img_layers", hidden=("output_origin",))
    assert accordion.inputs[0].elem_id == "txt2img_layers_host_box"
    assert accordion.components["weight"].elem_id == "txt2img_layers_weight"
    assert not accordion.components["output_origin"].visible
    assert not by_component(accordion, accordion.choose_mode("joint"))["output_origin"]["visible"]


def test_pasted_parameters_restore_mode_method_and_settings():
    accordion = build("sdxl")
    fields = {component._id: key for component, key in accordion.infotext_fields()}
    pasted = {"layerdiffusion_method": "(SDXL) From Background to Blending"}
    mode = fields[accordion.mode._id](pasted)
    method = fields[accordion.components["method"]._id](pasted)
    assert (mode["value"], method["value"]) == ("from-background", "xl_bg2blend")
    assert ("Background to blended", "xl_bg2blend") in method["choices"]
    assert fields[accordion.components["weight"]._id] == "layerdiffusion_weight"
    assert fields[accordion.mode._id]({}) is None
