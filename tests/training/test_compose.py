"""Composing layer sets of things and backdrops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.picture.alpha import pad_rgb
from lib_layerdiffuse.training.layer_sets.backdrops import paint_backdrops
from lib_layerdiffuse.training.layer_sets.compose import (
    Planner,
    Things,
    compose,
    held_out_pairs,
    is_held_out_pair,
    pad_colour,
)
from lib_layerdiffuse.training.layer_sets.layer_captions import blended_captions, foreground_captions, spoken
from lib_layerdiffuse.training.layer_sets.layer_sets import LayerSet, layer_grid
from lib_layerdiffuse.training.settings import ComposeOptions

from .toys import SIDE, disc

NAMES = ("red apple", "banana", "grapes", "owl", "ball", "kite", "cup", "lamp")


@pytest.fixture(scope="module")
def things():
    pixels = [np.asarray(disc(number)) for number in range(len(NAMES))]
    return Things(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), [[name] for name in NAMES])


@pytest.fixture(scope="module")
def backdrops():
    return paint_backdrops(["beach", "sea", "room", "night", "forest", "city", "snow", "cave"], 2, SIDE)


def over(data: LayerSet) -> torch.Tensor:
    alpha = data.foreground[:, 3:].double() / 255
    return data.foreground[:, :3] * alpha + data.background * (1 - alpha)


def test_blended_is_exactly_the_foreground_over_the_background(things, backdrops):
    data = compose(things, backdrops, ComposeOptions(shadow_share=1.0, several_share=0.6), 40)
    assert (over(data) - data.blended).abs().max() <= 0.501
    assert data.statistics()["recomposed_psnr_lowest"] > 55


def test_a_seed_is_a_picture(things, backdrops):
    one, same, other = (compose(things, backdrops, ComposeOptions(seed=seed), 6) for seed in (1, 1, 2))
    assert torch.equal(one.blended, same.blended) and one.captions == same.captions
    assert not torch.equal(one.blended, other.blended)


def test_foregrounds_are_neither_empty_nor_everything(things, backdrops):
    data = compose(things, backdrops, ComposeOptions(), 60)
    share = data.foreground[:, 3].float().div(255).mean(dim=(1, 2))
    assert share.min() > 0.02 and share.max() < 0.7


def test_held_out_pairs_are_never_trained_on_and_make_up_the_held_out_sets(things, backdrops):
    scenes = [words.name for words in backdrops.words]
    pairs = held_out_pairs(NAMES, scenes)
    assert 2 <= len(pairs) <= 20
    trained = compose(things, backdrops, ComposeOptions(several_share=0.5), 300)
    seen = [(thing, name.split(" | ")[1]) for name in trained.names for thing in name.split(" | ")[0].split(" + ")]
    assert not any(is_held_out_pair(*pair) for pair in seen) and not any(trained.held_out)
    assert {scene for _, scene in seen} == set(scenes) and {thing for thing, _ in seen} == set(NAMES)
    held = compose(things, backdrops, ComposeOptions(), len(pairs), held_out=True)
    assert {tuple(name.split(" | ")) for name in held.names} == set(pairs) and all(held.held_out)


def test_looks_of_a_concept_share_its_turns(things, backdrops):
    captions = [["ball"]] * 7 + [["kite"]]
    planner = Planner(Things(things.rgba, captions), backdrops, ComposeOptions(several_share=0), 0)
    drawn = planner.plan(300, False).thing[:, 0]
    assert 0.3 < (drawn == 7).mean() < 0.7


def test_captions_name_what_is_there_for_each_frame(things, backdrops):
    data = compose(things, backdrops, ComposeOptions(several_share=0.5), 40)
    for name, (foreground, background, blended) in zip(data.names, data.captions, strict=True):
        for thing in name.split(" | ")[0].split(" + "):
            assert thing in foreground[0] and thing in blended[0]
        assert blended[0].startswith(foreground[0]) and background and len(blended) <= 8


def test_articles_and_lists():
    assert spoken(["red apple", "apple"])[:2] == ["a red apple", "an apple"]
    assert spoken(["grapes"])[0] == "grapes" and spoken(["cactus"])[0] == "a cactus"
    assert spoken(["face with sunglasses"])[0] == "a face with sunglasses"
    several = foreground_captions([["owl"], ["ball"], ["grapes"]])
    assert several[:2] == ["an owl, a ball and grapes", "grapes, a ball and an owl"]
    assert blended_captions([["owl"]], ["on a beach", "at the beach"])[0] == "an owl on a beach"


def test_a_shadow_is_part_of_the_foreground_and_only_where_there_is_a_floor(things, backdrops):
    plain = compose(things, backdrops, ComposeOptions(shadow_share=0.0, several_share=0.0), 40)
    shaded = compose(things, backdrops, ComposeOptions(shadow_share=1.0, several_share=0.0), 40)
    more = (shaded.foreground[:, 3].int() - plain.foreground[:, 3].int()).flatten(1).max(dim=1).values
    floors = torch.tensor([" | sea" not in name for name in plain.names])
    assert (more[floors] > 20).all() and (more[~floors] == 0).all()


def test_light_colours_the_foreground_too(things, backdrops):
    dark = paint_backdrops(["night"], 2, SIDE)
    plain, lit = (compose(things, dark, ComposeOptions(light=light, several_share=0), 12) for light in (0.0, 1.0))
    visible = plain.foreground[:, 3:] == 255
    red = [(data.foreground[:, :1] * visible).float().mean() for data in (plain, lit)]
    assert red[1] < 0.9 * red[0] and (over(lit) - lit.blended).abs().max() <= 0.501


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 0.9), st.floats(0, 1))
def test_things_lie_within_the_picture(things, backdrops, seed, smallest, several):
    options = ComposeOptions(smallest=smallest, largest=max(smallest, 0.9), several_share=several)
    plan = Planner(things, backdrops, options, seed).plan(4, False)
    boxes = things.boxes()
    for row in range(4):
        for slot in np.flatnonzero(plan.thing[row] >= 0):
            left, top, right, bottom = boxes[plan.thing[row, slot]]
            if plan.flip[row, slot]:
                left, right = 1 - right, 1 - left
            scale = plan.scale[row, slot]
            edges = plan.left[row, slot] + scale * np.array([left, right])
            heights = plan.top[row, slot] + scale * np.array([top, bottom])
            assert edges[0] > -0.05 and edges[1] < 1.05 and heights[0] > -0.05 and heights[1] <= 0.981


def test_a_plan_says_where_the_pixels_are(things, backdrops):
    """The box of what is visible is where the plan puts the thing's box, to a pixel."""
    options = ComposeOptions(several_share=0, shadow_share=0)
    planner = Planner(things, backdrops, options, options.seed)
    plan, boxes = planner.plan(12, False), things.boxes()
    data = compose(things, backdrops, options, 12)
    shown = Things(data.foreground, data.captions[0]).boxes()
    for row in range(12):
        left, top, right, bottom = boxes[plan.thing[row, 0]]
        if plan.flip[row, 0]:
            left, right = 1 - right, 1 - left
        place = np.array([plan.left[row, 0], plan.top[row, 0]] * 2)
        expected = place + plan.scale[row, 0] * np.array([left, top, right, bottom])
        assert np.abs(shown[row] - expected).max() < 2.1 / SIDE


def test_colour_is_continued_as_at_inference():
    for number in range(3):
        pixels = np.asarray(disc(number))
        rgba = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        ours = pad_colour(rgba)[0].permute(1, 2, 0).numpy()
        opaque = pixels[..., 3] == 255
        assert np.abs(ours - pad_rgb(pixels))[~opaque].max() < 2e-3


def test_things_of_one_scene_only_that_is_held_out_are_refused(things, backdrops):
    thing, scene = held_out_pairs(NAMES, [words.name for words in backdrops.words])[0]
    lonely = Things(things.rgba[:1], [[thing]])
    with pytest.raises(InputError, match="held-out pairs only"):
        compose(lonely, paint_backdrops([scene], 1, SIDE), ComposeOptions(), 3)
    free = next(word.name for word in backdrops.words if not is_held_out_pair(thing, word.name))
    with pytest.raises(InputError, match="no held-out pair"):
        compose(lonely, paint_backdrops([free], 1, SIDE), ComposeOptions(), 3, held_out=True)


def test_the_smallest_is_not_the_largest():
    with pytest.raises(InputError, match="--smallest"):
        ComposeOptions(smallest=0.9, largest=0.5)


def test_sets_are_saved_and_read_joined_and_parted(things, backdrops, tmp_path):
    data = compose(things, backdrops, ComposeOptions(), 6)
    data = data + compose(things, backdrops, ComposeOptions(), 2, held_out=True)
    data.save(tmp_path / "layers.safetensors")
    again = LayerSet.load(tmp_path / "layers.safetensors")
    assert again.captions == data.captions and again.names == data.names and again.held_out == data.held_out
    assert all(torch.equal(getattr(again, key), getattr(data, key)) for key in ("foreground", "background", "blended"))
    assert len(again.part(held_out=True)) == 2 and again.part(held_out=True).names == data.names[6:]
    (tmp_path / "other.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="train compose"):
        LayerSet.load(tmp_path / "other.safetensors")


def test_the_grid_shows_four_pictures_of_each_set(things, backdrops):
    data = compose(things, backdrops, ComposeOptions(), 5)
    assert layer_grid(data).size == (8 * SIDE, 3 * SIDE)
    assert layer_grid(data, most=2, sets_a_row=1).size == (4 * SIDE, 2 * SIDE)
