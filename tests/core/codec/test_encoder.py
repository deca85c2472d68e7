from __future__ import annotations

import pytest
import torch
from rule import file_state, randn_for
from safetensors.torch import load_file

from lib_layerdiffuse.core.codec.encoder import OffsetEncoder, encoder_shape, widths_for_factor
from lib_layerdiffuse.core.errors import InputError, WeightsError

STEM = "layer_sd15_vae_transparent_encoder"
PUBLISHED = {
    0: [32, 4], 2: [32, 32], 4: [64, 32], 6: [64, 64], 8: [128, 64],
    10: [128, 128], 12: [256, 128], 14: [256, 256], 16: [4, 256],
}  # fmt: skip
SHAPES = {f"blocks.{n}.weight": [*widths, 3, 3] for n, widths in PUBLISHED.items()} | {
    f"blocks.{n}.bias": widths[:1] for n, widths in PUBLISHED.items()
}


def test_keys_and_shapes_are_the_published_ones():
    assert {key: list(value.shape) for key, value in OffsetEncoder().state_dict().items()} == SHAPES


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (72, 104)], ids=str)
def test_golden(golden, size):
    encoder = OffsetEncoder.from_state_dict(file_state(STEM, SHAPES))
    name = f"{size[0]}x{size[1]}"
    argb = torch.sigmoid(randn_for(f"golden/encoder/in/{name}", (1, 4, *size)))
    torch.testing.assert_close(
        encoder(argb), load_file(golden / "encoder.safetensors")[f"raw_{name}"], atol=2e-4, rtol=1e-4
    )


@pytest.mark.parametrize(("widths", "channels"), [((16, 32, 64, 64), 4), ((8, 16), 16), ((8, 8, 16, 16, 32), 1)])
def test_other_shapes_are_read_from_the_weights(widths, channels):
    encoder = OffsetEncoder(widths, channels)
    torch.nn.init.normal_(encoder.blocks[-1].weight)
    state = {key: value.half() for key, value in encoder.state_dict().items()}
    copy = OffsetEncoder.from_state_dict(state)
    assert (copy.widths, copy.latent_channels, copy.factor) == (widths, channels, 2 ** (len(widths) - 1))
    argb = torch.rand(2, 4, 3 * copy.factor, 2 * copy.factor)
    result = copy(argb)
    assert result.shape == (2, channels, 3, 2) and result.dtype == torch.float32
    torch.testing.assert_close(result, encoder(argb), atol=5e-2, rtol=5e-2)


def test_an_untrained_encoder_changes_nothing_and_can_learn():
    encoder = OffsetEncoder((8, 8))
    offset = encoder(torch.rand(1, 4, 8, 8))
    assert not offset.any()
    (offset - 1).square().mean().backward()
    assert encoder.blocks[-1].weight.grad.abs().sum() > 0


def test_loaded_weights_can_be_trained():
    copy = OffsetEncoder.from_state_dict(OffsetEncoder((8, 8)).state_dict())
    copy(torch.rand(1, 4, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in copy.parameters())


def test_foreign_and_truncated_weights_are_named():
    state = OffsetEncoder((8, 8)).state_dict()
    with pytest.raises(WeightsError, match="empty"):
        OffsetEncoder.from_state_dict({})
    with pytest.raises(WeightsError, match=r"missing \(1\): blocks.0.weight; it holds conv_in.weight"):
        OffsetEncoder.from_state_dict({"conv_in.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"missing \(1\): blocks.2.bias"):
        OffsetEncoder.from_state_dict({key: value for key, value in state.items() if key != "blocks.2.bias"})
    with pytest.raises(WeightsError, match=r"unexpected \(1\): stranger"):
        OffsetEncoder.from_state_dict({**state, "stranger": torch.zeros(1)})
    with pytest.raises(
        WeightsError, match=r"wrong shape \(1\): blocks.0.weight \[8, 3, 3, 3\] instead of \[8, 4, 3, 3\]"
    ):
        OffsetEncoder.from_state_dict({**state, "blocks.0.weight": torch.zeros(8, 3, 3, 3)})
    with pytest.raises(WeightsError, match="convolutions"):
        encoder_shape({key: value for key, value in state.items() if not key.startswith("blocks.8")})


def test_widths_for_a_vae_of_any_factor():
    assert widths_for_factor(8) == (32, 64, 128, 256)
    assert widths_for_factor(16, first=16, largest=64) == (16, 32, 64, 64, 64)
    with pytest.raises(InputError, match="power of two"):
        widths_for_factor(6)


def test_rgb_is_refused():
    with pytest.raises(InputError, match="alpha"):
        OffsetEncoder((8, 8))(torch.rand(1, 3, 8, 8))
