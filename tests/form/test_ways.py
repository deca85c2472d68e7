"""Chains beside the methods: found by name, offered in the accordion, pasted, with a seed for each layer."""

from __future__ import annotations

import pytest

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.methods import BASES, METHODS, methods_for
from lib_layerdiffuse.core.modes import MODES
from lib_layerdiffuse.form.accordion import LayerAccordion, build_accordion
from lib_layerdiffuse.form.arguments import BY_NAME, from_infotext, parse_mapping, to_infotext, visible_arguments
from lib_layerdiffuse.form.ways import CHAINS, find_way, steps_of, ways_for
from lib_layerdiffuse.sets.chains import find_chain

gradio = pytest.importorskip("gradio")
NAMES = {"fg": "foreground", "bg": "background", "blend": "blended"}
SEEDS = ("fg_seed", "bg_seed", "blend_seed")


def build(base: str | None, **options) -> LayerAccordion:
    with gradio.Blocks():
        return build_accordion(gradio, base=lambda: base, chains=True, **options)


@pytest.mark.parametrize("way", [*METHODS, *CHAINS], ids=lambda way: way.id)
def test_ways_are_found_by_id_and_label_whatever_case_and_spaces(way):
    for name in (way.id, way.label, f"  {way.label.upper()} "):
        assert find_way(name) is way
        assert BY_NAME["method"].parse(name) == way.id


def test_a_name_of_no_way_lists_methods_and_chains():
    with pytest.raises(InputError, match="xl_joint") as told:
        find_way("xl_jont")
    assert "sd15_fg" in str(told.value)


@pytest.mark.parametrize("base", [None, *BASES])
@pytest.mark.parametrize("mode", [None, *MODES])
def test_chains_come_before_the_methods_which_all_stay(base, mode):
    ways = ways_for(base, mode)
    assert [way for way in ways if way not in CHAINS] == list(methods_for(base, mode))
    assert [way for way in ways if way in CHAINS] == list(ways[: len(ways) - len(methods_for(base, mode))])


def test_sdxl_has_all_modes_and_begins_with_the_whole_set():
    accordion = build("sdxl")
    assert [mode for _, mode in accordion.place.modes("sdxl")] == list(MODES)
    for chain in CHAINS:
        updates = dict(zip(["mode", *list(BY_NAME)[1:]], accordion.choose_mode(chain.mode), strict=False))
        assert updates["method"]["value"] == find_chain("sdxl", chain.name).id, "the usual one"
        updates = dict(zip(["mode", *list(BY_NAME)[1:]], accordion.choose_method(chain.id), strict=False))
        shown = {name for name, update in updates.items() if update.get("visible")} - {"mode", "method"}
        wanted = {argument.name for argument in visible_arguments(chain)} - {"enabled", "method"}
        assert shown == wanted - {"method_file", "decoder_file", "encoder_file"}
        assert {name.removesuffix("_seed") for name in shown & set(SEEDS)} == {
            name.removesuffix("_additional_prompt") for name in shown if name.endswith("_prompt")
        }
        assert len(shown & set(SEEDS)) == len(chain.makes) == len(chain.steps)
        assert ", ".join(chain.makes) in accordion.note_html(chain) and "rounded" not in accordion.note_html(chain)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.id)
def test_methods_have_seeds_of_layers_where_they_make_several(method):
    shown = [argument.name for argument in visible_arguments(method) if argument.name in SEEDS]
    assert [name.removesuffix("_seed") for name in shown] == [
        name for name, frame in NAMES.items() if len(method.frames) > 1 and frame in method.frames
    ]


def test_a_chain_is_offered_where_all_its_steps_can_be_had():
    accordion = build("sdxl", offers=lambda method: method.id != "xl_fgblend2bg")
    offered = [way.id for way in accordion.place.methods("sdxl")]
    assert "xl_bg2fg" in offered and "xl_joint" not in offered and "xl_fg2bg" not in offered


def test_files_are_offered_for_any_method_where_a_chain_is_chosen():
    asked = []
    accordion = build("sdxl", files=lambda name, method: asked.append(method) or [])
    accordion.choose_method("xl_joint")
    assert asked and not any(asked)


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.id)
def test_pasting_an_infotext_restores_chain_seeds_and_prompts(chain):
    sent = parse_mapping({"enabled": True, "method": chain.id, "fg_seed": 5, "bg_additional_prompt": "a meadow"})
    text = {key: str(value) for key, value in to_infotext(sent).items()}
    assert text["layerdiffusion_method"] == chain.label
    restored = from_infotext(text)
    names = {argument.name for argument in visible_arguments(chain)}
    for name in ("method", "fg_seed", "bg_additional_prompt"):
        wanted = getattr(sent, name) if name in names else BY_NAME[name].default
        assert getattr(restored, name) == wanted
    accordion = build("sdxl")
    pasted = {str(key): key(text) for _, key in accordion.infotext_fields()}
    assert pasted["layerdiffusion_mode"]["value"] == chain.mode
    assert pasted["layerdiffusion_method"]["value"] == chain.id
    assert pasted["layerdiffusion_fg_seed"] == restored.fg_seed


@pytest.mark.parametrize(
    ("sent", "seed"), [(-1, -1), (0, 0), ("7", 7), (3.0, 3), (2**32 - 1, 2**32 - 1), (None, -1), ("", -1)]
)
def test_seeds_are_whole_numbers(sent, seed):
    assert BY_NAME["bg_seed"].parse(sent) == seed


@pytest.mark.parametrize("sent", [-2, 2**32, 1.5, "x", True, float("nan"), float("inf"), [1]])
def test_what_is_no_seed_is_refused(sent):
    with pytest.raises(InputError, match=r"bg_seed.*from -1 to 4294967295"):
        BY_NAME["bg_seed"].parse(sent)


def test_steps_of_a_way():
    assert steps_of(METHODS[0]) == (METHODS[0],)
    assert [method.id for method in steps_of(find_way("xl_joint"))] == ["xl_fg_attn", "xl_fg2blend", "xl_fgblend2bg"]
