"""What a user names to be saved: which files make a set, in which order, with which prompts and seeds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from examples import example, noise
from PIL import Image, PngImagePlugin

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.form.arguments import BY_NAME
from lib_layerdiffuse.form.frames import FRAMES
from lib_layerdiffuse.sets.formats import save_set
from lib_layerdiffuse.sets.gathering import OWN, SHORT, gathered, told_by


def save(folder: Path, *names: str, text: str = "") -> list[Path]:
    """Pictures of these names."""
    info = PngImagePlugin.PngInfo()
    if text:
        info.add_text("parameters", text)
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        noise(8, 6).convert("RGB" if "ground" in name else "RGBA").save(folder / name, pnginfo=info)
    return [folder / name for name in names]


def names_of(sources: list[Path]) -> list[tuple[str, list[str]]]:
    return [(made.stem, [path.name for path in made.paths]) for made in gathered(sources)]


@pytest.mark.parametrize(
    "names",
    [
        ["cat-7-background.png", "cat-7-blended.png", "cat-7-foreground.png"],
        ["cat-7-foreground.png", "cat-8-background.png", "cat-9-blended.webp"],  # seeds that count on
        ["00009-7-Foreground.png", "00010-8-Background.png", "00011-9-Blended.png"],  # of a WebUI
        ["foreground.png", "background.png", "blended.bmp"],
        ["cat_foreground_2.png", "cat background.png"],
    ],
)
def test_frames_are_known_by_their_names(tmp_path, names):
    save(
        tmp_path / "set",
        *names,
        "contact-sheet.png",
        "contact-sheet_2.png",
        text="a cat\nSteps: 20, Seed: 5, Size: 8x6",
    )
    found = gathered([tmp_path / "set"])
    assert [sorted(path.name for path in made.paths) for made in found] == [sorted(names)]
    made = found[0].read()
    assert [layer.role for layer in made] == ["background", "foreground"]
    assert (made.blended is not None) == (len(names) == 3)
    assert all(layer.prompt == "a cat" and layer.seed == 5 for layer in made)


def test_sets_that_count_on_are_told_apart(tmp_path):
    frames = ("foreground", "background", "blended")
    names = [f"cat-{seed}-{frames[(seed - 8) % 3]}.png" for seed in range(8, 14)]
    save(tmp_path, *names, "cat-40-foreground.png", "cat-50-background.png", "dog-8-foreground.png")
    assert names_of([tmp_path]) == [
        ("cat-8", names[:3]),
        ("cat-11", names[3:]),
        ("cat-40", ["cat-40-foreground.png"]),
        ("cat-50", ["cat-50-background.png"]),
        ("dog-8", ["dog-8-foreground.png"]),
    ]


def test_other_pictures_are_layers_in_the_order_in_which_they_are_named(tmp_path):
    wall, cat, hat = save(tmp_path, "wall.png", "cat.png", "hat.png")
    Image.new("RGB", (20, 4)).save(hat)
    assert names_of([wall, cat, hat]) == [("wall", ["wall.png", "cat.png", "hat.png"])]
    assert names_of([tmp_path]) == [(tmp_path.name, ["cat.png", "hat.png", "wall.png"])]
    made = gathered([wall, hat])[0].read()
    assert made.size == (20, 6) and [layer.name for layer in made] == ["wall", "hat"]


def test_each_layered_file_is_a_set(tmp_path):
    save_set(example(), tmp_path / "in", "one", "ora")
    save_set(example(), tmp_path / "in", "two", "zip")
    folder = save_set(example(), tmp_path, "three", "webp").path
    found = gathered([tmp_path / "in", folder])
    assert sorted(made.stem for made in found) == ["one", "three", "two"]
    assert all(len(made.read()) == 4 for made in found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a cat\nNegative prompt: dog\nSteps: 2, Seed: 17, Size: 8x8", ("a cat", 17)),
        ("a cat,\na hat\nSteps: 2, Layer Seed: 3, Seed: 4", ("a cat,\na hat", 4)),
        ("a cat", ("a cat", None)),
        ("", ("", None)),
        ("Steps: 2, Seed: " + "9" * 5000 + ", Size: 1x1", ("", None)),
        ('a cat\nSteps: 2, Hires prompt: "x, Seed: 9, y", Seed: 4', ("a cat", 4)),
        (
            'a cat\nSteps: 2, Seed: 4, layerdiffusion_bg_additional_prompt: "a, \\"b\\"", layerdiffusion_bg_seed: 8',
            ("a cat", 4),
        ),
        ("a cat\nSteps: 2, Seed: 4, layerdiffusion_bg_seed: 8, layerdiffusion_layer: background", ("a cat", 8)),
        ("a cat\nSteps: 2, Seed: 4, layerdiffusion_bg_seed: 8, layerdiffusion_layer: foreground", ("a cat", 4)),
        ('a cat\nSteps: 2, Seed: 4, odd: "open, layerdiffusion_layer: \\"', ("a cat", 4)),
    ],
)
def test_what_a_pictures_text_tells(text, told):
    assert told_by(text) == told


TEXT = (
    'a cat\nSteps: 2, Seed: 5, layerdiffusion_bg_additional_prompt: "rain, fog", layerdiffusion_bg_seed: 8, Size: 8x6'
)


def test_a_layer_has_what_its_text_tells_of_it_alone(tmp_path):
    (made,) = gathered(save(tmp_path, "1-5-background.png", "1-5-foreground.png", text=TEXT))
    told = {layer.role: (layer.prompt, layer.seed) for layer in made.read()}
    assert told == {"background": ("rain, fog, a cat", 8), "foreground": ("a cat", 5)}
    assert told_by(TEXT) == ("a cat", 5)


def test_the_keys_of_layers_are_those_of_the_form():
    for frame, short in SHORT.items():
        for setting, argument in (("seed", FRAMES[frame].seed), ("additional_prompt", FRAMES[frame].prompt)):
            assert OWN.format(short, setting) == BY_NAME[argument].infotext_key


@pytest.mark.parametrize("text", ["a" * 2**16, "a: " * 2**14, 'a: "' * 2**14, 'a: "\\",' * 2**13, ", " * 2**15])
def test_a_strange_text_takes_no_time(text):
    begun = time.perf_counter()
    told_by(text)
    assert time.perf_counter() - begun < 5


def test_what_cannot_be_gathered_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="holds no picture"):
        gathered([tmp_path / "empty"])
    with pytest.raises(InputError, match=r"nowhere.png"):
        gathered([tmp_path / "nowhere.png"])
    with pytest.raises(InputError, match=r"text.png, which cannot be read"):
        gathered([tmp_path / "text.png"])[0].read()
    save(tmp_path / "set", "foreground.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "set" / "background.png")
    with pytest.raises(InputError, match="foreground 8x6"):
        gathered([tmp_path / "set"])[0].read()
