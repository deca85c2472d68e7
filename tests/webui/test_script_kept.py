"""What is merged with a checkpoint's weights is kept for the next picture, and for nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.running import Snapshot, layer_of, networks_of, plainly, run, same_pictures

from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.core.offsets import merging
from lib_layerdiffuse.core.sharing import sharing_unit

METHODS = ["sd15_joint", "xl_fg_attn", "xl_bg2blend"]
ROOMY = "lib_layerdiffuse.webui.jobs.networks.is_roomy"


@pytest.fixture
def merges(monkeypatch) -> list[str]:
    """Grows with each parameter that is merged."""
    done = []

    def count(owner: object, name: str) -> None:
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *inputs: done.append(name) or original(*inputs))

    count(merging, "_merged_parameter")
    count(sharing_unit.Prepared, "_merged_weight")
    monkeypatch.setattr(ROOMY, lambda device: True)
    return done


def layer(webui: object, method: str) -> object:
    """One small job."""
    row = find_method(method)
    return run(webui, layer_of(row), batch_size=len(row.frames), steps=2)


def webui_for(make_webui, flavour: str, method: str) -> object:
    webui = make_webui(flavour, find_method(method).base)
    webui.runners[False].ours.networks.forget_merged()  # of a test before, with the same weights
    return webui


@pytest.mark.parametrize("method", METHODS)
def test_the_second_picture_merges_nothing(make_webui, flavour, method, merges) -> None:
    webui = webui_for(make_webui, flavour, method)
    first, state = layer(webui, method), Snapshot.of(webui)
    assert first.error is None and merges
    merges.clear()
    second = layer(webui, method)
    assert merges == [] and same_pictures(first, second) and not webui.errors
    state.check(webui)


@pytest.mark.parametrize("method", METHODS)
def test_where_memory_is_short_all_of_it_is_freed(make_webui, flavour, method, merges, monkeypatch) -> None:
    monkeypatch.setattr(ROOMY, lambda device: False)
    webui = webui_for(make_webui, flavour, method)
    first = layer(webui, method)
    assert not kept_bytes(webui)
    merges.clear()
    assert same_pictures(first, layer(webui, method)) and merges


@pytest.mark.parametrize("method", METHODS)
def test_a_job_without_us_frees_it(make_webui, flavour, method, merges) -> None:
    webui = webui_for(make_webui, flavour, method)
    before = plainly(webui)
    layer(webui, method)
    assert kept_bytes(webui)
    assert same_pictures(run(webui, steps=1), before) and not kept_bytes(webui)


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_were_edited_in_between_are_merged_anew(make_webui, flavour, method, merges) -> None:
    webui = webui_for(make_webui, flavour, method)
    first = layer(webui, method)
    weights = [parameter for name, parameter in networks_of(webui)["unet"].named_parameters() if "to_k" in name]
    with torch.no_grad():
        for weight in weights:
            weight.mul_(1.5)
    edited = layer(webui, method)
    webui.runners[False].ours.networks.forget_merged()
    assert same_pictures(edited, layer(webui, method))
    assert not all(np.array_equal(a, b) for a, b in zip(first.arrays, edited.arrays, strict=True))


def test_forge_11_units_are_made_ready_once(make_webui, flavour, merges) -> None:
    """The existing extension builds them anew at every pass and keeps whole weight files in memory."""
    webui = webui_for(make_webui, flavour, "sd15_joint")
    run(webui, {"method": "sd15_joint"}, batch_size=3, steps=3, n_iter=2)
    assert len(merges) == 32 * 4


def kept_bytes(webui: object) -> int:
    """How much is kept beside the weights of the file."""
    kept = webui.runners[False].ours.networks._kept["method"][1]
    if hasattr(kept, "copies"):
        return sum(copy[1].nbytes for copy in kept.copies._kept.values())
    return len(kept._prepared)
