"""The chains: that their rows fit the methods, and what is planned for whatever a user gives."""

from __future__ import annotations

import pytest

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError
from lib_layerdiffuse.core.methods import BASES, METHODS
from lib_layerdiffuse.sets.chains import (
    CHAIN_NAMES,
    CHAIN_ROWS,
    CHAINS,
    FRAMES,
    MAX_SEED,
    Wishes,
    chain_with,
    chains_for,
    find_chain,
    is_chain,
    layer_prompt,
    plan_chain,
)

ROWS = pytest.mark.parametrize("chain", CHAIN_ROWS, ids=lambda chain: chain.id)
SDXL = {  # as the issue of the paper's method says it: what each step sees, and from where
    "xl_joint": [
        ("xl_fg_attn", {}, ("foreground",)),
        ("xl_fg2blend", {"foreground": 0}, ("blended",)),
        ("xl_fgblend2bg", {"foreground": 0, "blended": 1}, ("background",)),
    ],
    "xl_fg2bg": [
        ("xl_fg2blend", {"foreground": None}, ("blended",)),
        ("xl_fgblend2bg", {"foreground": None, "blended": 0}, ("background",)),
    ],
    "xl_bg2fg": [
        ("xl_bg2blend", {"background": None}, ("blended",)),
        ("xl_bgblend2fg", {"background": None, "blended": 0}, ("foreground",)),
    ],
}


def planned(name: str, base: str = "sdxl", **wishes):
    chain = find_chain(base, name)
    return plan_chain(chain, Wishes(**{"prompt": "a cat", "given": FRAMES, **wishes}))


@ROWS
def test_steps_make_and_see_what_their_methods_do(chain):
    for step in chain.steps:
        row = step.method_row()
        assert row.id == step.method and row.base == chain.base
        assert row.frames == step.makes
        assert row.images == tuple(given.frame for given in step.given)


@ROWS
def test_a_frame_comes_from_an_earlier_step_that_makes_it_or_from_the_user(chain):
    for number, step in enumerate(chain.steps):
        made = {frame: before for before in range(number) for frame in chain.steps[before].makes}
        for given in step.given:
            assert given.step == made.get(given.frame), "the last step before that makes it"
        seen = [given.frame for given in step.given if given.step is not None]
        assert set(seen) <= set(step.method_row().concat), "latents can be changed from set to set"


@ROWS
def test_a_chain_makes_every_layer_once_that_is_not_given(chain):
    assert sorted(chain.makes + chain.images) == sorted(FRAMES)
    assert chain.transparent("foreground") == ("foreground" in chain.makes)
    assert not chain.transparent("background") and not chain.transparent("blended")


def test_every_base_has_each_chain_and_the_usual_one_first():
    assert CHAIN_NAMES == ("joint", "from-foreground", "from-background")
    layered = [base for base in BASES if base != "flux"]  # whose methods make a single picture
    for base in layered:
        assert tuple(dict.fromkeys(chain.name for chain in chains_for(base))) == CHAIN_NAMES
    assert find_chain("sdxl", "joint").id == "xl_joint" and find_chain("sdxl", "xl_joint_conv").name == "joint"
    assert len(CHAINS) == len(CHAIN_ROWS) == 3 * len(layered) + 1


def test_ids_and_labels_are_a_methods_own_where_one_step_makes_it_all():
    methods = {method.id: method for method in METHODS}
    for chain in CHAIN_ROWS:
        alone = len(chain.steps) == 1
        assert (chain.id in methods) == alone
        assert (chain.label in [method.label for method in METHODS]) == alone
        assert is_chain(chain.id) == is_chain(chain.label.upper()) == (not alone)
    assert not is_chain("sd15_fg")


@pytest.mark.parametrize("name", SDXL)
def test_steps_of_sdxl(name):
    steps = planned(name)
    assert [(step.method.id, step.given, step.step.makes) for step in steps] == SDXL[name]
    assert [step.number for step in steps] == list(range(len(steps)))


def test_files_of_a_chain():
    assert CHAINS["xl_joint"].stems == (
        "layer_xl_transparent_attn",
        "layer_xl_fg2ble",
        "layer_xl_fgble2bg",
        "vae_transparent_decoder",
    )
    assert CHAINS["xl_fg2bg"].stems == ("layer_xl_fg2ble", "layer_xl_fgble2bg")


def test_found_by_name_id_and_label():
    chain = CHAINS["xl_bg2fg"]
    for name in ("from-background", "XL_bg2fg", chain.label, f" {chain.label.lower()} "):
        assert find_chain("sdxl", name) is chain


def test_a_method_chooses_among_the_chains_of_a_name():
    joint = CHAINS["xl_joint"]
    assert chain_with(joint, "xl_fg_conv") is CHAINS["xl_joint_conv"]
    assert chain_with(CHAINS["xl_joint_conv"], "xl_fg2blend") is CHAINS["xl_joint_conv"]
    assert chain_with(joint, "xl_fg2blend") is joint
    first, *others = planned("xl_joint_conv")
    assert first.method.id == "xl_fg_conv"
    assert [step.method.id for step in others] == ["xl_fg2blend", "xl_fgblend2bg"]
    with pytest.raises(InputError, match=r"method 'xl_fg_conv' in chain xl_fg2bg; expected one of its methods: xl_fg2"):
        chain_with(CHAINS["xl_fg2bg"], "xl_fg_conv")


def test_prompts_of_layers_stand_before_that_of_all():
    prompts = {"foreground": "a red cat ", "background": " a wood"}
    assert [step.prompts for step in planned("joint", prompt="a photo", prompts=prompts)] == [
        ("a red cat, a photo",),
        ("a photo",),
        ("a wood, a photo",),
    ]
    (together,) = planned("joint", "sd15", prompt="a photo", prompts=prompts)
    assert together.prompts == ("a red cat, a photo", "a wood, a photo", "a photo")
    assert layer_prompt(" ", " a photo ") == "a photo" and layer_prompt("a cat", "") == "a cat"


def test_layers_with_prompts_of_their_own_need_no_common_one():
    own = {frame: f"the {frame}" for frame in FRAMES}
    assert [step.prompts for step in planned("joint", prompt="", prompts=own)] == [
        ("the foreground",),
        ("the blended",),
        ("the background",),
    ]
    with pytest.raises(InputError, match="no prompt for the blended"):
        planned("joint", prompt=" ", prompts={"foreground": "a cat", "background": "a wood"})


def test_layers_share_the_seed_of_their_set_unless_they_have_one():
    steps = planned("joint", seed=5, seeds={"background": 70, "foreground": -1})
    assert [step.seeds_of(0) for step in steps] == [(5,), (5,), (70,)]
    assert [step.seeds_of(3) for step in steps] == [(8,), (8,), (73,)]
    assert planned("joint", seed=MAX_SEED)[0].seeds_of(1) == (0,)
    assert planned("joint", seed=5, seeds={"background": 0})[-1].seeds_of(0) == (0,)  # a seed like any other


def test_seeds_of_frames_that_are_made_together_count_as_those_of_the_single_method():
    (step,) = planned("joint", "demo", seed=5)
    assert [step.seeds_of(group) for group in (0, 1)] == [(5, 6, 7), (8, 9, 10)]
    (step,) = planned("joint", "demo", seed=5, seeds={"background": 70})
    assert [step.seeds_of(group) for group in (0, 1)] == [(5, 71, 7), (8, 74, 10)]


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"given": ()}, "no foreground image for chain xl_fg2bg"),
        ({"prompt": ""}, "no prompt for the blended"),
        ({"prompts": {"sky": "blue"}}, "a prompt for layer 'sky'"),
        ({"prompts": {"background": 3}}, "background prompt 3"),
        ({"seeds": {"sky": 1}}, "a seed for layer 'sky'"),
        ({"seeds": {"background": -2}}, "background seed -2"),
        ({"seeds": {"background": 2**32}}, "background seed 4294967296"),
        ({"seeds": {"background": True}}, "background seed True"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 1.5}, "seed 1.5"),
    ],
)
def test_wrong_wishes(wishes, message):
    with pytest.raises(InputError, match=message):
        planned("from-foreground", **wishes)


def test_unknown_chains_and_bases():
    with pytest.raises(InputError, match=r"chain 'all'; expected one of joint, from-foreground, from-background"):
        find_chain("sdxl", "all")
    with pytest.raises(InputError, match="chain 3"):
        find_chain("sdxl", 3)
    with pytest.raises(InputError, match="base 'sd3'"):
        find_chain("sd3", "joint")
    with pytest.raises(BaseMismatchError, match=r"Flux, which has no chain; expected one of SDXL, SD1.5"):
        find_chain("flux", "joint")
    with pytest.raises(BaseMismatchError, match=r"SD1.5 with chain xl_joint, which is made for SDXL"):
        find_chain("sd15", "xl_joint")
