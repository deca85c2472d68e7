from __future__ import annotations

import gzip
import json

import pytest
import torch
from rule import decoder_inputs
from safetensors.torch import load_file

from lib_layerdiffuse.core.codec.decoder import TransparencyUNet, decoder_shape
from lib_layerdiffuse.core.errors import InputError, WeightsError

SMALL = {"channels": (8, 16, 16), "latent_level": 2, "attention_levels": 1, "layers": 1}


def test_keys_and_shapes_are_the_published_ones(golden):
    manifest = json.loads(gzip.decompress((golden / "manifest_decoder.json.gz").read_bytes()))
    with torch.device("meta"):
        network = TransparencyUNet()
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == manifest


@pytest.mark.parametrize(("size", "file", "step"), [
    ((128, 128), "decoder_128x128", 1),
    ((192, 320), "decoder_192x320_every_third", 3),
], ids=["128x128", "192x320"])  # fmt: skip
def test_golden_single_pass(golden, published_decoder, size, file, step):
    pixel, latent = decoder_inputs(*size)
    with torch.no_grad():
        argb = published_decoder(pixel, latent)[:, :, ::step, ::step]
    torch.testing.assert_close(argb, load_file(golden / f"{file}.safetensors")["single"], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "shape",
    [
        SMALL,
        {
            "channels": (16, 24, 32, 48, 64),
            "latent_channels": 16,
            "latent_level": 3,
            "attention_levels": 2,
            "layers": 1,
        },
        {"channels": (4, 8), "latent_channels": 1, "latent_level": 1, "attention_levels": 0, "layers": 3},
    ],
    ids=lambda shape: "-".join(map(str, shape["channels"])),
)
def test_other_shapes_are_read_from_the_weights(shape):
    network = TransparencyUNet(**shape)
    state = {key: value.half() for key, value in network.state_dict().items()}
    assert decoder_shape(state) == {"latent_channels": 4, **shape}
    copy = TransparencyUNet.from_state_dict(state)
    size = 2 * copy.multiple
    pixel, latent = torch.rand(2, 3, size, size), torch.randn(2, copy.latent_channels, *[size // copy.factor] * 2)
    result = copy(pixel, latent)
    assert result.shape == (2, 4, size, size) and result.dtype == torch.float32
    torch.testing.assert_close(result, network(pixel, latent), atol=2e-2, rtol=2e-2)


def test_equal_widths_leave_the_latent_level_open_until_it_is_named():
    state = TransparencyUNet((8, 8, 8, 8, 8), latent_level=2, attention_levels=0, layers=1).state_dict()
    assert decoder_shape(state)["latent_level"] == 3
    assert TransparencyUNet.from_state_dict(state, latent_level=2).factor == 4
    with pytest.raises(WeightsError, match="latent_conv_in"):
        decoder_shape(state, latent_level=5)


def test_an_untrained_decoder_ignores_the_latent_and_learns_to_use_it():
    network = TransparencyUNet(**SMALL)
    pixel, latent = torch.rand(1, 3, 16, 16), torch.randn(1, 4, 4, 4, requires_grad=True)
    first = network(pixel, latent)
    torch.testing.assert_close(first, network(pixel, torch.zeros(1, 4, 4, 4)))
    first.square().mean().backward()
    assert network.latent_conv_in.weight.grad.abs().sum() > 0
    torch.nn.init.normal_(network.latent_conv_in.weight)
    network(pixel, latent).square().mean().backward()
    assert latent.grad.abs().sum() > 0


def test_foreign_and_truncated_weights_are_named():
    state = TransparencyUNet(**SMALL).state_dict()
    with pytest.raises(WeightsError, match="it is empty"):
        TransparencyUNet.from_state_dict({})
    with pytest.raises(WeightsError, match=r"conv_in.weight"):
        TransparencyUNet.from_state_dict({"blocks.0.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"missing \(1\): mid_block.attentions.0.to_q.bias"):
        TransparencyUNet.from_state_dict({k: v for k, v in state.items() if k != "mid_block.attentions.0.to_q.bias"})
    with pytest.raises(WeightsError, match=r"wrong shape \(1\): conv_out.bias \[3\] instead of \[4\]"):
        TransparencyUNet.from_state_dict({**state, "conv_out.bias": torch.zeros(3)})
    half = dict(list(state.items())[: len(state) // 2])
    with pytest.raises(WeightsError, match="missing"):
        TransparencyUNet.from_state_dict(half)


@pytest.mark.parametrize(
    "shape",
    [{"channels": (6, 8)}, {"channels": (8, 12), "attention_levels": 1}, {"channels": (8, 8), "latent_level": 2}],
)
def test_impossible_shapes(shape):
    with pytest.raises(InputError, match="shape of the decoder"):
        TransparencyUNet(**{"latent_level": 1, "attention_levels": 0, **shape})


def test_the_network_itself_names_the_sizes_that_it_takes():
    network = TransparencyUNet(**SMALL)
    with pytest.raises(InputError, match=r"multiples of 4.*TransparencyDecoder"):
        network(torch.rand(1, 3, 18, 16), torch.rand(1, 4, 5, 4))
    with pytest.raises(InputError, match=r"\[1, 4, 4, 4\]"):
        network(torch.rand(1, 3, 16, 16), torch.rand(1, 4, 2, 2))
