"""Attention sharing: golden numbers at full width, and its behaviour on a whole set of small layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from rule import file_value, randn_for, value
from safetensors.torch import load_file, save_file
from small_attention import CONTEXT, WIDTHS, CrossAttention, run_layers, same, small_layers, small_state

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError, WeightsError
from lib_layerdiffuse.core.files.layouts import (
    CONTROL_PREFIX,
    SHARING_PREFIX,
    expected_keys,
    unit_paths,
)
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.core.sharing.attention_sharing import AttentionSharing, SharingRun, install
from lib_layerdiffuse.core.sharing.control_encoder import ControlEncoder
from lib_layerdiffuse.core.sharing.sharing_unit import SharingUnit

GOLDEN_FOLDER = Path(__file__).parents[2] / "data/golden"
GOLDEN = load_file(GOLDEN_FOLDER / "attention_sharing.safetensors")  # every fourth token


@dataclass(frozen=True)
class Case:
    """How one golden tensor was made."""

    stem: str
    unit: int
    size: tuple[int, int]
    groups: int
    frames: int = 1
    conditional_first: bool = True
    overwrite: tuple[int, ...] = ()


CASES = {
    "f1_self": Case("layer_sd15_transparent_attn", 0, (8, 8), 2),
    "f1_cross": Case("layer_sd15_transparent_attn", 1, (8, 8), 2),
    "f1_mid_self": Case("layer_sd15_transparent_attn", 30, (2, 3), 2),
    "f3_self": Case("layer_sd15_joint", 0, (8, 8), 2, 3),
    "f3_cross_all": Case("layer_sd15_joint", 1, (8, 8), 2, 3, False, (1, 1, 1)),
    "f3_cross_partial": Case("layer_sd15_joint", 1, (8, 8), 2, 3, False, (1, 0, 1)),
    "f3_cross_b2": Case("layer_sd15_joint", 1, (4, 6), 4, 3, True, (0, 1, 1)),
    "f2c_self": Case("layer_sd15_fg2bg", 0, (8, 8), 2, 2),
    "f2c_cross": Case("layer_sd15_fg2bg", 1, (8, 8), 2, 2, False, (1, 0)),
    "f2c_mid_cross": Case("layer_sd15_bg2fg", 31, (2, 3), 2, 2, True, (1, 1)),
}


def row_map(groups: int, frames: int, conditional_first: bool = True) -> list[str]:
    """Half of the rows conditional."""
    half = groups // 2 * frames
    return ["cond"] * half + ["uncond"] * half if conditional_first else ["uncond"] * half + ["cond"] * half


def golden_unit(case: Case) -> SharingUnit:
    """The unit with made-up weights."""
    prefix = f"{SHARING_PREFIX}{case.unit}."
    layout = {key: shape for key, shape in expected_keys(case.stem).items() if key.startswith(prefix)}
    tensors = {key.removeprefix(prefix): file_value(case.stem, key, shape) for key, shape in layout.items()}
    return SharingUnit(tensors, case.frames, "control_convs.0.0.weight" in tensors)


def golden_layer(case: Case, unit: SharingUnit) -> CrossAttention:
    """The attention layer of the made-up checkpoint."""
    layer = CrossAttention(unit.width, unit.context_width)
    path = unit_paths()[case.unit]
    for name, parameter in layer.named_parameters():
        parameter.data = value(f"model.diffusion_model.{path}.{name}", parameter.shape).half().float()
    return layer.requires_grad_(False)


@pytest.mark.parametrize("merging", [True, False])
@pytest.mark.parametrize("name", sorted(CASES))
def test_golden(name, merging):
    case = CASES[name]
    unit = golden_unit(case)
    layer, tokens, rows = golden_layer(case, unit), case.size[0] * case.size[1], case.groups * case.frames
    hidden = randn_for(f"golden/attn/{name}/h", (rows, tokens, unit.width))
    context = randn_for(f"golden/attn/{name}/context", (rows, 77, 768)) if case.unit % 2 else None
    run = SharingRun(
        overrides=[
            randn_for(f"golden/attn/{name}/overwrite{frame}", (1, 77, 768)) if wanted else None
            for frame, wanted in enumerate(case.overwrite)
        ],
        signals={tokens: randn_for(f"golden/attn/{name}/control", (1, 256, *case.size))} if unit.control else {},
        rows=row_map(case.groups, case.frames, case.conditional_first),
        merging=merging,
    )
    with install(AttentionSharing([unit]), [layer], run):
        got = layer(hidden, context=context)
    assert got.shape == hidden.shape
    assert (got[:, ::4] - GOLDEN[name]).abs().max() <= 2e-4


def test_golden_control_encoder():
    stem = "layer_sd15_fg2bg"
    layout = {key: shape for key, shape in expected_keys(stem).items() if key.startswith(CONTROL_PREFIX)}
    state = {key.removeprefix(CONTROL_PREFIX): file_value(stem, key, shape).float() for key, shape in layout.items()}
    encoder = ControlEncoder.from_state_dict(state)
    golden = load_file(GOLDEN_FOLDER / "control_encoder.safetensors")
    seen = set()
    for size in ((64, 64), (64, 128), (72, 104)):
        text = f"{size[0]}x{size[1]}"
        image = torch.sigmoid(randn_for(f"golden/condenc/in/{text}", (1, 3, *size))) * 2 - 1
        for tokens, signal in encoder(image).items():
            expected = golden[f"{text}/{tokens}"]
            seen.add(f"{text}/{tokens}")
            assert signal.shape == expected.shape
            assert torch.allclose(signal, expected.float(), atol=2e-3, rtol=1e-3)  # stored as float16
    assert seen == set(golden)


# ---- a whole set of small layers -------------------------------------------------------------------------------------


def signals() -> dict[int, torch.Tensor]:
    return {12: randn_for("signal", (1, 256, 3, 4))}


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_ldm_and_diffusers_layers_give_the_same(frames):
    sharing = AttentionSharing.from_state_dict(small_state(frames))
    results = []
    for kind in ("ldm", "diffusers"):
        layers = small_layers(kind)
        with install(sharing, layers, SharingRun()):
            results.append(run_layers(layers, 2 * frames))
        plain = run_layers(layers, 2 * frames)
        assert not same(plain, results[-1])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
@pytest.mark.parametrize("kind", ["ldm", "diffusers"])
def test_issue_70_plain_again_after_removal_and_after_exceptions(kind, error):
    layers = small_layers(kind)

    def earlier(*inputs, **named):  # another extension's instance forward
        return 2 * type(layers[1]).forward(layers[1], *inputs, **named)

    layers[1].forward = earlier
    plain, before = run_layers(layers, 3), [dict(layer.__dict__) for layer in layers]
    try:
        with install(AttentionSharing.from_state_dict(small_state(3)), layers, SharingRun()):
            assert not same(run_layers(layers, 3), plain)
            if error:
                raise error("in the middle of a run")
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert [dict(layer.__dict__) for layer in layers] == before
    assert layers[1].forward is earlier
    assert same(run_layers(layers, 3), plain)


def test_a_wrapper_put_on_top_survives_the_removal():
    layers = small_layers()
    plain = run_layers(layers, 2)
    installation = install(AttentionSharing.from_state_dict(small_state(2)), layers, SharingRun())
    inner, calls = layers[0].forward, []

    def wrapper(*inputs, **named):
        calls.append(1)
        return inner(*inputs, **named)

    layers[0].forward = wrapper
    installation.remove()
    assert layers[0].forward is wrapper
    assert same(run_layers(layers, 2), plain) and calls


@pytest.mark.parametrize("kind", ["ldm", "diffusers"])
def test_stop_at_is_the_plain_unet_bit_for_bit(kind):
    layers, run = small_layers(kind), SharingRun()
    plain = run_layers(layers, 2)
    with install(AttentionSharing.from_state_dict(small_state(2)), layers, run):
        shared = run_layers(layers, 2)
        run.active = False
        assert same(run_layers(layers, 2), plain)
        run.active = True
        assert same(run_layers(layers, 2), shared)


def test_weight_scales_the_sd15_methods_too():
    """0 is the plain UNet bit for bit, small weights are near it, 1 is the full result."""
    layers, sharing = small_layers(), AttentionSharing.from_state_dict(small_state(2, control=True))
    plain, distances = run_layers(layers, 2), {}
    for strength in (0.0, 0.01, 0.5, 1.0):
        with install(sharing, layers, SharingRun(signals=signals()), strength):
            got = run_layers(layers, 2)
        distances[strength] = max((a - b).abs().max().item() for a, b in zip(got, plain, strict=True))
    assert distances[0.0] == 0
    assert 0 < distances[0.01] < 0.1 * distances[0.5] < 0.1 * distances[1.0] * 2


def test_frames_of_a_group_see_each_other_and_groups_do_not():
    layers = small_layers()
    sharing = AttentionSharing.from_state_dict(small_state(3))
    hidden = torch.randn(6, 12, WIDTHS[0])
    changed = hidden.clone()
    changed[4] += 1  # group 1, frame 1
    with install(sharing, layers, SharingRun()):
        difference = (layers[0](changed) - layers[0](hidden)).abs().amax((1, 2))
    assert (difference[:3] == 0).all() and (difference[3:] > 0).all()


@pytest.mark.parametrize("rows", [1, 2, 4, 7])
def test_issue_3_batch_that_the_frames_do_not_divide(rows):
    layers = small_layers()
    shared = install(AttentionSharing.from_state_dict(small_state(3)), layers, SharingRun())
    with shared, pytest.raises(InputError, match=f"batch of {rows} rows.*multiple of 3"):
        run_layers(layers, rows)


def test_extra_prompt_replaces_conditional_rows_only_and_may_be_longer():
    layers = small_layers()
    sharing = AttentionSharing.from_state_dict(small_state(2))
    hidden, context = torch.randn(4, 12, WIDTHS[0]), torch.randn(4, 7, CONTEXT)
    own = torch.randn(1, 14, CONTEXT)
    run = SharingRun(overrides=[None, own], rows=["uncond", "uncond", "cond", "cond"])
    with install(sharing, layers, run):
        got = layers[1](hidden, context)
        run.overrides = ()
        without = layers[1](hidden, context)
        # what it must be: row 3 sees its own text, and nothing of the shorter one
        alone = layers[1](hidden[2:], torch.cat([context[2:3].repeat(1, 2, 1), own]))
    assert torch.allclose(got[:2], without[:2], atol=1e-6)
    assert torch.allclose(got[2:], alone, atol=1e-5)  # a context twice over attends as once
    assert not torch.allclose(got[2:], without[2:], atol=1e-2)


def test_extra_prompts_need_the_row_map_of_this_call():
    layers = small_layers()
    run = SharingRun(overrides=[None, torch.randn(1, 7, CONTEXT)])
    sharing = AttentionSharing.from_state_dict(small_state(2))
    with install(sharing, layers, run):
        for rows in (None, ["cond", "cond"], ["cond", "cond", "other", "uncond"]):
            run.rows = rows
            with pytest.raises(InputError, match="row map"):
                run_layers(layers, 4)
    with pytest.raises(InputError, match="one per frame"):
        install(sharing, layers, SharingRun(overrides=[None]))


def test_issue_123_control_per_picture_in_any_batch_and_any_split():
    """Two pictures, CFG in one call, then in calls of their own by `groups`."""
    layers = small_layers()
    sharing = AttentionSharing.from_state_dict(small_state(2, control=True))
    run = SharingRun(signals={12: randn_for("two", (2, 256, 3, 4))})
    hidden = torch.randn(8, 12, WIDTHS[0])
    with install(sharing, layers, run):
        whole = layers[0](hidden)
        run.groups = [1]
        second = layers[0](hidden[2:4])
        run.groups = None
        with pytest.raises(InputError, match="multiple of 2"):
            layers[0](hidden[:6])
    assert torch.allclose(whole[2:4], second, atol=1e-6)


def test_control_follows_the_signals_of_the_run():
    layers = small_layers()
    sharing, hidden = AttentionSharing.from_state_dict(small_state(1, control=True)), torch.randn(1, 12, WIDTHS[0])
    run = SharingRun(signals=signals())
    with install(sharing, layers, run):
        first = layers[0](hidden)
        run.signals = {12: 1 + signals()[12]}
        assert not torch.equal(layers[0](hidden), first)
        run.signals = {99: signals()[12]}
        with pytest.raises(InputError, match=r"13 tokens.*99"):
            layers[0](torch.randn(1, 13, WIDTHS[0]))


def test_a_user_lora_in_the_projections_goes_on_working():
    """Forge's first failure: a LoRA on attention together with an SD1.5 method."""
    layers = small_layers()
    sharing, hidden = AttentionSharing.from_state_dict(small_state(1)), torch.randn(1, 12, WIDTHS[0])
    with install(sharing, layers, SharingRun()):
        before = layers[0](hidden)
        handle = layers[0].to_v.register_forward_hook(lambda module, inputs, output: output + 1)
        assert not torch.allclose(layers[0](hidden), before, atol=1e-3)
        handle.remove()
        assert torch.equal(layers[0](hidden), before)


def test_units_are_made_ready_once_and_for_each_dtype():
    layers, sharing = small_layers(), AttentionSharing.from_state_dict(small_state(2))
    with install(sharing, layers, SharingRun()):
        full = run_layers(layers, 2)
        ready = [sharing.prepared(index, 1.0, full[index]) for index in range(4)]
        run_layers(layers, 2)
        assert all(sharing.prepared(index, 1.0, full[index]) is ready[index] for index in range(4))
        half = layers[0].bfloat16()(torch.randn(2, 12, WIDTHS[0]).bfloat16())
        assert half.dtype == torch.bfloat16
    sharing.release()
    assert sharing.prepared(0, 1.0, full[0]) is not ready[0]


def test_issue_133_another_base_is_refused_before_anything_is_touched():
    sharing = AttentionSharing.from_state_dict(small_state(1))
    layers = small_layers()
    with pytest.raises(BaseMismatchError, match="3 attention layers"):
        install(sharing, layers[:3], SharingRun())
    wider = [*layers[:3], CrossAttention(32, 99)]
    with pytest.raises(BaseMismatchError, match=r"\(32, 99\)"):
        install(sharing, wider, SharingRun())
    assert not any("forward" in layer.__dict__ for layer in layers)


def test_files_are_read_and_wrong_ones_refused(tmp_path):
    path = tmp_path / "layer_sd15_joint.safetensors"
    state = small_state(3)
    save_file(state, path)
    assert AttentionSharing.from_file(path, find_method("sd15_joint")).frames == 3
    with pytest.raises(WeightsError, match=r"3 frames.*sd15_fg"):
        AttentionSharing.from_file(path, find_method("sd15_fg"))
    del state[f"{SHARING_PREFIX}2.temporal_q.bias"]
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"2.temporal_q.bias"):
        AttentionSharing.from_file(path)
    save_file({"diffusion_model.a.weight::diff::0": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="no attention sharing units"):
        AttentionSharing.from_file(path)


def test_signals_of_a_control_image(tmp_path):
    sharing = AttentionSharing.from_state_dict({key: t.half() for key, t in small_state(2, control=True).items()})
    signals = sharing.signals(torch.zeros(1, 3, 64, 96))
    assert sorted(signals) == [2, 6, 24, 96]
    with pytest.raises(InputError, match="no control encoder"):
        AttentionSharing.from_state_dict(small_state(2)).signals(torch.zeros(1, 3, 64, 64))
