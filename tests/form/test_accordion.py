"""The accordion: built with the installed gradio; what is visible follows from mode, method and loaded base."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from accordions import build, by_component

from lib_layerdiffuse.core.methods import BASES, METHODS, methods_for
from lib_layerdiffuse.form.accordion import FILES, LayerAccordion
from lib_layerdiffuse.form.arguments import (
    ARGUMENTS,
    BY_NAME,
    LayerArguments,
    parse_positional,
    to_infotext,
    visible_arguments,
)
from lib_layerdiffuse.form.components import upload_only


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
    shown = {name for name, update in updates.items() if update.get("visible")} - {"mode", "method"}
    assert shown == {argument.name for argument in visible_arguments(method)} - {"enabled", "method", *FILES}
    assert updates["mode"]["value"] == method.mode


@pytest.mark.parametrize("base", [None, *BASES])
def test_a_list_of_one_choice_is_not_shown(base):
    accordion = build(base)
    assert accordion.mode.visible == (len(accordion.mode.choices) > 1)
    for method in methods_for(base):
        updates = by_component(accordion, accordion.choose_method(method.id))
        for name in ("mode", "method"):
            assert updates[name]["visible"] == (len(updates[name]["choices"]) > 1)


def test_what_few_need_is_folded_away_and_the_main_choice_is_on_top():
    accordion = build("sdxl")
    (fold,) = [block for block in accordion.gradio_blocks if block.elem_id == "layerdiffuse_advanced"]
    assert not fold.open and fold.label == "Advanced"
    folded = {component.elem_id for component in inside(fold)}
    assert {f"layerdiffuse_{name}" for name in ("ending_step", "resize_mode", "output_origin")} <= folded
    assert {f"layerdiffuse_{name}" for name in ("mode", "method", "weight", "passes", "checkerboard")} & folded == set()


def inside(block) -> list:
    """A layout block's components, those of blocks in it too."""
    children = getattr(block, "children", [])
    return [block] if not children else [component for child in children for component in inside(child)]


@pytest.mark.parametrize("value", [1, 2, 4, 8])
def test_decoder_passes_are_presets_on_the_page_and_numbers_elsewhere(value):
    passes = BY_NAME["passes"]
    title = passes.title_of(value)
    assert title in [name for name, _ in build("sdxl").components["passes"].choices]
    assert (
        passes.parse(title) == passes.parse(title.upper()) == passes.parse(str(value)) == passes.parse(value) == value
    )
    assert to_infotext(LayerArguments(True, "xl_fg_attn", passes=value)).get("layerdiffusion_passes", 8) == value


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
    expected = {argument.name for argument in visible_arguments(methods_for("sdxl")[0])} - {*FILES}
    assert visible == expected


def test_issue_135_another_checkpoint_brings_its_own_methods():
    loaded = {"base": "sd15"}
    accordion = build(lambda: loaded["base"])
    kept = by_component(accordion, accordion.refresh("sd15_joint"))
    assert "value" not in kept["mode"] and "value" not in kept["method"], "they stay, whatever the user chose since"
    loaded["base"] = "sdxl"
    changed = by_component(accordion, accordion.refresh("sd15_joint"))
    assert (changed["mode"]["value"], changed["method"]["value"]) == ("single", "")
    assert parse_positional([True, ""]).with_method_for("sdxl").method == "xl_fg_attn"
    assert "joint" not in [mode for _, mode in changed["mode"]["choices"]]


def test_image_inputs_keep_alpha_and_take_no_camera():
    accordion = build("sdxl")
    images = [accordion.components[argument.name] for argument in ARGUMENTS if argument.kind == "image"]
    assert len(images) == 3
    assert all(image.image_mode == "RGBA" and image.type == "pil" for image in images)
    assert all("webcam" not in getattr(image, "sources", [getattr(image, "source", "")]) for image in images)


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


SLOW = {  # answers that the page may wait for while its user goes on
    "ticked": lambda accordion, shown: accordion.refresh(shown["method"]),
    "checkpoint": lambda accordion, shown: accordion.watch(shown["mode"], shown["method"])[:-1],
}


@pytest.mark.parametrize("late", [True, False], ids=["late", "in time"])
@pytest.mark.parametrize("slow", SLOW)
@pytest.mark.parametrize("base", ["demo", "sd15", "sdxl"])
def test_an_answer_that_comes_late_takes_no_choice_back(base, slow, late):
    """A tick, or another checkpoint, is answered while the user chooses a mode: in either order his choice stands."""
    accordion = build(lambda: base, chains=True)
    first, wanted = {"mode": "single", "method": ""}, accordion.place.methods(base, "joint")[0]
    answers = [SLOW[slow](accordion, first), accordion.choose_mode("joint")]
    seen = first | {"mode": "joint"}  # the user's click
    for answer in answers[:: -1 if late else 1]:
        apply(accordion, answer, seen)
    apply(accordion, accordion.follow(seen["mode"], seen["method"]), seen)
    assert (seen["mode"], seen["method"]) == ("joint", wanted.id)
    assert {name for name in BY_NAME if seen.get((name, "visible"))} == accordion.visible_names(wanted) - {"enabled"}


def apply(accordion: LayerAccordion, answer: list, seen: dict) -> None:
    """What a page shows after updates: values of mode and method, and what is visible."""
    for name, update in by_component(accordion, answer).items():
        if name in seen and "value" in update:
            seen[name] = update["value"]
        if "visible" in update:
            seen[name, "visible"] = update["visible"]
