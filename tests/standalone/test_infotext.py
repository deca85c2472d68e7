"""The text of a picture: whatever was chosen pastes back as it was, for all ways of all bases and their settings."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from lib_layerdiffuse.form.arguments import from_infotext, visible_arguments
from lib_layerdiffuse.form.frames import PROMPT_SETTINGS, SEED_SETTINGS
from lib_layerdiffuse.form.ways import steps_of, ways_for
from lib_layerdiffuse.standalone.course import checked_course
from lib_layerdiffuse.standalone.infotext import parameters_text
from lib_layerdiffuse.standalone.run_plan import Plan
from lib_layerdiffuse.standalone.settings import CompleteSettings, GenerateSettings

SETTINGS = {  # by argument: another name where it has one, and a value that is not the usual one
    "weight": ("weight", 0.7),
    "ending_step": ("stop_at", 0.9),
    "resize_mode": ("resize_mode", "just-resize"),
    "passes": ("passes", 2),
    "method_file": ("layer_file", "mine"),
    "decoder_file": ("decoder_file", "mine"),
    "encoder_file": ("encoder_file", "mine"),
    **{argument: (setting, f"a red {argument}") for argument, setting in PROMPT_SETTINGS.items()},
    **{argument: (setting, 70) for argument, setting in SEED_SETTINGS.items()},
}
ELSEWHERE = {"enabled", "method", "fg_image", "bg_image", "blend_image", "output_origin", "checkerboard"}


def text_of(base: str, **choices) -> str:
    """The last line of the text of a picture of the second set, without a model."""
    settings = GenerateSettings("a cat", seed=5, count=2, width=64, height=64, guidance=3.0, **choices).validated()[0]
    course = checked_course(settings, base)
    complete = CompleteSettings(**{field.name: getattr(settings, field.name) for field in fields(settings)})
    return parameters_text(Plan(complete, course.method, {}, [], course), "a cat", 1, "Euler", base).splitlines()[-1]


def pasted(text: str):
    """The arguments that a WebUI reads from it."""
    pairs = re.findall(r'(\w[\w ]*): ("(?:\\.|[^"])*"|[^,]*)', text)
    return from_infotext({key: value.strip('"') for key, value in pairs})


@pytest.mark.parametrize("way", ways_for(), ids=lambda way: way.id)
def test_every_choice_of_every_way_pastes_back(way):
    shown = [argument for argument in visible_arguments(way) if argument.name not in ELSEWHERE]
    images = dict.fromkeys(way.images, "given.png")
    for argument in shown:
        setting, value = SETTINGS[argument.name]
        made = pasted(text_of(way.base, method=way.id, **images, **{setting: value}))
        assert made.method == way.id and made.enabled
        if argument.name.endswith("_seed"):
            assert getattr(made, argument.name) == value + len(steps_of(way)[0].frames)
        else:
            assert str(value)[:1] in str(getattr(made, argument.name)).lower()
            assert getattr(made, argument.name) != argument.default


@pytest.mark.parametrize("choices", [{"chain": "joint", "method": "xl_fg_conv"}, {"method": "xl_joint_conv"}], ids=str)
def test_the_method_of_a_chains_step_pastes_back(choices):
    assert pasted(text_of("sdxl", **choices)).method == "xl_joint_conv"
    assert pasted(text_of("sdxl", chain="joint")).method == "xl_joint"
