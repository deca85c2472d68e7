"""What is read from a WebUI: base, networks, scale, engines that stand in for the UNet."""

from __future__ import annotations

import sys
from functools import partial

import pytest
import torch
from fakes.networks import SCALE_FACTOR
from fakes.running import job, networks_of, run
from torch import nn

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.core.offsets.install import merged_bytes
from lib_layerdiffuse.unet.method_kinds import needed_bytes, sharing_layers
from lib_layerdiffuse.webui.host.host import (
    ForgeFamily,
    WebuiHost,
    host_of,
    loaded_base,
    loaded_base_note,
    own_randomness,
    token_merging_off,
)
from lib_layerdiffuse.webui.host.modules import has_module, host_module, option
from lib_layerdiffuse.webui.host.unet_pass import UnetPass


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_a_loaded_model(make_webui, flavour, base) -> None:
    webui = make_webui(flavour, base)
    host = host_of(webui.sd_model)
    assert type(host) is {"a1111": WebuiHost, "forge": ForgeFamily}[flavour]
    assert host.base == loaded_base() == base and loaded_base_note() == ""
    assert host.unet is networks_of(webui)["unet"] and host.vae is networks_of(webui)["vae"]
    assert host.device == torch.device("cpu")
    host.check_unet()


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_latents_lose_the_scale(make_webui, flavour, base) -> None:
    host = host_of(make_webui(flavour, base).sd_model)
    values = host.vae_space(torch.ones(1, 4, 2, 2, dtype=torch.float16), host.base).values
    assert values.dtype == torch.float32 and torch.allclose(values, torch.tensor(1 / SCALE_FACTOR[base]))


def test_the_demo_model_is_known_by_its_scale(make_webui) -> None:
    webui = make_webui("a1111", "sd15")
    webui.sd_model.scale_factor = 1.0
    assert host_of(webui.sd_model).base == "demo"


def test_no_model_yet(make_webui) -> None:
    webui = make_webui("a1111", "sd15")
    webui.engine.model_data.sd_model = None
    assert loaded_base() is None and loaded_base_note() == ""


@pytest.mark.parametrize("flag", ["is_sd2", "is_sd3"])
def test_other_architectures(sd15, flag) -> None:
    setattr(sd15.sd_model, flag, True)
    with pytest.raises(BaseMismatchError, match=flag[3:].upper()):
        _ = host_of(sd15.sd_model).base
    assert loaded_base() is None and flag[3:].upper() in loaded_base_note()


def test_the_refiner_as_the_main_checkpoint(sdxl) -> None:
    first = host_of(sdxl.sd_model).unet.input_blocks[0][0]
    first.out_channels = 384
    with pytest.raises(BaseMismatchError, match="refiner"):
        _ = host_of(sdxl.sd_model).base
    first.out_channels = 32


def test_engines_and_compiled_networks(make_webui) -> None:
    webui = make_webui("a1111", "sd15")
    host = host_of(webui.sd_model)
    sys.modules["modules.sd_unet"].current_unet = object()
    with pytest.raises(InputError, match="TensorRT"):
        host.check_unet()
    sys.modules["modules.sd_unet"].current_unet = None
    host.unet._compiled_call_impl = lambda *_: None
    with pytest.raises(InputError, match="compiled"):
        host.check_unet()
    host.unet._compiled_call_impl = None
    host.check_unet()


def test_the_lora_settles_before_weights_are_altered(make_webui) -> None:
    webui = make_webui("a1111", "sd15")
    host = host_of(webui.sd_model)
    layer = host.unet.input_blocks[1][1].transformer_blocks[0].attn1.to_q
    before = layer.weight.clone()
    webui.engine.lora.choose((("style", 1.0),))
    host.settle(host.unet.modules())
    assert not torch.equal(layer.weight, before) and torch.equal(layer.network_weights_backup, before)
    webui.engine.lora.choose(())
    host.settle([*host.unet.modules(), nn.Identity()])
    assert torch.equal(layer.weight, before)


def test_memory_of_forge(make_webui) -> None:
    webui = make_webui("forge", "sd15")
    host, original = host_of(webui.sd_model), webui.sd_model.forge_objects_original.unet
    host.make_room(1000)
    assert webui.engine.freed == [1000]
    host.reserve(2000)
    patcher = webui.sd_model.forge_objects.unet
    assert patcher.extra_preserved_memory_during_sampling == 2000 and patcher.model is original.model
    assert original.extra_preserved_memory_during_sampling == 0


def test_token_merging_of_a_job(sd15) -> None:
    p = job(sd15, token_merging_ratio=0.5)
    assert p.get_token_merging_ratio() == 0.5
    token_merging_off(p, partial(setattr, p))
    assert p.get_token_merging_ratio() == p.get_token_merging_ratio(for_hr=True) == 0


def test_modules_and_settings(make_webui) -> None:
    webui = make_webui("forge", "sd15")
    assert host_module("shared").opts is webui.opts
    assert option("samples_format", "x") == "png" and option("no_such_setting", 7) == 7
    assert has_module("backend.memory_management") and has_module("modules.sd_unet")
    assert not has_module("ldm_patched.modules.model_management") and not has_module("modules.no_such_module")


def test_conditions_leave_the_random_numbers_of_the_webui_alone():
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    with own_randomness(torch.device("cpu")):
        first = torch.randn(2)
    assert torch.equal(torch.randn(3), expected)
    with own_randomness(torch.device("cpu")):
        assert torch.equal(torch.randn(2), first)


def test_forge_is_told_what_a_method_needs(make_webui, monkeypatch) -> None:
    """Before each pass, on a patcher of the job's own; a card that is short of memory need not make room for copies."""
    webui = make_webui("forge", "sd15")
    told: list[int] = []
    sampled = UnetPass.__enter__

    def enter(at_work: UnetPass) -> UnetPass:
        told.append(webui.sd_model.forge_objects.unet.extra_preserved_memory_during_sampling)
        return sampled(at_work)

    monkeypatch.setattr(UnetPass, "__enter__", enter)
    for free in (2**40, 0):
        monkeypatch.setattr("lib_layerdiffuse.unet.method_kinds.free_bytes", lambda _device, free=free: free)
        assert run(webui, {"method": "sd15_joint"}, batch_size=3, steps=1).error is None
    sharing = webui.runners[False].ours.networks._kept["method"][1]
    layers = sharing_layers(dict(networks_of(webui)["unet"].named_modules()))
    least = sum(tensor.nbytes for unit in sharing.units for tensor in unit.tensors.values())
    assert told == [sharing.merged_bytes(layers), least] and min(told) > 0
    assert webui.sd_model.forge_objects_original.unet.extra_preserved_memory_during_sampling == 0
    run(webui, {"method": "sd15_joint", "weight": 0}, batch_size=3, steps=1)
    assert told[2:] == [0]


@pytest.mark.parametrize("quantised", [False, True])
def test_what_offsets_need(make_webui, monkeypatch, quantised) -> None:
    """Merged weights take the UNet's place where memory is short; such as cannot be merged have no other way."""
    webui = make_webui("forge", "sdxl", storage=torch.float8_e4m3fn if quantised else torch.float32)
    assert run(webui, {"method": "xl_fg_conv"}, steps=1).error is None
    kept, modules = (
        webui.runners[False].ours.networks._kept["method"][1],
        dict(host_of(webui.sd_model).unet.named_modules()),
    )
    needed = []
    for free in (2**40, 0):
        monkeypatch.setattr("lib_layerdiffuse.unet.method_kinds.free_bytes", lambda _device, free=free: free)
        needed.append(needed_bytes(find_method("xl_fg_conv"), kept, modules, torch.device("cpu")))
    assert needed == ([kept.offsets.nbytes] * 2 if quantised else [merged_bytes(kept.offsets, modules), 0])
