"""Sources and prepared sets."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from lib_layerdiffuse.core.errors import InputError, OutputError
from lib_layerdiffuse.training.pictures import data as data_module
from lib_layerdiffuse.training.pictures.data import PreparedSet, is_held_out, load_captions, prepare
from lib_layerdiffuse.training.pictures.vocabulary import RECIPE, Vocabulary

from .toys import SIDE, png, toy_set, write_discs


def test_bad_files_are_listed_and_skipped(tmp_path):
    folder = write_discs(tmp_path, 3)
    (folder / "cut.png").write_bytes(png(5)[:120])
    (folder / "text.png").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    Image.new("RGBA", (8, 8)).save(folder / "invisible.png")
    (folder / "notes.txt").write_text("no picture's name: not looked at")
    data = prepare(folder, SIDE)
    assert len(data) == 3
    assert sorted(line.split(":")[0] for line in data.skipped) == ["cut.png", "empty.png", "invisible.png", "text.png"]


@pytest.mark.parametrize("content", [[], ["cut"]])
def test_a_source_without_a_usable_image_is_an_error(tmp_path, content):
    for name in content:
        (tmp_path / f"{name}.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="no usable image"):
        prepare(tmp_path, SIDE)


def test_archives_give_what_the_folder_gives(tmp_path):
    folder = write_discs(tmp_path, 3)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar, zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            tar.add(file, f"package/{file.name}")
            archive.write(file, file.name)
    plain = prepare(folder, SIDE)
    for name in ("a.tgz", "a.zip"):
        assert torch.equal(prepare(tmp_path / name, SIDE).rgba, plain.rgba)


@pytest.mark.parametrize("name", ["missing", "cut.tar", "cut.zip", "picture.png"])
def test_sources_that_are_none(tmp_path, name):
    if name != "missing":
        (tmp_path / name).write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError) as caught:
        prepare(tmp_path / name, SIDE)
    assert name in str(caught.value)


def test_captions_choose_the_images(tmp_path):
    folder = write_discs(tmp_path, 3)
    (tmp_path / "captions.json").write_text(json.dumps({"a": "red disc", "c": "blue disc"}))
    data = prepare(folder, SIDE, load_captions(tmp_path / "captions.json"))
    assert data.captions == ["red disc", "blue disc"]


def test_missing_captions_are_an_error(tmp_path):
    folder = write_discs(tmp_path, 2)
    with pytest.raises(InputError):
        prepare(folder, SIDE, {"other": "name"})
    with tarfile.open(tmp_path / "no.tgz", "w:gz") as tar:
        entry = tarfile.TarInfo("package/readme.json")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"{}"))
    with pytest.raises(InputError, match="captions"):
        load_captions(tmp_path / "no.tgz")


def test_a_set_survives_its_file(tmp_path):
    data = toy_set(4)
    data.save(tmp_path / "set.safetensors")
    loaded = PreparedSet.load(tmp_path / "set.safetensors")
    assert torch.equal(loaded.rgba, data.rgba)
    assert (loaded.names, loaded.captions, loaded.held_out) == (data.names, data.captions, data.held_out)
    (tmp_path / "other.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="train prepare"):
        PreparedSet.load(tmp_path / "other.safetensors")


def test_statistics_count_soft_alpha():
    data = toy_set(2)
    data.rgba[0, 3], data.rgba[1, 3] = 255, 128
    figures = data.statistics()
    assert (figures["soft_share"], figures["opaque_share"], figures["transparent_share"]) == (0.5, 0.5, 0.0)


def test_kept_captions_are_never_held_out():
    words = [f"thing {number}" for number in range(200)]
    held = [word for word in words if is_held_out(word)]
    assert 5 < len(held) < 40
    assert not any(is_held_out(word, words) for word in words)
    # variants of one concept fall on the same side
    assert is_held_out("man running") == is_held_out("woman running")


def test_vocabulary_softens_and_names(tmp_path):
    data = toy_set(3)
    data.captions = ["cloud", "stone", "other"]
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"concepts": [{"concept": "cloud", "also": ["mist"], "look": "mist"}, "stone"]}))
    vocabulary = Vocabulary.load(path)
    chosen = vocabulary.chosen(data)
    assert chosen.captions == ["cloud", "stone"]
    assert (chosen.rgba[0, 3] <= data.rgba[0, 3]).all() and (chosen.rgba[0, 3] < data.rgba[0, 3]).any()
    assert torch.equal(chosen.rgba[1], data.rgba[1])
    assert vocabulary.captions_of(chosen)[0] == ["cloud", "mist", "a cloud", "a mist"]


@pytest.mark.parametrize("content", ["{", "{}", '[{"look": "mist"}]'])
def test_a_broken_vocabulary_is_an_error(tmp_path, content):
    (tmp_path / "words.json").write_text(content)
    with pytest.raises(InputError):
        Vocabulary.load(tmp_path / "words.json")


def test_the_shipped_recipe_loads():
    vocabulary = Vocabulary.load(RECIPE)
    assert len(vocabulary.concepts) >= 50
    assert {concept.caption for concept in vocabulary.concepts} <= vocabulary.keep


def test_a_set_that_memory_does_not_hold_is_refused(tmp_path, monkeypatch):
    folder = write_discs(tmp_path, 5)
    monkeypatch.setattr(data_module, "free_bytes", lambda device: 2 * 4 * SIDE**2 * 3)
    with pytest.raises(InputError, match="more than 3 images of 32x32"):
        prepare(folder, SIDE)


def test_a_set_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    data, path = toy_set(3), tmp_path / "set.safetensors"
    data.save(path)
    before = path.read_bytes()

    def fail(state, target, metadata=None):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OutputError, match="No space left"):
        data.save(path)
    assert path.read_bytes() == before
    assert [file for file in tmp_path.iterdir() if file.is_file()] == [path]


@pytest.mark.parametrize("content", ["[]", "{", "7", "[" * 100_000])
def test_captions_that_are_no_table_are_an_error(tmp_path, content):
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(InputError, match="JSON object"):
        load_captions(tmp_path / "captions.json")


def test_a_picture_of_too_many_pixels_is_listed_before_it_is_unpacked(tmp_path, monkeypatch):
    folder = write_discs(tmp_path, 2)
    monkeypatch.setattr("lib_layerdiffuse.core.picture.sizes.MOST_PIXELS", SIDE**2 + 1)
    Image.new("RGBA", (2 * SIDE, SIDE), "red").save(folder / "large.png")
    data = prepare(folder, SIDE)
    assert len(data) == 2 and "large.png" in data.skipped[0] and "at most" in data.skipped[0]
