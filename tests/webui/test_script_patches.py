"""Others that change attention where frames share it: by Forge's patches, or by forwards of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes.running import Snapshot, layer_of, networks_of, run
from fakes.scripts import ALWAYS_VISIBLE, Script

from lib_layerdiffuse.core.methods import find_method

METHODS = ("sd15_fg", "sd15_joint", "sd15_fg2bg")
for_methods = pytest.mark.parametrize("method", METHODS)
FIRST = ("input", 1, 0)
ROUNDING = 1e-5  # of the largest value


def patched(webui: Any, patch: Any) -> Any:
    """The WebUI with an extension that patches a clone of the UNet before each pass: `patch(unet)`."""

    class Patching(Script):
        def show(self, is_img2img):
            return ALWAYS_VISIBLE

        def process_before_every_sampling(self, p, **named):
            unet = p.sd_model.forge_objects.unet.clone()
            patch(unet)
            p.sd_model.forge_objects.unet = unet

    webui.extra_scripts = [Patching]
    return webui.reload_ui()


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict) -> torch.Tensor:
    """What the layers do anyway."""
    split = [part.unflatten(-1, (options["n_heads"], -1)).transpose(1, 2) for part in (q, k, v)]
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def difference(outcome: Any, other: Any) -> float:
    """Largest difference of the latents, in units of the largest value."""
    return float((outcome.samples - other.samples).abs().max() / other.samples.abs().max())


def job(webui: Any, method: str, **fields: Any) -> Any:
    """A picture of one step, or what belongs to one."""
    row = find_method(method)
    return run(webui, layer_of(row), batch_size=len(row.frames), steps=1, **fields)


@for_methods
def test_a_patch_in_place_of_self_attention_works_on_the_frames_projections(forge, method) -> None:
    without, rows = job(forge, method), []

    def counting(q, k, v, options):
        rows.append((len(q), options["block"]))
        return attention(q, k, v, options)

    state = Snapshot.of(forge)
    patched(forge, lambda unet: unet.replace_attention(counting, "attn1"))
    same = job(forge, method)
    assert difference(same, without) < ROUNDING and not same.note and not forge.errors
    assert len({block for _, block in rows}) == 16 and {count for count, _ in rows} == {2 * len(same.pictures)}
    state.check(forge)


@for_methods
def test_guidance_that_takes_the_values_for_the_attention_has_its_effect(forge, method) -> None:
    without = job(forge, method)
    patched(forge, lambda unet: unet.replace_attention(lambda q, k, v, options: v, "attn1", FIRST))
    outcome = job(forge, method)
    assert difference(outcome, without) > ROUNDING and outcome.error is None and not outcome.note and not forge.errors


def test_attention_across_a_batch_sees_rows_in_the_webuis_order(forge) -> None:
    seen = []

    def aligned(q, k, v, options):
        parts = zip(*(part.chunk(len(options["cond_or_uncond"])) for part in (q, k, v)), strict=True)
        seen.append(len(options["cond_or_uncond"]))
        joined = ([part.flatten(0, 1)[None] for part in chunk] for chunk in parts)
        return torch.cat([attention(*chunk, options)[0].view(-1, *q.shape[1:]) for chunk in joined])

    alone, together = (job(forge, method) for method in ("sd15_fg", "sd15_joint"))
    patched(forge, lambda unet: unet.replace_attention(aligned, "attn1"))
    assert difference(job(forge, "sd15_fg"), alone) < ROUNDING and seen  # one picture is aligned with itself
    assert difference(job(forge, "sd15_joint"), together) > ROUNDING and not forge.errors


def test_a_patch_before_self_attention_that_leaves_the_tokens_is_no_merging(forge) -> None:
    without, calls = job(forge, "sd15_joint"), []

    def doubled(seen, keys, values, options):
        calls.append(options["block"])
        return seen, torch.cat([keys, keys], 1), torch.cat([values, values], 1)

    patched(forge, lambda unet: unet.set_model_patch(doubled, "attn1_patch"))
    outcome = job(forge, "sd15_joint")
    assert (
        len(set(calls)) == 16 and difference(outcome, without) < ROUNDING and not forge.errors
    )  # each key twice: the same


def test_values_of_their_own_are_used(forge) -> None:
    without = job(forge, "sd15_fg")
    patched(
        forge, lambda unet: unet.set_model_patch(lambda seen, keys, values, _o: (seen, keys, -values), "attn2_patch")
    )
    outcome = job(forge, "sd15_fg")
    assert difference(outcome, without) > ROUNDING and not outcome.note and not forge.errors


def regions(unet: Any, weights: tuple[float, ...]) -> None:
    """Conditional rows once for each region, whose results are mixed; an odd number of rows is filled up by one."""

    def before(seen, keys, values, options):
        parts = []
        for source in (seen, keys):
            chunks = source.chunk(len(options["cond_or_uncond"]))
            marked = zip(chunks, options["cond_or_uncond"], strict=True)
            rows = torch.cat([chunk if mark else chunk.repeat(len(weights), 1, 1) for chunk, mark in marked])
            parts.append(F.pad(rows, (0, 0, 0, 0, 0, len(rows) % 2)))
        return parts[0], parts[1], parts[1]

    def behind(attended, options):
        marks, results, start = options["cond_or_uncond"], [], 0
        size = len(attended) // sum(1 if mark else len(weights) for mark in marks)
        for mark in marks:
            many = 1 if mark else len(weights)
            part = attended[start : start + many * size].unflatten(0, (many, size))
            start += many * size
            results.append(part[0] if mark else sum(w * rows for w, rows in zip(weights, part, strict=True)))
        return torch.cat(results)

    unet.set_model_patch(before, "attn2_patch")
    unet.set_model_patch(behind, "attn2_output_patch")


@for_methods
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.25, 0.25, 0.5)])
def test_regional_prompts_add_rows_to_cross_attention(forge, method, weights) -> None:
    without = job(forge, method)
    patched(forge, lambda unet: regions(unet, weights))
    outcome = job(forge, method)
    assert outcome.error is None and not outcome.note and not forge.errors
    assert difference(outcome, without) < ROUNDING  # the same prompt in all regions


@pytest.mark.parametrize(("extra", "told"), [("two cats", True), ("", False)])
def test_regional_prompts_are_told_beside_extra_prompts(forge, extra, told) -> None:
    patched(forge, lambda unet: regions(unet, (0.5, 0.5)))
    row = find_method("sd15_joint")
    outcome = run(forge, layer_of(row, bg_additional_prompt=extra), batch_size=3, steps=1)
    assert outcome.error is None and not forge.errors
    assert (f"beside {__name__}" in (outcome.note or "")) == told


@pytest.mark.parametrize("method", ["sd15_joint", "sd15_fg2bg"])
def test_cross_attention_by_another_extensions_forward_is_added(a1111, method) -> None:
    without = job(a1111, method)
    unet, calls = networks_of(a1111)["unet"], []
    for name, module in unet.named_modules():
        if name.endswith("attn2"):

            def forward(x, context=None, *others, _module=module, **named):
                calls.append(context.shape)
                return type(_module).forward(_module, x, context * 0.5, *others, **named)

            module.forward = forward
    outcome = job(a1111, method)
    assert difference(outcome, without) > ROUNDING and calls and not outcome.note and not a1111.errors


@pytest.mark.parametrize("method", ["sd15_fg", "xl_fg_attn"])
def test_self_attention_by_another_extensions_forward_is_told_where_it_has_no_effect(make_webui, method) -> None:
    webui = make_webui("a1111", find_method(method).base)
    for name, module in networks_of(webui)["unet"].named_modules():
        if name.endswith("attn1"):
            module.forward = module.forward.__get__(module)
    assert not job(webui, method).note  # its own
    for name, module in networks_of(webui)["unet"].named_modules():
        if name.endswith("attn1"):
            module.forward = lambda *inputs, _module=module, **named: type(_module).forward(_module, *inputs, **named)
    outcome = job(webui, method)
    told = f"self-attention by {__name__}"
    assert (told in (outcome.note or "")) == (method == "sd15_fg") and outcome.error is None
    assert np.ptp(outcome.arrays[0][..., 3]) > 0
