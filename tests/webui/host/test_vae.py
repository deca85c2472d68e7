"""The posterior met at quant_conv, and encodings that are its mean."""

from __future__ import annotations

import pytest
import torch
from fakes.networks import SCALE_FACTOR
from fakes.running import Snapshot, networks_of

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.webui.host.host import host_of
from lib_layerdiffuse.webui.host.vae import adjusted_posterior, mean_encoding

IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("base", SCALE_FACTOR)
def test_the_mean_in_the_samplers_scale(make_webui, flavour, base) -> None:
    webui = make_webui(flavour, base)
    state, host = Snapshot.of(webui), host_of(webui.sd_model)
    with torch.no_grad():
        wanted = networks_of(webui)["vae"].encode(IMAGE).mean * SCALE_FACTOR[base]
    found = host.encode_mean(IMAGE)
    assert torch.allclose(found, wanted, atol=1e-6) and torch.allclose(found, host.encode_mean(IMAGE), atol=1e-6)
    state.check(webui)


@torch.no_grad()
def test_mean_and_deviation_are_those_of_the_posterior(sd15) -> None:
    vae, seen = networks_of(sd15)["vae"], []
    posterior = vae.encode(IMAGE)

    def adjust(mean, deviation):
        seen.append((mean, deviation))
        return mean + 2 * deviation

    with adjusted_posterior(vae, adjust):
        inside = vae.encode(IMAGE)
    ((mean, deviation),) = seen
    assert torch.equal(mean, posterior.mean) and torch.allclose(deviation, posterior.std)
    assert torch.allclose(inside.mode(), posterior.mean + 2 * posterior.std)
    assert torch.allclose(inside.sample(), inside.mode(), atol=1e-5)
    assert torch.equal(vae.encode(IMAGE).mean, posterior.mean)


def test_an_exception_inside(sd15) -> None:
    state = Snapshot.of(sd15)
    with pytest.raises(KeyError), mean_encoding(networks_of(sd15)["vae"]):
        raise KeyError
    state.check(sd15)


def test_a_vae_without_the_layer() -> None:
    with pytest.raises(InputError, match="encoder"), mean_encoding(torch.nn.Identity()):
        pass


def test_half_precision_stays_half(sd15) -> None:
    vae = networks_of(sd15)["vae"]
    moments = torch.randn(1, 8, 4, 4).bfloat16()  # torch 2.1 has no float16 convolution without a GPU
    vae.quant_conv.bfloat16()
    with torch.no_grad(), mean_encoding(vae):
        found = vae.quant_conv(moments)
    vae.quant_conv.float()
    assert found.dtype == torch.bfloat16 and (found[:, 4:] == -30).all()
