"""Lists of sources, near duplicates, archives for another machine, and concepts in styles and colours."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.training.pictures.captions import find_caption, load_captions, with_style
from lib_layerdiffuse.training.pictures.colours import COLOURS, main_hue, tinted, to_hsv
from lib_layerdiffuse.training.pictures.data import PreparedSet, is_held_out, prepare
from lib_layerdiffuse.training.pictures.pack import pack
from lib_layerdiffuse.training.pictures.recipe import as_sources, load_recipe
from lib_layerdiffuse.training.pictures.vocabulary import RECIPE, Vocabulary

from .toys import SIDE, disc, toy_set, write_discs


def write_list(tmp_path, *rows):
    """A list of sources."""
    path = tmp_path / "sources.json"
    path.write_text(json.dumps({"sources": list(rows)}))
    return path


def test_sources_have_captions_styles_and_names_of_their_own(tmp_path):
    write_discs(tmp_path, 4)
    captions = {"a": "red disc", "b": "apple", "c": "grapes"}
    path = write_list(
        tmp_path,
        {"name": "real", "source": "discs", "captions": captions, "leave_out": ["^apple$"]},
        {"name": "flat", "source": "discs", "captions": captions, "style": "flat drawing of", "kept_only": True},
    )
    data = prepare(as_sources([path]), SIDE, keep=["apple", "grapes"])
    assert dict(zip(data.names, data.captions, strict=True)) == {
        "real/a.png": "red disc",
        "real/c.png": "grapes",
        "flat/b.png": "flat drawing of an apple",
        "flat/c.png": "flat drawing of grapes",
    }
    assert data.by_source()["flat"]["images"] == 2


def test_a_style_is_held_out_with_its_concept():
    words = [f"thing {number}" for number in range(100)]
    assert any(map(is_held_out, words))
    assert all(is_held_out(word) == is_held_out(with_style(word, "flat drawing of")) for word in words)
    assert not any(is_held_out(with_style(word, "flat drawing of"), words) for word in words)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"source": "discs", "colour": 7},
        {"source": "discs", "frames": "8"},
        {"source": "discs", "frames": -1},
        {"source": "discs", "only": "a"},
        {"source": "discs", "only": ["("]},
        {"source": "discs", "crop": 1},
        {"source": "discs", "style": "painting of"},
        {"source": "discs", "captions": 7},
        {"source": "discs", "captions": {"a": 7}},
        {"source": "discs", "captions": "nowhere.json"},
        {"source": 7},
        7,
    ],
)
def test_a_list_of_the_wrong_form_is_one_clear_message(tmp_path, row):
    write_discs(tmp_path, 1)
    with pytest.raises(InputError):
        load_recipe(write_list(tmp_path, row))


def test_near_duplicates_are_left_out_but_never_a_concept_for_another(tmp_path):
    folder = write_discs(tmp_path, 3)
    again = np.asarray(disc(1)).copy()
    again[16, 16, 0] ^= 4
    from PIL import Image

    for name in ("d", "e"):
        Image.fromarray(again).save(folder / f"{name}.png")
    captions = {"a": "one", "b": "two", "c": "three", "d": "four", "e": "kept"}
    data = prepare(folder, SIDE, captions, keep=["kept"], least_difference=0.01)
    assert data.captions == ["one", "two", "three", "kept"]
    assert len(prepare(folder, SIDE, captions)) == 5


def test_soft_and_clear_pictures_can_be_asked_for(tmp_path):
    write_discs(tmp_path, 5)
    row = {"source": "discs", "crop": True}
    count = lambda **more: len(prepare(as_sources([write_list(tmp_path, {**row, **more})]), SIDE))  # noqa: E731
    assert (count(), count(least_soft=0.05, least_clear=0.05), count(most=3)) == (5, 5, 3)
    with pytest.raises(InputError, match="no usable image"):
        prepare(as_sources([write_list(tmp_path, {**row, "least_soft": 0.99})]), SIDE)


def test_a_packed_set_comes_back(tmp_path):
    data = toy_set(4)
    data.names[1] = data.names[0]  # two frames of one name
    data.captions = ["red disc", "blue disc", "flat drawing of a cloud", "stone"]
    data.rgba[3, 3] = 255
    pack(data, tmp_path / "set.zip")
    back = prepare(as_sources([tmp_path / "set.zip"]), SIDE)
    order = [back.captions.index(caption) for caption in data.captions]
    assert torch.equal(back.rgba[order, 3], data.rgba[:, 3])
    visible = data.rgba[:3, 3:] > 0
    error = (back.rgba[order, :3].int() - data.rgba[:, :3].int()).abs()
    assert (error[:3] * visible).max() <= 4  # rounding, and soft pixels that are padded twice
    before = (tmp_path / "set.zip").read_bytes()
    pack(data, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == before


def test_captions_of_emoji_go_by_code_point_and_by_name(tmp_path):
    import tarfile

    table = {"\U0001f34e": {"name": "red apple", "slug": "red_apple", "group": "Food"}}
    (tmp_path / "data-by-emoji.json").write_text(json.dumps(table))
    with tarfile.open(tmp_path / "names.tgz", "w:gz") as archive:
        archive.add(tmp_path / "data-by-emoji.json", "package/data-by-emoji.json")
    captions = load_captions(tmp_path / "names.tgz")
    for name in ("x/1f34e.webp", "1f34e~003.webp", "01F34E.png", "red-apple.svg"):
        assert find_caption(captions, name) == "red apple"
    assert find_caption(captions, "1f34e-1f3fb.png") is None


@pytest.mark.parametrize("colour", COLOURS)
def test_a_tinted_picture_has_the_colour_and_all_else_stays(colour):
    rgba = torch.zeros(4, 8, 8, dtype=torch.uint8)
    rgba[0], rgba[1], rgba[2], rgba[3] = 220, 30, 40, 200
    rgba[:3, 0] = 90  # grey
    rgba[:3, 1] = torch.tensor([20, 200, 60])[:, None]  # a green leaf
    changed = tinted(rgba, colour)
    assert torch.equal(changed[3], rgba[3]) and torch.equal(changed[:, :2], rgba[:, :2])
    hue, saturation, value = to_hsv(changed[:3].float() / 255)
    wanted = COLOURS[colour][0]
    assert abs((main_hue(hue[2:], (saturation * value)[2:]) - wanted + 0.5) % 1 - 0.5) < 0.02


def test_colours_are_asked_for_by_name(tmp_path):
    data = PreparedSet(torch.full((3, 4, 8, 8), 200, dtype=torch.uint8), ["a", "a~003", "b"], [], [False] * 3)
    data.rgba[:, 0], data.captions = 20, ["balloon", "balloon", "flat drawing of a balloon"]
    path = tmp_path / "words.json"
    row = {"concept": "balloon", "also": ["air balloon"], "colours": ["red", "blue"], "still": True}
    path.write_text(json.dumps([row]))
    vocabulary = Vocabulary.load(path)
    chosen = vocabulary.chosen(data)
    styled = [f"flat drawing of a {name}" for name in ("balloon", "red balloon", "blue balloon")]
    assert sorted(chosen.captions) == sorted(["balloon", "blue balloon", *styled])
    texts = dict(zip(chosen.captions, vocabulary.captions_of(chosen), strict=True))
    assert {"a balloon", "a red balloon", "an air balloon"} <= set(texts["balloon"])
    assert texts["blue balloon"] == ["blue balloon", "a blue balloon"]
    # another style may show another colour: its own is not called red
    assert not any("red" in text for text in texts["flat drawing of a balloon"])
    row["colours"] = ["red", "plaid"]
    path.write_text(json.dumps([row]))
    with pytest.raises(InputError, match="plaid"):
        Vocabulary.load(path).chosen(data)


def test_the_shipped_words_are_asked_for_by_one_concept_each():
    vocabulary = Vocabulary.load(RECIPE)
    texts = [text for concept in vocabulary.concepts for text in {concept.caption, *concept.texts}]
    texts += [concept.in_colour(colour) for concept in vocabulary.concepts for colour in concept.colours[1:]]
    assert sorted(set(texts)) == sorted(texts)
    assert load_recipe(RECIPE.parent / "demo_backgrounds.json", ".")
