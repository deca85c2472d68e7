"""What a merge that fails half-way leaves behind, and arithmetic of offsets where precision or size could be lost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_layerdiffuse.core.offsets import merging
from lib_layerdiffuse.core.offsets.install import merge_offsets
from lib_layerdiffuse.core.offsets.installed import ConcatLatents
from lib_layerdiffuse.core.offsets.offsets import Full, LowRank, OffsetSet


def tree() -> dict[str, nn.Module]:
    """Three linear layers."""
    torch.manual_seed(0)
    return {name: nn.Linear(4, 4, bias=False).requires_grad_(False) for name in ("one", "two", "three")}


def offsets(modules: dict[str, nn.Module]) -> OffsetSet:
    """An offset of each layer."""
    return OffsetSet({f"{name}.weight": [Full(torch.ones(4, 4))] for name in modules}, source="made up")


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("no room"), KeyboardInterrupt()])
def test_a_merge_that_fails_half_way_gives_the_parameters_back(monkeypatch, error) -> None:
    modules, copies, done = tree(), merging.MergedCopies(), []
    before = {name: (module.weight, module.weight.clone()) for name, module in modules.items()}
    merge = merging.merge_parameter

    def failing(original, parts, strength):
        done.append(original)
        if len(done) == 3:
            raise error
        return merge(original, parts, strength)

    monkeypatch.setattr(merging, "merge_parameter", failing)
    with pytest.raises(type(error)):
        merge_offsets(offsets(modules), modules, copies=copies)
    for name, (parameter, values) in before.items():
        assert modules[name].weight is parameter and torch.equal(parameter, values), name
    monkeypatch.setattr(merging, "merge_parameter", merge)
    with merge_offsets(offsets(modules), modules, copies=copies):  # nothing half-made was kept
        assert all(torch.equal(modules[name].weight, values + 1) for name, (_, values) in before.items())


def test_a_low_rank_product_is_made_in_float32() -> None:
    """In float16, 300 x 300 is infinite."""
    large = LowRank(torch.full((2, 2), 300.0).half(), torch.full((2, 2), 300.0).half())
    assert torch.equal(large.dense((2, 2)), torch.full((2, 2), 180_000.0))


def test_concat_latents_of_another_size_are_blended_not_picked() -> None:
    """A ramp stays a ramp at the size of a second pass; the nearest value would make steps of it."""
    ramp = torch.arange(8.0).expand(1, 4, 8, 8)
    beside = ConcatLatents(ramp).beside(torch.zeros(1, 4, 12, 12))
    steps = beside[0, 0, 0].diff()[2:-2]
    assert beside.shape == (1, 4, 12, 12) and torch.allclose(steps, torch.full_like(steps, 8 / 12), atol=1e-5)
    smaller = ConcatLatents(ramp.flip(-1)).beside(torch.zeros(1, 4, 4, 4))
    assert torch.allclose(smaller[0, 0, 0], torch.tensor([6.33, 4.5, 2.5, 0.67]), atol=0.2)
