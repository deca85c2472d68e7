"""Painted scenes and other backdrops."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.training.layer_sets.backdrops import (
    kept_side,
    open_backdrops,
    paint_backdrops,
    read_backdrops,
    words_of,
)
from lib_layerdiffuse.training.layer_sets.scenes import SCENES, named_scenes
from lib_layerdiffuse.training.pictures.data import PreparedSet

SIDE = 32


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_scene_is_painted_from_its_number_alone_at_any_size(scene):
    first, place = scene.picture(3, 64)
    again, same = scene.picture(3, 64)
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and place == same
    assert first.std() > 8, "a picture without anything in it"
    assert scene.picture(0, 17)[0].shape == (17, 17, 3)
    others = [scene.picture(number, 64)[0].astype(int) for number in range(4)]
    assert all(np.abs(a - others[0]).mean() > 3 for a in others[1:]), "each number is another picture"


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_things_stand_within_the_picture_of_a_scene(scene):
    for number in range(6):
        _, place = scene.picture(number, 32)
        assert 0.4 < place.ground[0] <= place.ground[1] < 1
        assert all(0.3 < part <= 1.05 for part in place.light) and -1 <= place.light_x <= 1


def test_there_are_fourteen_scenes_or_more_that_are_asked_for_in_different_words():
    assert len({scene.name for scene in SCENES}) == len(SCENES) >= 14
    captions = [caption for scene in SCENES for caption in scene.captions]
    phrases = [phrase for scene in SCENES for phrase in scene.phrases]
    assert len(set(captions)) == len(captions) and len(set(phrases)) == len(phrases)


def test_an_unknown_scene_is_refused_by_name():
    with pytest.raises(InputError, match=r"'bech'.*beach"):
        named_scenes(["bech"])
    with pytest.raises(InputError, match="16 pixels"):
        SCENES[0].picture(0, 8)


def test_backdrops_are_larger_than_their_cuttings():
    found = paint_backdrops(["sea", "cave"], 3, SIDE)
    assert found.pictures.shape == (6, 3, kept_side(SIDE), kept_side(SIDE)) and len(found.places) == 6
    assert [found.words[number].name for number in found.scene] == ["sea", "cave"] * 3
    middle = found.cut(SIDE)
    assert middle.shape == (6, 3, SIDE, SIDE) and torch.equal(middle, found.pictures[:, :, 2 : 2 + SIDE, 2 : 2 + SIDE])
    assert found.captions()[1][0] == "a cave"


def test_many_pictures_are_painted_by_other_processes_and_are_the_same():
    few, many = paint_backdrops(["night"], 2, 16), paint_backdrops(["night"], 70, 16)
    assert torch.equal(few.pictures, many.pictures[:2]) and len(many) == 70


def photographs(folder):
    for number, name in enumerate(("forest_1.jpg", "old town_2.png", "pier.png")):
        Image.new("RGB", (50, 40), (40 * number, 90, 20)).save(folder / name)
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


def test_photographs_are_named_by_their_files_and_join_painted_scenes(tmp_path):
    found = open_backdrops([str(photographs(tmp_path)), "forest"], 2, SIDE)
    assert [found.words[number].name for number in found.scene] == ["forest"] * 3 + ["old town", "pier"]
    assert found.words[1].captions[0] == "an old town" and found.words[1].phrases[0] == "in an old town"
    assert [line.split(":")[0] for line in found.skipped] == ["broken.png"]


def test_photographs_may_bring_captions_along(tmp_path):
    photographs(tmp_path)
    (tmp_path / "captions.json").write_text(json.dumps({"pier": "the sea", "forest_1": "garden"}))
    found = read_backdrops(tmp_path, SIDE)
    assert [found.words[number].name for number in found.scene] == ["garden", "old town", "sea"]
    (tmp_path / "captions.json").write_text("{")
    with pytest.raises(InputError, match=r"captions\.json"):
        read_backdrops(tmp_path, SIDE)


def test_a_prepared_set_is_a_source_of_backdrops(tmp_path):
    rgba = torch.randint(0, 256, (2, 4, SIDE, SIDE), dtype=torch.uint8)
    PreparedSet(rgba, ["a", "b"], ["park", "park"], [False, False]).save(tmp_path / "set.safetensors")
    found = read_backdrops(tmp_path / "set.safetensors", SIDE)
    assert len(found) == 2 and found.words[0].captions == ("a park", "park")


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="no usable picture"):
        read_backdrops(tmp_path, SIDE)


def test_words_of_a_name_without_letters():
    assert words_of("0001").name == "place"
