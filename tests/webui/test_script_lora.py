"""A user's Lora before, with and after a method, in any order: nothing is lost, nothing stays."""

from __future__ import annotations

import pytest
import torch
from fakes.running import Snapshot, layer_of, load, plainly, raising, run

from lib_layerdiffuse.core.methods import find_method

WITH_LORA = "a red apple <lora:style:1>"
KINDS = {"plain": (False, False), "lora": (False, True), "method": (True, False), "both": (True, True)}
ORDER = ("lora", "both", "method", "plain", "both", "lora", "plain", "method")
METHODS = ("sd15_joint", "xl_fg_attn", "xl_bg2blend")


def one(webui, row, kind: str, **fields):
    """A job of one step: with or without the method, with or without the user's Lora."""
    has_method, has_lora = KINDS[kind]
    prompt = WITH_LORA if has_lora else "a red apple"
    fields = {"steps": 1, "prompt": prompt, "batch_size": len(row.frames), **fields}
    outcome = run(webui, layer_of(row) if has_method else None, **fields)
    assert outcome.error is None and not webui.errors
    return outcome.samples


@pytest.mark.parametrize("method", METHODS)
def test_lora_in_any_order(make_webui, flavour, method) -> None:
    row = find_method(method)
    webui = make_webui(flavour, row.base)
    first: dict[str, torch.Tensor] = {}
    for place, kind in enumerate(ORDER):
        samples = one(webui, row, kind)
        assert torch.equal(samples, first.setdefault(kind, samples)), f"{kind} at place {place}"
    pairs = [(left, right) for left in KINDS for right in KINDS if left < right]
    assert not any(torch.equal(first[left], first[right]) for left, right in pairs)


@pytest.mark.parametrize("method", ["sd15_joint", "xl_fg_conv"])
def test_a_first_job_with_both(make_webui, flavour, method) -> None:
    """The Lora's backup is made at the first use of a layer, and must not be of altered weights."""
    row = find_method(method)
    webui = make_webui(flavour, row.base)
    state = Snapshot.of(webui)
    both = one(webui, row, "both")
    one(webui, row, "plain")
    state.check(webui)
    assert torch.equal(one(webui, row, "both"), both)


def test_forge_1_sd15_methods_with_a_lora_on_attention(make_webui) -> None:
    """The existing extension ends in 'Wrong LoRA Key', leaves images wrong, or ignores the Lora."""
    webui, row = make_webui("forge", "sd15"), find_method("sd15_joint")
    plain = one(webui, row, "plain")
    results = [one(webui, row, kind) for kind in ("both", "lora", "method", "both")]
    assert torch.equal(results[0], results[3]) and not torch.equal(results[0], results[2])
    assert torch.equal(one(webui, row, "plain"), plain)


def test_a_lora_only_in_the_second_batch(sd15) -> None:
    row = find_method("sd15_fg")
    first, second = one(sd15, row, "method"), one(sd15, row, "both", seed=12)
    prompts = ["a red apple", WITH_LORA]
    outcome = run(sd15, layer_of(row), prompt=prompts, n_iter=2, steps=1)
    assert torch.equal(outcome.samples, second) and torch.equal(one(sd15, row, "method"), first)


def test_other_strengths_and_other_loras(sd15) -> None:
    row = find_method("sd15_fg")
    prompts = [WITH_LORA, "a red apple <lora:style:0.5>", "a red apple <lora:other:1>", WITH_LORA]
    found = [one(sd15, row, "method", prompt=prompt) for prompt in prompts]
    assert torch.equal(found[0], found[3])
    assert not any(torch.equal(found[0], other) for other in found[1:3])


@pytest.mark.parametrize("method", ["sd15_joint", "xl_fg_conv"])
def test_an_exception_while_both_are_on(make_webui, flavour, method) -> None:
    row = find_method(method)
    webui = make_webui(flavour, row.base)
    plain, state = plainly(webui, batch_size=len(row.frames)).samples, Snapshot.of(webui)
    with raising(webui, RuntimeError("out of memory")), pytest.raises(RuntimeError):
        one(webui, row, "both")
    assert torch.equal(one(webui, row, "plain"), plain)
    state.check(webui)


def test_another_checkpoint_while_both_were_on(make_webui) -> None:
    """AUTOMATIC1111 reads it into the very modules that the Lora altered."""
    webui, row = make_webui("a1111", "sd15"), find_method("sd15_joint")
    plain = one(webui, row, "plain")
    one(webui, row, "both")
    load(webui, "sd15-two")
    other, state = one(webui, row, "plain"), Snapshot.of(webui)
    one(webui, row, "both")
    assert torch.equal(one(webui, row, "plain"), other)
    state.check(webui)
    load(webui, "sd15-one")
    assert torch.equal(one(webui, row, "plain"), plain)
