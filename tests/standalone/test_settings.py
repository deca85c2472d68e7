"""Settings: ranges, rounding, seeds, prompts."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.standalone.settings import GenerateSettings, ModelSettings, parse_size


@pytest.mark.parametrize("prompt", ["", "  ", [], ["a cat", " "]])
def test_empty_prompts_are_refused(prompt):
    with pytest.raises(InputError, match="empty prompt"):
        GenerateSettings(prompt).validated()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 1), ("height", 63), ("width", 20_000), ("width", 100.5), ("count", 0), ("count", 1.5), ("steps", 0),
        ("seed", -2), ("seed", 2**32), ("weight", -0.1), ("weight", math.nan), ("weight", math.inf), ("weight", "1"),
        ("stop_at", 1.1), ("guidance", -1), ("denoise", 2), ("passes", 3), ("mode", "double"), ("resize_mode", "crop"),
        ("batch", 0), ("count", True),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=name):
        GenerateSettings("a cat", **{name: value}).validated()


@pytest.mark.parametrize(("given", "rounded"), [(64, 64), (65, 72), (100, 104), (10_000, 10_000)])
def test_sizes_are_rounded_up_to_eight_with_a_note(given, rounded):
    settings, notes = GenerateSettings("a cat", width=given).validated()
    assert settings.width == rounded and settings.height is None
    assert len(notes) == (given != rounded)
    again, notes = settings.validated()
    assert again == settings and notes == []


def test_a_random_seed_is_drawn_once():
    seeds = {GenerateSettings("a cat").validated()[0].seed for _ in range(5)}
    assert len(seeds) > 1 and all(0 <= seed < 2**31 for seed in seeds)
    assert GenerateSettings("a cat", seed=0).validated()[0].seed == 0


def test_size_texts():
    assert [parse_size(text) for text in ("64x128", "96", "64X72", "8×16")] == [(64, 128), (96, 96), (64, 72), (8, 16)]


@pytest.mark.parametrize("text", ["", "x", "64x", "1x2x3", "-4x8", "big", "0x64"])
def test_size_texts_that_make_no_sense(text):
    with pytest.raises(InputError, match="WIDTHxHEIGHT"):
        parse_size(text)


def test_settings_and_help_need_no_torch():
    code = "import sys; from lib_layerdiffuse.cli.main import build_parser; import lib_layerdiffuse.api; "
    code += "build_parser('generate').format_help(); assert not {'torch', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", None), ("prompt", 7), ("prompt", [7]), ("prompt", b"a cat"), ("prompt", {"a": 1}),
        ("prompt", "a\udcffcat"), ("prompt", "a\0cat"),
        ("negative_prompt", None), ("negative_prompt", "\udcff"), ("method", 3), ("sampler", 3), ("mode", ["single"]),
        ("foreground_prompt", 7), ("init", 7), ("init", ""), ("foreground", b"x"), ("transparent", "no"),
        ("count", "2"), ("count", None), ("count", 10**400), ("steps", 1e400), ("seed", 10**400), ("width", "64"),
        ("layer_file", 7), ("decoder_file", b"x"), ("encoder_file", "a\0b"), ("hidden_colours", "red"),
        ("hidden_colours", 0), ("layer_file", 0),
        ("passes", True), ("passes", "8"), ("passes", None), ("guidance", "7"),
    ],
)  # fmt: skip
def test_values_of_the_wrong_type_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=name) as caught:
        GenerateSettings(**{"prompt": "a cat", name: value}).validated()
    assert len(str(caught.value)) < 300


def test_whole_numbers_of_any_type_are_taken():
    settings, _ = GenerateSettings(
        "a cat", count=2.0, seed=np.int64(3), width=np.float32(64), passes=np.int32(4)
    ).validated()
    assert (settings.count, settings.seed, settings.width, settings.passes) == (2, 3, 64, 4)
    assert {type(value) for value in (settings.count, settings.seed, settings.width, settings.passes)} == {int}


def test_bounds_are_written_as_people_write_them():
    with pytest.raises(InputError, match=f"seed -2; expected a whole number from -1 to {2**32 - 1}"):
        GenerateSettings("a cat", seed=-2).validated()


def test_what_a_model_does_not_use_is_said():
    assert ModelSettings(checkpoint="a", demo="b").notes() == ["demo is not used: a checkpoint was named"]
    assert "none was named" in ModelSettings(config="c").notes()[0]
    assert ModelSettings(checkpoint="a", config="c").notes() == ModelSettings(demo="b").notes() == []
