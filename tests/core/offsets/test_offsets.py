"""Offsets on a model: golden numbers, both ways to put them on, exact restoration, and models that take none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rule import randn_for
from safetensors.torch import load_file
from torch import nn
from toy_unet import by_hand, fingerprint, modules_of, random_tensors

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError, WeightsError
from lib_layerdiffuse.core.offsets.install import ConcatLatents, hook_offsets, merge_offsets
from lib_layerdiffuse.core.offsets.offsets import Full, LowRank, make_lora, merge_parameter, parse_offsets
from lib_layerdiffuse.core.rows import spread_rows

GOLDEN = load_file(Path(__file__).parents[2] / "data/golden/offset_merge.safetensors")
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
