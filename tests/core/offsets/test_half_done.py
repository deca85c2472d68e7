"""What a merge that fails half-way leaves behind, and arithmetic of offsets where precision or size could be lost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_layerdiffuse.core.offsets import merging
from lib_layerdiffuse.core.offsets.install import merge_offsets
from lib_layerdiffuse.core.offsets.installed import ConcatLatents
from lib_layerdiffuse.core.offsets.offsets import Full, LowRank, OffsetSet
from lib_layerdiffuse.unet import method_kinds


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


class Placed:
    """What stands for a parameter on some device: a machine of this suite has one device only."""

    def __init__(self, device: str):
        self.device, self.is_meta = device, device == "meta"

    @property
    def data(self) -> Placed:
        return self

    @data.setter
    def data(self, moved: Placed) -> None:
        self.device = moved.device

    def to(self, device: str) -> Placed:
        return Placed(device)


def swap_of(original: str, merged: str) -> merging._Swap:
    """A parameter and its merged twin on these devices, in a layer that has the original."""
    module = nn.Module()
    module._parameters["weight"] = Placed(original)
    return merging._Swap(module, "weight", module._parameters["weight"], Placed(merged))


def test_a_layer_that_the_host_moved_gets_its_parameter_back_where_the_layer_is_now() -> None:
    swap = swap_of("cpu", "cpu")
    swap.put(True, spare=False)
    swap.module._parameters["weight"].device = "cuda"  # the host moves the layer, with what is in it
    swap.put(False, spare=False)
    assert swap.module._parameters["weight"] is swap.original and swap.original.device == "cuda"


def test_a_model_that_the_host_threw_away_is_not_filled_again() -> None:
    swap = swap_of("cpu", "cpu")
    swap.put(True, spare=False)
    swap.module._parameters["weight"] = thrown = Placed("meta")
    swap.put(False, spare=False)
    assert swap.module._parameters["weight"] is thrown


def test_where_memory_is_short_the_card_never_has_both() -> None:
    swap = swap_of("cuda", "cuda")
    for active in (True, False, True):
        swap.put(active, spare=True)
        assert (swap.merged.device, swap.original.device) == (("cuda", "cpu") if active else ("cpu", "cuda"))


@pytest.mark.parametrize(("card", "free", "short"), [(True, 1, True), (True, 2**40, False), (False, 1, False)])
def test_memory_is_short_on_a_card_without_room_and_nowhere_else(monkeypatch, card, free, short) -> None:
    """Then nothing that was merged before is kept, and merging keeps one copy on the card."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: card)
    monkeypatch.setattr(method_kinds, "free_bytes", lambda device: free)
    chosen = {}

    def merged(offsets, modules, strength, concat, spare, copies) -> None:
        chosen.update(spare=spare, copies=copies)

    monkeypatch.setattr(method_kinds, "merge_offsets", merged)
    modules = tree()
    kept = method_kinds.KeptOffsets(offsets(modules))
    method_kinds.install_offsets(kept, modules, 1.0, None)
    assert chosen == {"spare": short, "copies": None if short else kept.copies}
