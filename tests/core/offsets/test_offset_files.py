"""Files of offsets: what does not fit is refused, published names are understood, and own files are written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toy_unet import Block, fingerprint, modules_of

from lib_layerdiffuse.core.errors import OutputError, WeightsError
from lib_layerdiffuse.core.offsets.install import hook_offsets, merge_offsets, parameter_shapes
from lib_layerdiffuse.core.offsets.offsets import (
    Full,
    checked_offsets,
    make_diff,
    parse_offsets,
    read_offsets,
    write_lora,
    write_offsets,
)

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize(
    "key",
    [
        "diffusion_model.to_q.weight::loha::0",
        "diffusion_model.to_q.weight::lora::2",
        "diffusion_model.to_q.alpha::diff::0",
        "to_q.weight::diff::0",
        "diffusion_model.to_q.weight",
        "lora_unet_to_q.lora_up.weight",
    ],
)
def test_unknown_keys_are_refused_by_name(tmp_path, key):
    path = tmp_path / "file.safetensors"
    save_file({key: torch.zeros(8, 8)}, path)
    with pytest.raises(WeightsError) as error:
        read_offsets(path)
    assert key in str(error.value) and str(path) in str(error.value)


def test_half_a_pair_is_refused():
    with pytest.raises(WeightsError, match=r"to_q.weight::lora"):
        parse_offsets({"diffusion_model.to_q.weight::lora::0": torch.zeros(8, 2)})


def test_names_that_the_unet_lacks_are_refused(model):
    with pytest.raises(WeightsError, match=r"middle_block.9.weight"):
        merge_offsets(
            parse_offsets({"diffusion_model.middle_block.9.weight::diff::0": torch.zeros(1)}), modules_of(model)
        )


@pytest.mark.parametrize("install", [merge_offsets, hook_offsets])
@pytest.mark.parametrize(
    ("tensors", "shapes"),
    [
        ({"out.weight::diff::0": (4, 16)}, ("[4, 16]", "[4, 8]")),
        ({"halve.weight::diff::0": (8, 4, 3, 3)}, ("[8, 4, 3, 3]", "[8, 8, 3, 3]")),
        ({"to_q.weight::lora::0": (2, 8), "to_q.weight::lora::1": (8, 2)}, ("[2, 8]", "[8, 8]")),
        ({"norm.weight::lora::0": (8, 1), "norm.weight::lora::1": (1, 1)}, ("[8, 1]", "[8]")),
    ],
)
def test_issue_133_shape_mismatch_names_both_shapes_and_changes_nothing(model, install, tensors, shapes):
    before = fingerprint(model)
    offsets = parse_offsets({f"diffusion_model.{key}": torch.zeros(shape) for key, shape in tensors.items()})
    with pytest.raises(WeightsError) as error:
        install(offsets, modules_of(model))
    assert all(shape in str(error.value) for shape in shapes)
    assert fingerprint(model) == before


def test_two_wide_convolutions_are_refused(model):
    tensors = {
        f"diffusion_model.{name}.weight::diff::0": torch.zeros(8, 12, 3, 3) for name in ("input_blocks.0", "halve")
    }
    with pytest.raises(WeightsError, match="wider convolutions"):
        checked_offsets(parse_offsets(tensors), parameter_shapes(modules_of(model)))


@pytest.mark.parametrize("stem", ["layer_xl_transparent_attn", "layer_xl_transparent_conv", "layer_xl_bgble2fg.small"])
def test_published_names_and_shapes_are_understood(stem):
    manifests = json.loads(gzip.decompress((DATA / "manifests.json.gz").read_bytes()))
    tensors = {key: torch.empty(shape, device="meta") for key, shape in manifests[stem].items()}
    offsets = parse_offsets(tensors)
    shapes = {}
    for name, (part,) in offsets.entries.items():
        is_full = isinstance(part, Full)
        shapes[name] = tuple(part.diff.shape) if is_full else (part.up.shape[0], part.down.shape[1])
    if stem == "layer_xl_bgble2fg.small":
        shapes["input_blocks.0.0.weight"] = (320, 4, 3, 3)
    assert checked_offsets(offsets, shapes).extra_channels == (8 if "bgble" in stem else 0)
    assert len(offsets.entries) == len(tensors) / (2 if "attn" in stem else 1)


def test_what_training_writes_loads_and_gives_the_tuned_model(model, tmp_path):
    torch.manual_seed(1)
    tuned = Block()
    tuned.load_state_dict(model.state_dict())
    with torch.no_grad():
        tuned.halve.weight.add_(0.1 * torch.randn(8, 8, 3, 3))
        tuned.norm.bias.add_(0.1)
    path = tmp_path / "layer_own.safetensors"
    tensors = make_diff(model.state_dict(), tuned.state_dict())
    assert sorted(tensors) == ["diffusion_model.halve.weight::diff::0", "diffusion_model.norm.bias::diff::0"]
    write_offsets(path, tensors, {"base": "toy"})
    offsets = read_offsets(path, parameter_shapes(modules_of(model)))
    assert offsets.metadata == {"base": "toy"}
    sample = torch.randn(1, 4, 8, 8)
    with merge_offsets(offsets, modules_of(model)):
        assert torch.allclose(model(sample), tuned(sample), atol=1e-3)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_diff_of_a_widened_convolution(model):
    base, after = {"input_blocks.0.weight": torch.ones(8, 4, 3, 3)}, torch.full((8, 8, 3, 3), 2.0)
    (diff,) = make_diff(base, {"input_blocks.0.weight": after}).values()
    assert torch.equal(diff[:, :4], torch.ones(8, 4, 3, 3).half()) and torch.equal(diff[:, 4:], after[:, 4:].half())
    with pytest.raises(WeightsError, match=r"\[4, 4\]"):
        make_diff({"a.weight": torch.ones(8, 4)}, {"a.weight": torch.ones(4, 4)})
    with pytest.raises(WeightsError, match=r"b.weight"):
        make_diff({"a.weight": torch.ones(1)}, {"b.weight": torch.ones(1)})


def test_low_rank_written_and_read(tmp_path):
    up, down = torch.randn(8, 2), torch.randn(2, 8)
    write_lora(tmp_path / "a.safetensors", {"diffusion_model.to_q.weight": (up, down)})
    offsets = read_offsets(tmp_path / "a.safetensors", {"to_q.weight": (8, 8)})
    ((part,),) = offsets.entries.values()
    assert torch.equal(part.up, up.half()) and torch.equal(part.down, down.half())


def test_a_bad_file_is_refused_before_a_tensor_is_read(tmp_path, model):
    path = tmp_path / "a.safetensors"
    save_file({"diffusion_model.absent.weight::diff::0": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=r"absent.weight"):
        read_offsets(path, parameter_shapes(modules_of(model)))


def test_a_file_that_cannot_be_written_is_an_output_error_and_leaves_nothing(tmp_path):
    pairs = {"to_q.weight": (torch.randn(8, 2), torch.randn(2, 8))}
    with pytest.raises(OutputError):
        write_lora(tmp_path / "absent" / "a.safetensors", pairs)
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(OutputError):
        write_lora(tmp_path / "taken.safetensors", pairs)
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken.safetensors"]
