"""Offsets: golden numbers, both ways to put them on a model, exact restoration, and files that do not fit."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rule import randn_for
from safetensors.torch import load_file, save_file
from torch import nn

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError, OutputError, WeightsError
from lib_layerdiffuse.core.offsets.install import ConcatLatents, hook_offsets, merge_offsets, parameter_shapes
from lib_layerdiffuse.core.offsets.offsets import (
    Full,
    LowRank,
    checked_offsets,
    make_diff,
    make_lora,
    merge_parameter,
    parse_offsets,
    read_offsets,
    write_lora,
    write_offsets,
)
from lib_layerdiffuse.core.rows import spread_rows

DATA = Path(__file__).parents[2] / "data"
GOLDEN = load_file(DATA / "golden/offset_merge.safetensors")
INPUTS = {
    "w": (24, 16),
    "up": (24, 4),
    "down": (4, 16),
    "diff": (24, 16),
    "cw": (8, 4, 3, 3),
    "cdiff": (8, 12, 3, 3),
    "b": (24,),
    "bdiff": (24,),
}


class Block(nn.Module):
    """A toy UNet with every kind of layer that offsets touch."""

    def __init__(self):
        super().__init__()
        self.input_blocks = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1))
        self.norm = nn.GroupNorm(2, 8)
        self.halve = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.layer_norm = nn.LayerNorm(8)
        self.to_q = nn.Linear(8, 8, bias=False)
        self.out = nn.Linear(8, 4)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        hidden = self.halve(F.silu(self.norm(self.input_blocks(sample))))
        tokens = self.layer_norm(hidden.flatten(2).transpose(1, 2))
        return self.out(tokens + self.to_q(tokens))


@pytest.fixture
def model() -> Block:
    torch.manual_seed(0)
    return Block().requires_grad_(False)


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    return dict(model.named_modules())


def random_tensors(model: nn.Module, extra_channels: int = 0) -> dict[str, torch.Tensor]:
    """A file's tensors: a diff of every parameter and low rank on three of them, one of which has both."""
    tensors = {}
    for name, parameter in model.named_parameters():
        if name != "to_q.weight":
            shape = list(parameter.shape)
            if name == "input_blocks.0.weight":
                shape[1] += extra_channels
            tensors[f"diffusion_model.{name}::diff::0"] = 0.1 * torch.randn(shape)
    low_rank = {"to_q.weight": (8, 8), "halve.weight": (8, 72), "out.weight": (4, 8)}
    for name, (width, width_in) in low_rank.items():
        tensors[f"diffusion_model.{name}::lora::0"] = 0.3 * torch.randn(width, 2)
        tensors[f"diffusion_model.{name}::lora::1"] = 0.3 * torch.randn(2, width_in)
    return tensors


def by_hand(model: nn.Module, tensors: dict[str, torch.Tensor], strength: float) -> Block:
    """A copy of the model with the offsets added the plain way."""
    copy = Block()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for key, tensor in tensors.items():
        name, kind, index = key.removeprefix("diffusion_model.").split("::")
        if kind == "diff":
            state[name] = state[name] + strength * tensor
        elif index == "0":
            down = tensors[key[:-1] + "1"]
            state[name] = state[name] + strength * (tensor @ down).reshape(state[name].shape)
    copy.load_state_dict(state)
    return copy


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_merge(name):
    inputs = {key: randn_for(f"golden/merge/{key}", shape) for key, shape in INPUTS.items()}
    kind, strength = name.split("_")
    original, part = {
        "lora": (inputs["w"], LowRank(inputs["up"], inputs["down"])),
        "diff": (inputs["w"], Full(inputs["diff"])),
        "bias": (inputs["b"], Full(inputs["bdiff"])),
        "convwiden": (inputs["cw"], Full(inputs["cdiff"])),
    }[kind]
    merged = merge_parameter(original, [part], float(strength))
    assert merged.shape == GOLDEN[name].shape
    assert (merged - GOLDEN[name]).abs().max() <= 1e-6


def test_strength_zero_never_widens_and_is_the_same_object():
    weight = randn_for("w", (8, 4, 3, 3))
    assert merge_parameter(weight, [Full(randn_for("d", (8, 12, 3, 3)))], 0.0) is weight


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_merged_in_float32_and_cast_back(dtype):
    weight, diff = torch.full((4, 4), 1.0, dtype=dtype), torch.full((4, 4), 0.003, dtype=dtype)
    merged = merge_parameter(weight, [Full(diff), Full(diff)], 0.25)
    assert merged.dtype == dtype
    expected = (weight.float() + 0.5 * diff.float()).to(dtype)
    assert torch.equal(merged, expected)


@pytest.mark.parametrize("install", [merge_offsets, hook_offsets])
@pytest.mark.parametrize("strength", [1.0, 0.5, 2.0])
def test_both_ways_equal_the_sums_by_hand(model, install, strength):
    tensors, sample = random_tensors(model), torch.randn(3, 4, 8, 8)
    expected = by_hand(model, tensors, strength)(sample)
    plain = model(sample)
    with install(parse_offsets(tensors), modules_of(model), strength):
        assert torch.allclose(model(sample), expected, atol=1e-5)
    assert (plain - expected).abs().max() > 0.01
    assert torch.equal(model(sample), plain)


@pytest.mark.parametrize("install", [merge_offsets, hook_offsets])
def test_partial_norm_offsets(model, install):
    """Only a bias, or only a weight, of a norm layer."""
    names = ("norm.bias", "layer_norm.weight")
    tensors = {f"diffusion_model.{name}::diff::0": torch.randn(8) for name in names}
    sample = torch.randn(2, 4, 8, 8)
    expected = by_hand(model, tensors, 1.0)(sample)
    with install(parse_offsets(tensors), modules_of(model)):
        assert torch.allclose(model(sample), expected, atol=1e-5)


def fingerprint(model: nn.Module) -> list:
    """Everything that an installation might leave changed."""
    state = []
    for name, module in model.named_modules():
        state.append((name, len(module._forward_hooks), len(module._forward_pre_hooks), sorted(module.__dict__)))
        state += [
            (key, id(value), value.clone().tolist()) for key, value in module._parameters.items() if value is not None
        ]
    return state


@pytest.mark.parametrize("install", [merge_offsets, hook_offsets])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
def test_issue_70_the_same_objects_come_back_after_any_exception(model, install, error):
    before = fingerprint(model)
    concat = ConcatLatents(torch.randn(1, 4, 8, 8))
    try:
        with install(parse_offsets(random_tensors(model, 4)), modules_of(model), 1.0, concat):
            assert fingerprint(model) != before
            if error:
                raise error("in the middle of a run")
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert fingerprint(model) == before


@pytest.mark.parametrize("install", [merge_offsets, hook_offsets])
def test_strength_zero_touches_nothing(model, install):
    before = fingerprint(model)
    with install(parse_offsets(random_tensors(model, 8)), modules_of(model), 0.0):
        assert fingerprint(model) == before


@pytest.mark.parametrize("install", [merge_offsets, hook_offsets])
def test_stop_at_switches_back_and_forth(model, install):
    sample, concat = torch.randn(2, 4, 8, 8), ConcatLatents(torch.randn(1, 8, 8, 8))
    plain = model(sample)
    installed = install(parse_offsets(random_tensors(model, 8)), modules_of(model), 1.0, concat)
    changed = model(sample)
    installed.set_active(False)
    assert torch.equal(model(sample), plain)
    installed.set_active(True)
    assert torch.equal(model(sample), changed) and not torch.equal(changed, plain)
    installed.remove()
    installed.remove()  # twice is no harm
    assert torch.equal(model(sample), plain)


@pytest.mark.parametrize("install", [merge_offsets, hook_offsets])
@pytest.mark.parametrize("pictures", [1, 2])
def test_issue_c61_wide_input_convolution_at_any_batch(model, install, pictures):
    """Batch 4 = 2 pictures, conditional and unconditional rows."""
    tensors = random_tensors(model, 8)
    sample, latents = torch.randn(4, 4, 8, 8), torch.randn(pictures, 8, 8, 8)
    wide = nn.Conv2d(12, 8, 3, padding=1)
    own = model.input_blocks[0].weight
    padded = torch.cat([own, torch.zeros(8, 8, 3, 3)], 1)
    wide.weight = nn.Parameter(padded + tensors["diffusion_model.input_blocks.0.weight::diff::0"])
    wide.bias = nn.Parameter(model.input_blocks[0].bias + tensors["diffusion_model.input_blocks.0.bias::diff::0"])
    repeated = latents.repeat(4 // pictures, 1, 1, 1)
    expected = wide(torch.cat([sample, repeated], 1))
    with install(parse_offsets(tensors), modules_of(model), 1.0, ConcatLatents(latents)):
        assert torch.allclose(model.input_blocks[0](sample), expected, atol=1e-5)


def test_concat_latents_at_another_size():
    concat = ConcatLatents(torch.arange(3.0).view(3, 1, 1, 1).expand(3, 4, 8, 8))
    beside = concat.beside(torch.zeros(6, 4, 16, 12, dtype=torch.float16))
    assert beside.dtype == torch.float16 and beside.shape == (6, 4, 16, 12)
    assert beside[:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(InputError, match="multiple of 3"):
        concat.beside(torch.zeros(4, 4, 8, 8))


def test_rows_by_index():
    stored = torch.arange(3.0).view(3, 1)
    assert spread_rows(stored, 2, [2, 0]).flatten().tolist() == [2, 0]
    with pytest.raises(InputError, match="row map"):
        spread_rows(stored, 2, [3, 0])


@pytest.mark.parametrize("install", [merge_offsets, hook_offsets])
def test_concat_latents_must_be_there_and_only_where_they_belong(model, install):
    before = fingerprint(model)
    with pytest.raises(InputError, match="8 for"):
        install(parse_offsets(random_tensors(model, 8)), modules_of(model))
    with pytest.raises(InputError, match="0 for"):
        install(parse_offsets(random_tensors(model)), modules_of(model), 1.0, ConcatLatents(torch.zeros(1, 4, 8, 8)))
    assert fingerprint(model) == before


def test_hooks_live_with_a_lora_merged_after_them(model):
    """What A1111 does: weights change lazily while the hooks are on."""
    tensors, sample = random_tensors(model), torch.randn(1, 4, 8, 8)
    user = 0.1 * torch.randn(8, 8)
    with hook_offsets(parse_offsets(tensors), modules_of(model)):
        model.to_q.weight.add_(user)
        got = model(sample)
    assert torch.allclose(got, by_hand(model, tensors, 1.0)(sample), atol=1e-5)


def test_hooks_in_half_precision_on_bfloat16_model(model):
    tensors, sample = random_tensors(model), torch.randn(1, 4, 8, 8)
    expected = by_hand(model, tensors, 1.0)(sample)
    half = {key: tensor.half() for key, tensor in tensors.items()}
    with hook_offsets(parse_offsets(half), modules_of(model.to(torch.bfloat16))):
        got = model(sample.bfloat16())
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).abs().max() < 0.1


def test_a_host_may_map_the_names_as_it_likes(model):
    renamed = {f"blocks.{path.replace('.', '_')}": module for path, module in modules_of(model).items() if path}
    tensors = {
        "diffusion_model.blocks.to_q.weight::lora::0": torch.randn(8, 2),
        "diffusion_model.blocks.to_q.weight::lora::1": torch.randn(2, 8),
    }
    sample = torch.randn(1, 4, 8, 8)
    plain = model(sample)
    with merge_offsets(parse_offsets(tensors), renamed):
        assert not torch.equal(model(sample), plain)
    assert torch.equal(model(sample), plain)


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


def test_quantised_weights_are_refused_for_merging_and_fine_for_hooks(model):
    tensors = make_lora({"to_q.weight": (torch.randn(8, 2), torch.randn(2, 8))})
    sample = torch.randn(1, 3, 8)
    plain = model.to_q(sample)
    packed = nn.Parameter(model.to_q.weight.to(torch.float8_e4m3fn), requires_grad=False)
    original, model.to_q.weight = model.to_q.weight, packed
    with pytest.raises(WeightsError, match=r"quantised.*to_q.weight"):
        merge_offsets(parse_offsets(tensors), modules_of(model))
    assert model.to_q.weight is packed
    # as hosts do it: the layer widens its own weight while it runs
    model.to_q.forward = lambda hidden: F.linear(hidden, original)
    with hook_offsets(parse_offsets(tensors), modules_of(model)):
        assert not torch.allclose(model.to_q(sample), plain)


def test_weights_that_are_not_in_memory_are_refused(model):
    tensors = make_lora({"to_q.weight": (torch.randn(8, 2), torch.randn(2, 8))})
    model.to_q.to("meta")
    with pytest.raises(WeightsError, match="not in memory"):
        merge_offsets(parse_offsets(tensors), modules_of(model))


def test_hooks_refuse_a_kind_of_layer_they_do_not_know():
    tree = {"table": nn.Embedding(4, 8)}
    offsets = parse_offsets({"diffusion_model.table.weight::diff::0": torch.ones(4, 8)})
    with pytest.raises(BaseMismatchError, match="Embedding"):
        hook_offsets(offsets, tree)
    with merge_offsets(offsets, tree):
        pass


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
