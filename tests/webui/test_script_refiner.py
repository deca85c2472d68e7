"""A refiner replaces the checkpoint in the midst of a pass: in the same modules, or with a model of its own."""

from __future__ import annotations

import pytest
import torch
from fakes.running import Snapshot, layer_of, load, plainly, run

from lib_layerdiffuse.core.methods import find_method

METHODS = ("sd15_joint", "xl_fg2blend")
LOADING = {"a1111": 1, "a1111 keeping models": 2, "forge": 1, "forge tearing models down": 1}


def start(make_webui, loading: str, base: str):
    """A WebUI with a third checkpoint that has the first one's weights."""
    webui = make_webui(loading.split()[0], base)
    webui.engine.keeps_models = LOADING[loading]
    webui.engine.tears_down = "tearing" in loading
    webui.engine.add_checkpoint("twin", base, weights=f"{base}-one")
    return webui


def refined(webui, layer, refiner: str, **fields):
    """A job of two steps, the second on the refiner."""
    fields = {"steps": 2, "refiner_switch_at": 0.5, "refiner": webui.engine.checkpoints[refiner], **fields}
    outcome = run(webui, layer, **fields)
    assert outcome.error is None and not webui.errors
    return outcome


@pytest.mark.parametrize("loading", LOADING)
@pytest.mark.parametrize("method", METHODS)
def test_the_method_moves_on_to_the_refiner(make_webui, loading, method) -> None:
    row = find_method(method)
    webui, layer = start(make_webui, loading, row.base), layer_of(row)
    batch = {"batch_size": len(row.frames)}
    without = run(webui, layer, steps=2, **batch)
    twin = refined(webui, layer, "twin", **batch)
    assert webui.sd_model.sd_checkpoint_info.name == "twin" and not twin.note
    assert torch.equal(twin.samples, without.samples)
    other = refined(webui, layer, f"{row.base}-two", **batch)
    assert not torch.equal(other.samples, without.samples)
    assert torch.equal(run(webui, layer, steps=2, **batch).samples, without.samples)


@pytest.mark.parametrize(
    ("loading", "method"), [("a1111", "sd15_joint"), ("a1111", "xl_fg2blend"), ("a1111 keeping models", "xl_fg2blend")]
)
def test_both_checkpoints_are_what_they_were(make_webui, loading, method) -> None:
    row = find_method(method)
    webui = start(make_webui, loading, row.base)
    plain = {}
    for name in ("two", "one"):
        load(webui, f"{row.base}-{name}")
        plain[name] = plainly(webui).samples
    refined(webui, layer_of(row), f"{row.base}-two", batch_size=len(row.frames))
    for name in ("two", "one"):
        load(webui, f"{row.base}-{name}")
        state = Snapshot.of(webui)
        assert torch.equal(run(webui, steps=1).samples, plain[name])
        assert not any(any(traces[:3]) for traces in state.traces.values())
        state.check(webui)


@pytest.mark.parametrize("loading", LOADING)
def test_a_refiner_of_another_base_runs_plainly_with_a_note(make_webui, loading) -> None:
    webui = start(make_webui, loading, "sdxl")
    plain = plainly(webui)
    outcome = refined(webui, {"method": "xl_fg_conv"}, "sd15-one")
    assert outcome.modes == ["RGBA"] and "without LayerDiffuse" in outcome.note
    assert torch.equal(run(webui, steps=1).samples, plain.samples)


@pytest.mark.parametrize("loading", ["a1111", "forge"])
def test_a_lora_a_refiner_and_a_method(make_webui, loading) -> None:
    webui, layer = start(make_webui, loading, "sd15"), {"method": "sd15_fg"}
    prompt = {"prompt": "a red apple <lora:style:1>"}
    plain, both = plainly(webui).samples, run(webui, layer, steps=2, **prompt).samples
    if loading != "forge":  # Forge forgets a user's Lora at this switch
        assert torch.equal(refined(webui, layer, "twin", **prompt).samples, both)
    refined(webui, layer, "sd15-two", **prompt)
    assert torch.equal(run(webui, steps=1).samples, plain)
    assert torch.equal(run(webui, layer, steps=2, **prompt).samples, both)


@pytest.mark.parametrize("loading", ["a1111", "forge"])
def test_an_interrupt_after_the_switch(make_webui, loading) -> None:
    webui = start(make_webui, loading, "sd15")
    plain = plainly(webui).samples
    webui.engine.at_step[1] = lambda p: webui.state.interrupt()
    assert refined(webui, {"method": "sd15_fg"}, "sd15-two").modes == ["RGBA"]
    webui.engine.at_step.clear()
    assert torch.equal(run(webui, steps=1).samples, plain)
