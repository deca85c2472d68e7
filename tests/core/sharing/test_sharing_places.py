"""Units of any UNet: the order of its attention layers, their depths, and signals of other encoders."""

from __future__ import annotations

import pytest
import tiny
import torch
from rule import value
from small_attention import CONTEXT, WIDTHS, run_layers, same, small_layers

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError, WeightsError
from lib_layerdiffuse.core.files.layouts import SharingShape, control_encoder_layout, sharing_layout, unit_paths
from lib_layerdiffuse.core.sharing.attention_sharing import AttentionSharing, SharingRun, install
from lib_layerdiffuse.core.sharing.control_encoder import ControlEncoder, encoder_widths
from lib_layerdiffuse.core.sharing.places import unit_places
from lib_layerdiffuse.unet.ldm_keys import unet_modules

ENCODER = ((8, 8, 8, 8, 16, 16, 24, 24), (24, 24))
SD15_DEPTHS = (0, 0, 1, 1, 2, 2, 2, 2, 2, 1, 1, 1, 0, 0, 0, 3)


def test_sd15_has_the_published_places():
    places = unit_places(unet_modules(tiny.sd15_unet()))
    assert tuple(place.path for place in places) == unit_paths()
    assert tuple(place.depth for place in places[::2]) == tuple(place.depth for place in places[1::2]) == SD15_DEPTHS


def test_the_demo_layout_has_its_own():
    places = unit_places(unet_modules(tiny.demo_unet()))
    assert [(place.path.split(".transformer")[0], place.depth) for place in places[::2]] == [
        ("input_blocks.3.1", 1),
        ("input_blocks.5.1", 2),
        ("output_blocks.0.1", 2),
        ("output_blocks.1.1", 2),
        ("output_blocks.2.1", 1),
        ("output_blocks.3.1", 1),
        ("middle_block.1", 2),
    ]


def test_several_transformer_blocks_follow_each_other():
    modules = [
        "middle_block.1.transformer_blocks.0.attn1",
        "input_blocks.10.1.transformer_blocks.0.attn2",
        "input_blocks.2.1.transformer_blocks.1.attn1",
        "input_blocks.2.1.transformer_blocks.0.attn2",
        "input_blocks.2.1.transformer_blocks.0.attn1.to_q",
    ]
    found = [place.path for place in unit_places(modules)]
    assert found == [modules[3], modules[2], modules[1], modules[0]]


def small_controlled(encoder=ENCODER) -> AttentionSharing:
    layout = sharing_layout(SharingShape(2, WIDTHS, CONTEXT, 4, True, encoder))
    return AttentionSharing.from_state_dict({key: value(f"small/{key}", shape) for key, shape in layout.items()})


def test_an_encoder_of_other_widths_depths_and_factor():
    sharing = small_controlled()
    assert sharing.control_encoder.depths == 2
    signals = sharing.signals(torch.zeros(1, 3, 64, 64))
    assert {tokens: tuple(signal.shape) for tokens, signal in signals.items()} == {
        64: (1, 24, 8, 8),
        16: (1, 24, 4, 4),
    }
    short = ((8, 8, 16, 16), (16, 16))  # for a VAE of factor 2
    assert encoder_widths(control_encoder_layout(short)) == short
    assert list(ControlEncoder(short)(torch.zeros(1, 3, 16, 16))) == [64, 16]
    with pytest.raises(WeightsError, match="one width for all"):
        small_controlled((ENCODER[0], (16, 16)))


def test_a_layer_finds_the_signal_of_its_depth():
    layers, sharing = small_layers(), small_controlled()
    signals = sharing.signals(torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(0)))
    assert list(signals) == [12, 4]
    results = []
    for depths in ((0, 0, 0, 0), (0, 0, 1, 1), ()):
        run = SharingRun(signals=signals, depths=depths)
        with install(sharing, layers, run):
            if 1 in depths:  # a layer of 12 tokens where there should be 4 sees the coarser signal
                run.signals = {64: signals[12].new_zeros(1, 24, 8, 8), 5: signals[4].new_zeros(1, 24, 1, 5)}
                with pytest.raises(InputError, match="12 tokens"):
                    run_layers(layers, 2)
            else:
                results.append(run_layers(layers, 2))
    assert same(*results)


def test_a_deeper_unet_than_the_encoder_is_refused():
    layers, sharing = small_layers(), small_controlled()
    with pytest.raises(BaseMismatchError, match="3 depths; expected at most 2"):
        install(sharing, layers, SharingRun(depths=(0, 0, 2, 2)))
    assert not any("forward" in layer.__dict__ for layer in layers)
