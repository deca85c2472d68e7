"""Projections merged with their layers' weights: only where they are the same, and never stale."""

from __future__ import annotations

import pytest
import torch
from small_attention import WIDTHS, run_layers, same, small_layers, small_state
from torch import nn

from lib_layerdiffuse.core.sharing import sharing_unit
from lib_layerdiffuse.core.sharing.attention_sharing import AttentionSharing, SharingRun, install


class WithLora(nn.Linear):
    """A linear layer with a LoRA beside its weight, as hosts have them."""

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        return super().forward(sample) + 0.5 * sample


@pytest.fixture
def sharing() -> AttentionSharing:
    return AttentionSharing.from_state_dict(small_state(2))


@pytest.fixture
def merges(monkeypatch) -> list[str]:
    """Names of the projections that were merged, in order."""
    done = []
    merge = sharing_unit.Prepared._merged_weight

    def counted(self, weight, name):
        done.append(name)
        return merge(self, weight, name)

    monkeypatch.setattr(sharing_unit.Prepared, "_merged_weight", counted)
    return done


def shared(sharing: AttentionSharing, layers: list[nn.Module], merging: bool = True, strength: float = 1.0) -> list:
    with install(sharing, layers, SharingRun(merging=merging), strength):
        first = run_layers(layers, 4)
        assert same(run_layers(layers, 4), first)
    return first


def close(one: list[torch.Tensor], other: list[torch.Tensor], tolerance: float = 1e-5) -> bool:
    return all(torch.allclose(left, right, atol=tolerance) for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", ["ldm", "diffusers"])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_merged_is_what_deltas_give(sharing, merges, kind, strength):
    layers = small_layers(kind)
    merged = shared(sharing, layers, strength=strength)
    assert len(merges) == 4 * len(layers)
    assert close(merged, shared(sharing, layers, merging=False, strength=strength))
    assert len(merges) == 4 * len(layers)


def test_a_second_run_merges_nothing_anew(sharing, merges):
    layers = small_layers()
    first = shared(sharing, layers)
    merges.clear()
    assert same(shared(sharing, layers), first) and merges == []
    sharing.release()
    assert same(shared(sharing, layers), first) and len(merges) == 4 * len(layers)


@pytest.mark.parametrize("past_the_count", [False, True])
def test_a_weight_that_was_edited_between_runs_is_merged_anew(sharing, merges, past_the_count):
    layers = small_layers()
    shared(sharing, layers)
    merges.clear()
    weight = layers[0].to_k.weight
    (weight.data if past_the_count else weight).add_(0.1)
    assert close(shared(sharing, layers), shared(sharing, layers, merging=False)) and merges == ["to_k"]


def test_a_weight_that_is_edited_in_mid_run_is_seen(sharing):
    layers = small_layers()
    with install(sharing, layers, SharingRun()):
        run_layers(layers, 4)
        layers[0].to_v.weight.add_(0.1)
        layers[1].to_q.weight = nn.Parameter(layers[1].to_q.weight + 0.1, requires_grad=False)
        seen = run_layers(layers, 4)
    assert close(seen, shared(sharing, layers, merging=False))


@pytest.mark.parametrize("name", ["to_q", "to_v"])
def test_a_lora_beside_the_weight_goes_on_working(sharing, merges, name):
    layers = small_layers()
    own = getattr(layers[0], name)
    beside = WithLora(WIDTHS[0], WIDTHS[0], bias=False).requires_grad_(False)
    beside.weight.copy_(own.weight)
    setattr(layers[0], name, beside)
    assert close(shared(sharing, layers), shared(sharing, layers, merging=False))
    assert merges.count(name) == len(layers) - 1


def test_a_forward_of_the_layer_itself_is_called(sharing, merges):
    layers = small_layers()
    plain = layers[0].to_k.forward
    layers[0].to_k.forward = lambda sample: plain(sample) + 1
    assert close(shared(sharing, layers), shared(sharing, layers, merging=False))
    assert merges.count("to_k") == len(layers) - 1


def test_mixed_precision_is_merged_too(sharing, merges):
    """AUTOMATIC1111 has 16-bit weights, and 32-bit numbers between them."""
    layers = [layer.bfloat16() for layer in small_layers()]
    with torch.autocast("cpu", torch.bfloat16):
        merged = shared(sharing, layers)
        assert len(merges) == 4 * len(layers)
        assert close(merged, shared(sharing, layers, merging=False), 0.05)
    full = shared(sharing, [layer.float() for layer in layers], merging=False)
    assert close([part.float() for part in merged], full, 0.1)


def test_another_type_of_the_same_layers_is_merged_anew(sharing, merges):
    layers = small_layers()
    expected = shared(sharing, layers)
    merges.clear()
    layers = [layer.double() for layer in layers]
    with install(sharing, layers, SharingRun()):
        wider = [layer(torch.zeros(2, 12, WIDTHS[0], dtype=torch.float64)) for layer in layers[:1]]
    assert wider[0].dtype == torch.float64 and len(merges) == 4
    assert same(shared(sharing, [layer.float() for layer in layers]), expected)
