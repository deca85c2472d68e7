"""The test bench itself: the WebUI starts, plain jobs repeat to the bit, the made-up files suit their readers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from checkpoints import SUFFIX
from client import same

from lib_layerdiffuse.core.codec.decoder import TransparencyUNet
from lib_layerdiffuse.core.codec.encoder import OffsetEncoder
from lib_layerdiffuse.core.files.weights import WeightFile
from lib_layerdiffuse.core.methods import ATTENTION_SHARING, BASES, METHODS, Method
from lib_layerdiffuse.core.offsets.offsets import read_offsets
from lib_layerdiffuse.core.sharing.attention_sharing import AttentionSharing


def read_network(kind: type, path: Path) -> object:
    with WeightFile(path) as file:
        return kind.from_state_dict(file.tensors())


def reader(method: Method, unet: dict) -> Callable[[Path], object]:
    """What reads the weights of a method, checked against a UNet's parameters."""
    if method.kind == ATTENTION_SHARING:
        return partial(AttentionSharing.from_file, method=method)
    return partial(read_offsets, parameters=unet)


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_the_layer_files_are_what_their_readers_want(webui, base):
    if base not in webui.checkpoints:
        pytest.skip(f"no {base} checkpoint")
    unet = webui.checkpoints[base].unet
    row = BASES[base]
    jobs = {m.weights: reader(m, unet) for m in METHODS if m.base == base}
    jobs |= {row.encoder: partial(read_network, OffsetEncoder), row.decoder: partial(read_network, TransparencyUNet)}
    for stem, read in jobs.items():
        read(webui.layer_models / f"{stem}{SUFFIX}")


@pytest.mark.parametrize("base", ["sd15", "sdxl", "demo"])
def test_plain_jobs_repeat_to_the_bit_and_depend_on_the_seed(host):
    first, second, other = host.plain(), host.plain(), host.txt2img(seed=8).images[0]
    assert first.mode == "RGB"
    assert same(first, second) and not same(first, other)


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_the_users_lora_has_an_effect(host):
    assert not same(host.plain(), host.txt2img(prompt=f"a red apple {host.lora}").images[0])
