"""The drop-downs of layer files: what they offer, refresh, and what pasted settings do to them."""

from __future__ import annotations

import pytest

from lib_layerdiffuse.core.methods import BASES, find_method
from lib_layerdiffuse.form.accordion import FILES, LayerAccordion, build_accordion
from lib_layerdiffuse.form.arguments import BY_NAME, LayerArguments, parse_positional, to_infotext

gradio = pytest.importorskip("gradio")
USUAL = "Automatic"


class Shelf:
    """Files that can be chosen, and what was asked for."""

    def __init__(self, **files: list[str]):
        self.files, self.asked = files, []

    def __call__(self, name: str, method) -> list[str]:
        self.asked.append((name, method and method.id))
        return self.files.get(name, [])


def build(shelf: Shelf | None = None, base: str | None = "sdxl") -> LayerAccordion:
    with gradio.Blocks() as blocks:
        accordion = build_accordion(gradio, base=lambda: base, files=shelf)
    accordion.gradio_blocks = list(blocks.blocks.values())
    return accordion


def choices(updates: list, accordion: LayerAccordion) -> dict[str, list[str]]:
    parts = dict(zip(map(id, accordion.outputs), updates, strict=True))
    return {name: parts[id(accordion.components[name])].get("choices") for name in FILES}


def test_only_the_usual_file_until_the_box_is_ticked_and_no_folder_is_read_for_the_page():
    shelf = Shelf(method_file=["own"])
    accordion = build(shelf)
    assert {accordion.components[name].value for name in FILES} == {USUAL} and shelf.asked == []
    assert parse_positional([component.value for component in accordion.inputs]) == LayerArguments()
    assert choices(accordion.refresh(""), accordion)["method_file"] == [USUAL, "own"]


@pytest.mark.parametrize("method", ["", "xl_fg_attn", "xl_fg2blend"])
def test_offers_follow_the_method(method):
    shelf = Shelf(method_file=["own"], encoder_file=["one", "two"])
    accordion = build(shelf)
    assert choices(accordion.choose_method(method), accordion) == {
        "method_file": [USUAL, "own"],
        "decoder_file": [USUAL],
        "encoder_file": [USUAL, "one", "two"],
    }
    assert set(shelf.asked) == {(name, method or None) for name in FILES}


def test_refresh_looks_again_and_leaves_what_is_chosen():
    shelf = Shelf()
    accordion = build(shelf)
    shelf.files["decoder_file"] = ["new"]
    updates = dict(zip(FILES, accordion.refresh_files("xl_fg_attn"), strict=True))
    assert updates["decoder_file"]["choices"] == [USUAL, "new"]
    assert not any("value" in update for update in updates.values())


def test_a_method_without_transparency_has_no_codec():
    accordion = build(Shelf())
    opaque = accordion.visible_names(find_method("xl_fg2blend"))
    assert "method_file" in opaque and not opaque & {"decoder_file", "encoder_file"}
    assert set(FILES) <= accordion.visible_names(find_method("xl_fg_attn"))


def test_an_interface_without_files_of_its_own_shows_none():
    accordion = build()
    assert not any(accordion.components[name].visible for name in FILES)
    assert not [block for block in accordion.gradio_blocks if "refresh_files" in str(getattr(block, "elem_id", ""))]


@pytest.mark.parametrize("name", FILES)
def test_drop_downs_hold_texts_only_and_take_any(name):
    component = build(Shelf()).components[name]
    assert type(component).__name__ == "Dropdown" and component.allow_custom_value
    assert component.do_not_save_to_config


# --- infotext


def paste(accordion: LayerAccordion, parameters: dict) -> dict[str, object]:
    fields = {id(component): key for component, key in accordion.infotext_fields()}
    return {name: fields[id(accordion.components[name])](parameters) for name in FILES}


def test_pasted_files_stand_in_the_drop_downs_with_their_checksum():
    accordion = build(Shelf())
    told = LayerArguments(True, "xl_fg_attn", method_file="mine/own, 雪 [0123456789]", encoder_file="e [0123456789]")
    pasted = paste(accordion, to_infotext(told))
    assert pasted["method_file"]["value"] == told.method_file in pasted["method_file"]["choices"]
    assert pasted["decoder_file"]["value"] == USUAL == pasted["decoder_file"]["choices"][0]
    assert pasted["encoder_file"]["value"] == "e [0123456789]"


@pytest.mark.parametrize(("parameters", "untouched"), [({}, True), ({"Steps": "4"}, True)])
def test_pictures_of_others_leave_the_drop_downs(parameters, untouched):
    assert (set(paste(build(Shelf()), parameters).values()) == {None}) == untouched


def test_infotext_carries_files_only_where_they_are_chosen():
    assert not set(to_infotext(LayerArguments(True, "xl_fg_attn"))) & {BY_NAME[name].infotext_key for name in FILES}
    told = to_infotext(LayerArguments(True, "xl_fg_attn", decoder_file="own [0123456789]"))
    assert told["layerdiffusion_decoder_file"] == "own [0123456789]"


@pytest.mark.parametrize("raw", ["", None, "Automatic", " automatic ", "None", "none"])
def test_words_for_the_usual_file(raw):
    assert BY_NAME["method_file"].parse(raw) == ""


@pytest.mark.parametrize("raw", [3, True, ["own"], "x" * 1001, "two\nlines", "nul\0"])
def test_what_is_no_name_is_refused(raw):
    with pytest.raises(ValueError, match="method_file"):
        BY_NAME["method_file"].parse(raw)


@pytest.mark.parametrize("base", BASES)
def test_arguments_of_files_stand_together(base):
    assert list(BY_NAME)[-6:-3] == list(FILES)
