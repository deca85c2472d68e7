"""The method table and the rules that follow from its rows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lib_layerdiffuse.core import methods, stopping
from lib_layerdiffuse.core.bases import BASES, FLUX_HUB
from lib_layerdiffuse.core.errors import BaseMismatchError, InputError
from lib_layerdiffuse.core.methods import METHODS, find_method, frame_prompts, round_up_batch

# id, base, weights file, frames, control, concat, transparent frames: the published table, written a second time
PUBLISHED = [
    ("sd15_fg", "sd15", "layer_sd15_transparent_attn", 1, None, (), 1),
    ("sd15_joint", "sd15", "layer_sd15_joint", 3, None, (), 1),
    ("sd15_fg2bg", "sd15", "layer_sd15_fg2bg", 2, "foreground", (), 0),
    ("sd15_bg2fg", "sd15", "layer_sd15_bg2fg", 2, "background", (), 1),
    ("xl_fg_attn", "sdxl", "layer_xl_transparent_attn", 1, None, (), 1),
    ("xl_fg_conv", "sdxl", "layer_xl_transparent_conv", 1, None, (), 1),
    ("xl_fg2blend", "sdxl", "layer_xl_fg2ble", 1, None, ("foreground",), 0),
    ("xl_bg2blend", "sdxl", "layer_xl_bg2ble", 1, None, ("background",), 0),
    ("xl_fgblend2bg", "sdxl", "layer_xl_fgble2bg", 1, None, ("foreground", "blended"), 0),
    ("xl_bgblend2fg", "sdxl", "layer_xl_bgble2fg", 1, None, ("background", "blended"), 1),
    ("flux_fg", "flux", "layerlora", 1, None, (), 1),
    ("flux_alphavae", "flux", "alphavae_flux_lora", 1, None, (), 1),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row[0])
def test_published_rows(row):
    method = find_method(row[0])
    got = (method.base, method.weights, len(method.frames), method.control, method.concat, method.transparent_frames)
    assert got == row[1:]


# the demo model's rows beside those of SD1.5 that they are like
DEMO = {
    "demo_fg": ("sd15_fg", methods.OFFSETS, "layer_demo_transparent"),
    "demo_joint": ("sd15_joint", methods.ATTENTION_SHARING, "layer_demo_joint"),
    "demo_fg2bg": ("sd15_fg2bg", methods.ATTENTION_SHARING, "layer_demo_fg2bg"),
    "demo_bg2fg": ("sd15_bg2fg", methods.ATTENTION_SHARING, "layer_demo_bg2fg"),
}


@pytest.mark.parametrize("name", DEMO)
def test_the_demo_model_has_a_row_for_each_mode_of_sd15(name):
    method, (alike, kind, weights) = find_method(name), DEMO[name]
    published = find_method(alike)
    assert (method.base, method.kind, method.weights) == ("demo", kind, weights)
    assert (method.decoder, method.encoder) == ("demo_vae_transparent_decoder", "demo_vae_transparent_encoder")
    for column in ("title", "mode", "frames", "transparent_frames", "control", "concat"):
        assert getattr(method, column) == getattr(published, column)
    assert len(METHODS) == len(PUBLISHED) + len(DEMO)


def test_only_the_demo_models_files_come_with_the_package():
    shipped = {stem for base in methods.BASES for stem in methods.stems_of(base) if methods.is_shipped(stem)}
    assert shipped == set(methods.stems_of("demo")) and len(shipped) == 6


def test_files_whose_licence_is_unknown_are_fetched_from_nowhere():
    method = find_method("flux_alphavae")
    assert method.given and method.decoder == method.encoder == "alphavae_flux_vae"
    assert methods.hub_of(method.weights) is methods.hub_of(method.decoder) is None
    assert not {method.weights, method.decoder} & set(methods.stems_of("flux"))
    assert {methods.hub_of(stem).repository for stem in methods.stems_of("flux")} == {FLUX_HUB.repository}
    assert methods.choose_method("flux").id == "flux_fg"


def test_networks_follow_from_the_base():
    assert find_method("sd15_joint").decoder == "layer_sd15_vae_transparent_decoder"
    assert find_method("xl_fg_conv").encoder == "vae_transparent_encoder"


@pytest.mark.parametrize(
    "text",
    [
        "sd15_fg2bg",
        " SD15_FG2BG ",
        "(SD1.5) From Foreground to Background (need batch size 2)",
        "(sd1.5)  from foreground to  background (need batch size 2)",
    ],
)
def test_old_labels_and_ids_find_the_method(text):
    assert find_method(text).id == "sd15_fg2bg"


def test_every_label_and_id_finds_its_own_row():
    assert all(find_method(m.label) is m and find_method(m.id) is m for m in METHODS)


def test_unknown_method_lists_the_valid_ones():
    with pytest.raises(InputError) as error:
        find_method("sd15_nothing")
    assert all(method.id in str(error.value) for method in METHODS)


def test_look_up_by_base_and_mode():
    assert [m.id for m in methods.methods_for("sdxl", "from-background")] == ["xl_bg2blend", "xl_bgblend2fg"]
    assert methods.methods_for() == METHODS
    assert methods.choose_method("sdxl").id == "xl_fg_attn"
    assert methods.modes_of("demo") == ("single", "from-foreground", "from-background", "joint")
    with pytest.raises(InputError):
        methods.methods_for("sd3")
    with pytest.raises(InputError):
        methods.methods_for("sd15", "double")


def test_issue_133_wrong_base_is_refused_with_advice():
    with pytest.raises(BaseMismatchError, match=r"sd15_fg.*SD1.5") as error:
        methods.choose_method("sdxl", name="sd15_fg")
    assert "xl_fg_attn" in str(error.value)
    with pytest.raises(BaseMismatchError, match=r"SD1.5"):
        methods.choose_method("sdxl", "joint")


def test_issue_3_batch_is_rounded_up_to_whole_results():
    assert [round_up_batch(images, 3) for images in (0, 1, 3, 4, 6)] == [3, 3, 3, 6, 6]
    assert round_up_batch(5, 1) == 5


def test_groups_frames_and_transparency_of_a_batch():
    joint, bg2fg = find_method("sd15_joint"), find_method("sd15_fg2bg")
    assert [joint.group_of(i) for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert [joint.frame_of(i) for i in range(4)] == ["foreground", "background", "blended", "foreground"]
    assert [joint.is_transparent(i) for i in range(6)] == [True, False, False, True, False, False]
    assert not any(bg2fg.is_transparent(i) for i in range(4))


def test_extra_prompt_goes_before_the_main_prompt_of_its_frame():
    extra = {"foreground": " a cup ", "background": "", "blended": "a cup on a table"}
    joint = frame_prompts(find_method("sd15_joint"), "photo", extra)
    assert joint == ("a cup, photo", "photo", "a cup on a table, photo")
    assert frame_prompts(find_method("xl_fg_attn"), "photo", extra) == ("photo",)


def test_images_and_input_channels():
    method = find_method("xl_fgblend2bg")
    assert (method.images, method.input_channels) == (("foreground", "blended"), 12)
    assert find_method("sd15_bg2fg").images == ("background",)
    methods.check_images(method, ["blended", "foreground"])
    with pytest.raises(InputError, match="no blended image"):
        methods.check_images(method, ["foreground"])


def test_stop_at_timestep():
    assert stopping.stop_timestep(0.25) == pytest.approx(749.25)
    assert stopping.stop_timestep(1.0) == -math.inf
    assert stopping.stop_timestep(0.0) == math.inf
    with pytest.raises(InputError):
        stopping.stop_timestep(1.5)


def test_rows_are_frozen_and_unique():
    with pytest.raises(AttributeError):
        METHODS[0].id = "other"
    for column in ("id", "label", "weights"):
        values = [getattr(method, column) for method in METHODS]
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("base", BASES)
def test_a_latent_space_is_known_but_for_rounding_and_no_further(base):
    space = BASES[base].latents
    scales = {name: getattr(space, name) * (1 + 1e-12) for name in ("scale_factor", "shift_factor")}
    rounded = replace(space, **scales)
    assert space.base and rounded != space and rounded.base == space.base
    others = [{"scale_factor": space.scale_factor * 1.001}, {"shift_factor": space.shift_factor + 0.001}]
    for other in (*others, {"channels": 5}, {"factor": 5}):
        assert replace(space, **other).base != space.base
