"""A ControlNet for a small UNet in sd-webui-controlnet: built by its shapes, its results where they are looked for."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import tiny
import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file

from lib_layerdiffuse.standalone.controlnet_files import write_controlnet
from lib_layerdiffuse.webui import small_controlnet

USUAL = {"model_channels": 320, "num_res_blocks": 2, "num_heads": 8, "context_dim": 768, "hint_channels": 3}


class Network(torch.nn.Module):
    """What the extension builds: as many results as there are blocks, and the middle's."""

    def __init__(self, config: dict, state_dict: dict | None = None):
        super().__init__()
        self.config, self.state = config, state_dict

    def forward(self, x: torch.Tensor, **_named) -> list[torch.Tensor]:
        return [torch.full((len(x), 64, 4, 4), float(place)) for place in range(7)]


@pytest.fixture
def guess(monkeypatch):
    """The extension's module that builds networks, with ours around its class."""
    module = ModuleType(small_controlnet.MODULE)
    module.PlugableControlModel = Network
    monkeypatch.setitem(sys.modules, small_controlnet.MODULE, module)
    unet = SimpleNamespace(num_heads=-1, num_head_channels=32)
    monkeypatch.setattr(small_controlnet, "loaded_unet", lambda: unet)
    small_controlnet.install()
    yield module
    small_controlnet.remove()


def state_of(unet, folder) -> dict[str, torch.Tensor]:
    """A ControlNet's tensors as the extension reads them: LDM's names, no prefix."""
    write_controlnet(ControlNetModel.from_unet(unet), folder / "control.safetensors")
    return {
        key.removeprefix("control_model."): tensor for key, tensor in load_file(folder / "control.safetensors").items()
    }


def test_a_small_one_is_built_by_its_shapes(guess, tmp_path):
    network = guess.PlugableControlModel(USUAL, state_of(tiny.demo_unet(), tmp_path))
    assert network.config == {
        **USUAL,
        "model_channels": 32,
        "in_channels": 4,
        "num_res_blocks": [1, 1, 1],
        "channel_mult": [1, 2, 2],
        "attention_resolutions": [2, 4],
        "transformer_depth": [0, 1, 1],
        "transformer_depth_middle": 1,
        "num_heads": -1,
        "num_head_channels": 32,
    }


def test_attention_at_the_first_level_and_several_blocks_are_seen(guess, tmp_path):
    config = guess.PlugableControlModel(USUAL, state_of(tiny.sd15_unet(), tmp_path)).config
    assert config["num_res_blocks"] == [2, 2, 2, 2] and config["channel_mult"] == [1, 1, 2, 2]
    assert config["attention_resolutions"] == [1, 2, 4] and config["transformer_depth"] == [1, 1, 1, 0]


def test_results_are_put_at_the_end_of_the_list(guess, tmp_path):
    network = guess.PlugableControlModel(USUAL, state_of(tiny.demo_unet(), tmp_path))
    results = network(torch.zeros(3, 4, 8, 8), hint=None)
    assert [tuple(result.shape) for result in results[:6]] == [(3, 1, 1, 1)] * 6
    assert not any(result.any() for result in results[:6])
    assert [result[0, 0, 0, 0].item() for result in results[6:]] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("config", [USUAL, {**USUAL, "model_channels": 32}])
def test_others_pass_untouched(guess, tmp_path, config):
    state = None if config is USUAL else state_of(tiny.demo_unet(), tmp_path)
    network = guess.PlugableControlModel(config, state)
    assert network.config is config and len(network(torch.zeros(1, 4, 8, 8))) == 7


def test_it_is_given_back_and_needs_no_extension(guess, monkeypatch):
    assert guess.PlugableControlModel is not Network
    small_controlnet.install()  # the page is loaded again
    small_controlnet.remove()
    assert guess.PlugableControlModel is Network
    monkeypatch.delitem(sys.modules, small_controlnet.MODULE)
    small_controlnet.install()
    small_controlnet.remove()
