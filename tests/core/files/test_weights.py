"""Weight files: known layouts, lazy opening, and every way in which a file can be wrong."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_layerdiffuse.core.errors import WeightsError
from lib_layerdiffuse.core.files.layouts import PUBLISHED, decoder_layout, expected_keys, unit_paths
from lib_layerdiffuse.core.files.weights import WeightFile, check_keys, find_weights

MANIFESTS = json.loads(gzip.decompress((Path(__file__).parents[2] / "data/manifests.json.gz").read_bytes()))


@pytest.fixture
def sound(tmp_path) -> Path:
    path = tmp_path / "vae_transparent_encoder.safetensors"
    save_file({"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(4, dtype=torch.float16)}, path)
    return path


@pytest.mark.parametrize("stem", sorted(PUBLISHED))
def test_layout_is_key_for_key_the_published_one(stem):
    assert expected_keys(stem) == {key: tuple(shape) for key, shape in MANIFESTS[stem].items()}


def test_layouts_follow_other_shapes():
    small = decoder_layout((8, 8, 16, 16), latent_channels=16, attention_levels=2)
    assert small["latent_conv_in.weight"] == (16, 16, 1, 1)
    assert "down_blocks.2.attentions.0.to_q.weight" in small
    assert "down_blocks.1.attentions.0.to_q.weight" not in small
    assert expected_keys("layer_xl_fg2ble") is None


def test_unit_paths_in_the_published_order():
    paths = unit_paths()
    assert len(paths) == len(set(paths)) == 32
    assert paths[0] == "input_blocks.1.1.transformer_blocks.0.attn1"
    assert paths[1] == "input_blocks.1.1.transformer_blocks.0.attn2"
    assert paths[12] == "output_blocks.3.1.transformer_blocks.0.attn1"
    assert paths[30] == "middle_block.1.transformer_blocks.0.attn1"


def test_opened_file_gives_shapes_at_once_and_tensors_one_by_one(sound):
    with WeightFile(sound) as file:
        assert file.shapes == {"a.weight": (2, 3), "b.bias": (4,)}
        assert torch.equal(file.tensor("a.weight"), torch.arange(6.0).view(2, 3))
        assert list(file.tensors("a.")) == ["weight"]
    sound.unlink()  # nothing keeps the file open


def refusal(path: Path) -> str:
    """The message with which a file is refused."""
    with pytest.raises(WeightsError) as error:
        WeightFile(path)
    message = str(error.value)
    assert str(path) in message
    assert "delete" in message and "download it again" in message and "LayerDiffusion/layerdiffusion-v1" in message
    assert "://" not in message
    return message


@pytest.mark.parametrize("kept", [0, 4, 8, 60, -1])
def test_truncated_anywhere(sound, kept):
    sound.write_bytes(sound.read_bytes()[:kept])
    assert "truncated" in refusal(sound) or "not safetensors" in refusal(sound)


def test_too_long(sound):
    sound.write_bytes(sound.read_bytes() + b"more")
    assert "too long" in refusal(sound)


@pytest.mark.parametrize(
    ("content", "recognised"),
    [
        (b"PK\x03\x04" + bytes(100), "PyTorch checkpoint"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"nothing in particular, really", "not safetensors"),
        (struct.pack("<Q", 4) + b"{{{{", "unreadable header"),
        (struct.pack("<Q", 2) + b"{}", "no tensor"),
    ],
)
def test_foreign_content_is_recognised(sound, content, recognised):
    sound.write_bytes(content)
    assert recognised in refusal(sound)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}, "F8_E4M3"),
        ({"dtype": "F32", "shape": [5], "data_offsets": [0, 4]}, "contradicts"),
        ({"dtype": "F32", "shape": [1]}, "malformed"),
    ],
)
def test_header_that_lies(sound, entry, complaint):
    header = json.dumps({"key": entry}).encode()
    sound.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert complaint in refusal(sound)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        b'{"__metadata__":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"key": {"dtype": "F8", "shape": [1' + b"0" * 400 + b'], "data_offsets": [0, 4]}}',  # no float holds it
    ],
)
def test_a_header_that_json_or_arithmetic_chokes_on(sound, header):
    sound.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "header" in refusal(sound) or "malformed" in refusal(sound)


def test_missing_file_and_folder_in_its_place(tmp_path):
    assert "cannot be opened" in refusal(tmp_path / "absent.safetensors")
    assert "cannot be opened" in refusal(tmp_path)


def test_check_keys_names_what_differs(sound):
    shapes = {"a": (1,), "b": (2,), "stranger": (3,)}
    check_keys(sound, shapes, shapes)
    with pytest.raises(WeightsError) as error:
        check_keys(sound, shapes, {"a": (1,), "b": (3,), "absent": (3,)})
    assert all(part in str(error.value) for part in ("absent", "stranger", "b [2] instead of [3]", sound.name))


def test_first_folder_wins_and_fetch_is_the_last_resort(tmp_path, sound):
    other = tmp_path / "other"
    other.mkdir()
    fetched = []

    def fetch(name: str) -> Path:
        fetched.append(name)
        return tmp_path / name

    assert find_weights(sound.stem, [tmp_path / "absent", other, tmp_path], fetch) == sound
    assert fetched == []
    (other / sound.name).write_bytes(sound.read_bytes())
    assert find_weights(sound.stem, [other, tmp_path]) == other / sound.name
    assert find_weights("layer_xl_fg2ble", [other], fetch).name == "layer_xl_fg2ble.safetensors"
    assert fetched == ["layer_xl_fg2ble.safetensors"]


def test_issue_c12_offline_says_where_to_get_the_file_by_hand(tmp_path):
    with pytest.raises(WeightsError) as error:
        find_weights("layer_xl_fg2ble", [tmp_path])
    message = str(error.value)
    assert str(tmp_path) in message
    assert "layer_xl_fg2ble.safetensors" in message and "LayerDiffusion/layerdiffusion-v1" in message


def test_reading_again_and_again_leaves_nothing(sound):
    """The library's own `get_tensor` keeps two numbers of each tensor for ever."""

    def read(times: int) -> int:
        for _ in range(times):
            with WeightFile(sound) as file:
                file.tensors()
        return sys.getallocatedblocks()

    read(200)  # what Python itself keeps for the next time
    before = read(200)
    assert read(500) < before + 500


def test_tensors_at_any_place_of_any_size(tmp_path):
    """A file whose numbers do not begin at a multiple of their size; none, and a single one."""
    path = tmp_path / "layer_any.safetensors"
    entries = {
        "odd": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "none": {"dtype": "F16", "shape": [0, 3], "data_offsets": [8, 8]},
        "one": {"dtype": "BF16", "shape": [], "data_offsets": [8, 10]},
    }
    for spaces in range(4):
        header = json.dumps(entries).encode() + b" " * spaces
        one = torch.tensor(1.5, dtype=torch.bfloat16).view(torch.int16).numpy().tobytes()
        path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<2f", 0.25, -3) + one)
        with WeightFile(path) as file:
            tensors = file.tensors()
        assert tensors["odd"].tolist() == [0.25, -3] and tensors["one"].item() == 1.5
        assert tensors["none"].shape == (0, 3) and tensors["none"].dtype == torch.float16


def test_writing_into_a_tensor_leaves_the_file(sound):
    before = sound.read_bytes()
    with WeightFile(sound) as file:
        file.tensor("a.weight").add_(1)
    assert sound.read_bytes() == before
