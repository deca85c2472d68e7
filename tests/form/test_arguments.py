"""The table of arguments: parsing from every form that a UI, an API call or an infotext sends, and back."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError
from lib_layerdiffuse.core.methods import BASES, METHODS, find_method
from lib_layerdiffuse.form.arguments import (
    ARGUMENTS,
    BY_NAME,
    LayerArguments,
    describe,
    from_infotext,
    parse_mapping,
    parse_positional,
    to_infotext,
    visible_arguments,
)
from lib_layerdiffuse.form.values import image_to_base64

FORGE_ORDER = [
    "enabled",
    "method",
    "weight",
    "ending_step",
    "fg_image",
    "bg_image",
    "blend_image",
    "resize_mode",
    "output_origin",
    "fg_additional_prompt",
    "bg_additional_prompt",
    "blend_additional_prompt",
]


def gradient() -> np.ndarray:
    """uint8 [6,5,4] whose alpha runs from 0 to 255 and whose colours differ."""
    ramp = np.linspace(0, 255, 30).astype(np.uint8).reshape(6, 5)
    return np.stack([ramp, 255 - ramp, ramp // 2, ramp.T.reshape(6, 5)], axis=-1)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_first_arguments_stand_in_the_order_of_the_forge_extension():
    assert [argument.name for argument in ARGUMENTS][:12] == FORGE_ORDER


def test_an_empty_call_takes_all_defaults():
    assert parse_positional([]) == LayerArguments() == parse_mapping({})
    assert all(argument.parse(argument.default) == argument.default for argument in ARGUMENTS)


def test_issue_63_positional_arguments_of_old_recipes_still_work():
    label = "(SDXL) From Foreground to Blending"
    picture = base64.b64encode(png(gradient())).decode()
    old = [True, label, 0.5, 0.75, picture, None, None, "Crop and Resize", False, "", "a beach", ""]
    values = parse_positional(old)
    assert (values.enabled, values.method, values.weight, values.ending_step) == (True, "xl_fg2blend", 0.5, 0.75)
    assert np.array_equal(np.asarray(values.fg_image), gradient())
    assert values.bg_additional_prompt == "a beach"
    assert values.passes == 8, "arguments that came later take their defaults"


def test_one_mapping_of_names_does_the_same_as_positions():
    by_name = parse_positional([{"enabled": True, "method": "sd15_joint", "layerdiffusion_weight": "0.5"}])
    assert by_name == parse_positional([True, "sd15_joint", 0.5])


@pytest.mark.parametrize(
    "send",
    [
        lambda array: Image.fromarray(array),
        lambda array: array,
        lambda array: png(array),
        lambda array: base64.b64encode(png(array)).decode(),
        lambda array: "data:image/png;base64," + base64.b64encode(png(array)).decode(),
        lambda array: "\n".join(base64.b64encode(png(array)).decode()[i : i + 76] for i in range(0, 400, 76)),
        lambda array: {"image": array, "mask": None},
        lambda array: {"background": Image.fromarray(array), "layers": [], "composite": None},
    ],
)
def test_issue_110_images_arrive_in_every_form_and_keep_their_alpha(send):
    image = parse_mapping({"fg_image": send(gradient())}).fg_image
    assert image.mode == "RGBA"
    assert np.array_equal(np.asarray(image), gradient())


def test_pictures_without_alpha_become_opaque_and_palettes_keep_their_transparency():
    opaque = parse_mapping({"bg_image": gradient()[..., :3]}).bg_image
    assert np.asarray(opaque)[..., 3].min() == 255
    palette = Image.fromarray(gradient()[..., 0], "L").convert("P")
    palette.info["transparency"] = 0
    alpha = np.asarray(parse_mapping({"bg_image": palette}).bg_image)[..., 3]
    assert set(np.unique(alpha)) == {0, 255}


def test_an_image_is_turned_upright_as_its_file_says():
    image = Image.new("RGB", (8, 4))
    image.getexif()[0x0112] = 6
    assert parse_mapping({"fg_image": image}).fg_image.size == (4, 8)


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_no_image_is_none(nothing):
    assert parse_mapping({"blend_image": nothing}).blend_image is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight", "heavy"),
        ("weight", float("nan")),
        ("weight", -0.1),
        ("weight", True),
        ("weight", None),
        ("ending_step", 1.5),
        ("enabled", "perhaps"),
        ("enabled", None),
        ("resize_mode", "Stretch"),
        ("passes", 3),
        ("passes", 0),
        ("fg_additional_prompt", 7),
        ("fg_image", "not base64!"),
        ("fg_image", "/etc/passwd"),
        ("fg_image", base64.b64encode(b"text, no picture").decode()),
        ("fg_image", base64.b64encode(png(gradient())[:60]).decode()),
        ("bg_image", np.zeros((4, 4, 4), dtype=np.float32)),
        ("bg_image", np.zeros((4, 4, 2), dtype=np.uint8)),
        ("blend_image", {"layers": []}),
        ("blend_image", 12),
    ],
)
def test_bad_values_are_refused_by_the_argument_s_name(name, value):
    with pytest.raises(InputError, match=name) as caught:
        parse_mapping({name: value})
    assert caught.value.expected and BY_NAME[name].label in caught.value.what_to_do
    assert len(str(caught.value)) < 400


def test_unknown_methods_and_names_list_the_valid_ones():
    with pytest.raises(InputError, match="xl_fg_attn"):
        parse_mapping({"method": "SD3 magic"})
    with pytest.raises(InputError, match=r"wait.*ending_step"):
        parse_mapping({"wait": 1})
    with pytest.raises(InputError, match="at most"):
        parse_positional([False] * (len(ARGUMENTS) + 1))


PLACES = {0: "sd15_fg", 1: "sd15_joint", 2: "sd15_fg2bg", 3: "sd15_bg2fg", 4: "xl_fg_attn", 5: "xl_fg_conv"}
PLACES |= {6: "xl_fg2blend", 7: "xl_bg2blend", 8: "xl_fgblend2bg", 9: "xl_bgblend2fg"}


@pytest.mark.parametrize("kind", [int, str, float, np.int64, lambda place: f" {place} "])
@pytest.mark.parametrize("place", PLACES)
def test_forge_63_110_a_method_by_its_place_in_the_list(place, kind):
    assert parse_positional([{"method": kind(place)}]).method == PLACES[place]
    assert parse_positional([True, kind(place)]).method == PLACES[place]
    assert from_infotext({"layerdiffusion_method": kind(place)}).method == PLACES[place]


def test_places_are_those_of_the_list_that_users_know():
    known = [method.label for method in METHODS if method.base in ("sd15", "sdxl")]
    assert [find_method(PLACES[place]).label for place in range(len(PLACES))] == known


@pytest.mark.parametrize("sent", [10, -1, "10", "-1", 4.5, float("nan"), float("inf"), True, False, [4], "4th"])
def test_no_place_in_the_list(sent):
    with pytest.raises(InputError, match=r"xl_fg_attn|name of a method") as caught:
        parse_positional([{"method": sent}])
    assert caught.value.what_to_do and len(str(caught.value)) < 400


@pytest.mark.parametrize("word", ["true", "True", " on", "yes", 1, True, np.True_])
def test_switches_know_words_and_numbers(word):
    assert parse_mapping({"enabled": word}).enabled is True


@pytest.mark.parametrize("sent", ["resize and  FILL", "Resize and Fill", 2, "2", 2.0])
def test_choices_forgive_case_and_spaces_and_count_from_zero(sent):
    assert parse_mapping({"resize_mode": sent}).resize_mode == "Resize and Fill"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.id)
def test_what_is_visible_follows_from_the_method_s_row(method):
    shown = {argument.name for argument in visible_arguments(method)}
    short = {"foreground": "fg", "background": "bg", "blended": "blend"}
    assert {name for name in shown if name.endswith("_image")} == {f"{short[image]}_image" for image in method.images}
    prompts = {f"{short[frame]}_additional_prompt" for frame in method.extra_prompts}
    assert {name for name in shown if name.endswith("_prompt")} == prompts
    assert ("resize_mode" in shown) == bool(method.images)
    votes = BASES[method.base].orientations > 1
    assert ("passes" in shown) == (method.transparent_frames > 0 and votes)
    assert {"weight", "ending_step"} <= shown


def test_a_conditioned_method_without_its_image_is_refused_by_name():
    both = parse_mapping({"enabled": True, "method": "xl_fgblend2bg"})
    with pytest.raises(InputError, match=r"no fg_image \(Foreground\) and no blend_image"):
        both.check()
    parse_mapping({"enabled": False, "method": "xl_fgblend2bg"}).check()
    parse_mapping({"enabled": True, "method": "xl_fg2blend", "fg_image": gradient()}).check()


def test_an_empty_method_is_the_single_picture_method_of_the_base():
    assert parse_mapping({}).with_method_for("sd15").method == "sd15_fg"
    assert parse_mapping({}).with_method_for("demo").method == "demo_fg"
    assert parse_mapping({"method": "xl_fg_conv"}).with_method_for("sdxl").method == "xl_fg_conv"
    assert parse_mapping({}).with_method_for("flux").method == "flux_fg"
    with pytest.raises((InputError, BaseMismatchError), match="sd3"):
        parse_mapping({}).with_method_for("sd3")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.id)
def test_infotext_restores_all_settings_of_a_picture(method):
    sent = LayerArguments(enabled=True, method=method.id, weight=0.7, ending_step=0.9, checkerboard=False)
    used = {argument.name for argument in visible_arguments(method)}
    changes = {"fg_additional_prompt": "a fox, red", "resize_mode": "Just Resize", "passes": 2}
    sent = replace(sent, **{name: value for name, value in changes.items() if name in used})
    text = {key: str(value) for key, value in to_infotext(sent).items()}
    assert from_infotext(text | {"Steps": "20", "layerdiffusion_fg_image": "False"}) == sent
    assert text["layerdiffusion_method"] == method.label, "readable by those who know the label only"


def test_infotext_keys_hold_what_the_webuis_can_parse_and_nothing_while_disabled():
    keys = to_infotext(LayerArguments(enabled=True, method="sd15_joint"))
    assert keys == {
        "layerdiffusion_enabled": True,
        "layerdiffusion_method": find_method("sd15_joint").label,
        "layerdiffusion_weight": 1.0,
        "layerdiffusion_ending_step": 1.0,
    }
    assert all(argument.infotext_key.replace("_", "").isalpha() for argument in ARGUMENTS)
    assert to_infotext(LayerArguments(weight=0.3)) == {}


def test_an_image_as_an_api_sends_it():
    sent = {"method": "xl_fg2blend", "fg_image": image_to_base64(Image.fromarray(gradient()))}
    assert np.array_equal(np.asarray(parse_mapping(sent).fg_image), gradient())


def test_the_description_covers_every_argument():
    assert [entry["name"] for entry in describe()] == list(BY_NAME)
    assert all(entry["label"] and entry["help"] for entry in describe())


def test_the_table_needs_neither_torch_nor_gradio():
    code = "import sys, lib_layerdiffuse.form.arguments; sys.exit(bool({'torch', 'gradio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["fg_seed", "weight", "passes", "method", "enabled", "fg_additional_prompt"])
def test_whole_numbers_that_no_float_holds_are_refused_like_any_other(name):
    with pytest.raises(InputError, match=name):
        parse_mapping({name: 10**400})


def test_a_number_with_more_digits_than_python_prints_is_refused_too():
    with pytest.raises(InputError, match="weight = a int of many digits"):
        parse_mapping({"weight": 10**5000})
