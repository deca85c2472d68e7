"""AUTOMATIC1111's built-in Lora: layers alter their weights lazily, when they are used, and keep a backup for ever."""

from __future__ import annotations

import types
from typing import Any

import torch
from rule import value
from torch import nn

from fakes.webui import make_module

LAYERS = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
TOUCHED = ("to_q", "to_k", "to_out_0", "input_blocks_0_0", "ff_net_0_proj", "time_embed_0", "img_attn_qkv", "linear1")


def delta_of(name: str, layer: str, weight: torch.Tensor, strength: float) -> torch.Tensor:
    """What the network called `name` adds to a layer's weight."""
    scale = 0.5 * strength
    return scale * value(f"lora/{name}/{layer}", tuple(weight.shape)).to(weight)


def is_touched(layer: str) -> bool:
    """Whether made-up networks have something for this layer."""
    return layer.endswith(TOUCHED)


class BuiltInLora:
    """The module `networks` of that extension."""

    def __init__(self) -> None:
        self.chosen: tuple[tuple[str, float], ...] = ()

    def modules(self) -> dict[str, types.ModuleType]:
        """Its module, as other extensions find it."""
        return {"networks": make_module("networks", network_apply_weights=self.apply, loaded_networks=[])}

    def choose(self, networks: tuple[tuple[str, float], ...]) -> None:
        """The networks of the coming pass."""
        self.chosen = networks

    def assign_names(self, unet: nn.Module) -> None:
        """What is done whenever a checkpoint was loaded."""
        for path, module in unet.named_modules():
            if isinstance(module, LAYERS):
                module.network_layer_name = "diffusion_model_" + path.replace(".", "_")

    def patch(self, monkeypatch: Any) -> None:
        """Alter the forwards and the loading of torch's layers, at their classes."""
        for kind in LAYERS:
            monkeypatch.setattr(kind, "forward", self._forward(kind.forward))
            monkeypatch.setattr(kind, "_load_from_state_dict", _loading(kind._load_from_state_dict))

    def _forward(self, original: Any) -> Any:
        def forward(module: nn.Module, *inputs: Any) -> Any:
            self.apply(module)
            return original(module, *inputs)

        return forward

    def apply(self, module: nn.Module) -> None:
        """Bring a layer's weights to the chosen networks."""
        layer = getattr(module, "network_layer_name", None)
        if layer is None:
            return
        current, wanted = getattr(module, "network_current_names", ()), self.chosen
        if getattr(module, "network_weights_backup", None) is None and wanted != ():
            if current != ():
                raise RuntimeError(f"{layer} - no backup weights found and current weights are not unchanged")
            module.network_weights_backup = module.weight.to("cpu", copy=True)
            bias = getattr(module, "bias", None)
            module.network_bias_backup = None if bias is None else bias.to("cpu", copy=True)
        if current != wanted:
            with torch.no_grad():
                self._merge(module, layer)
            module.network_current_names = wanted

    def _merge(self, module: nn.Module, layer: str) -> None:
        restore(module)
        for name, strength in self.chosen if is_touched(layer) else ():
            module.weight.copy_(module.weight + delta_of(name, layer, module.weight, strength))


def restore(module: nn.Module) -> None:
    """Weights as they were when the backup was made."""
    if getattr(module, "network_weights_backup", None) is not None:
        module.weight.copy_(module.network_weights_backup)
    if getattr(module, "network_bias_backup", None) is not None:
        module.bias.copy_(module.network_bias_backup)


def _loading(original: Any) -> Any:
    def load(module: nn.Module, *arguments: Any, **named: Any) -> Any:
        module.network_current_names = ()
        module.network_weights_backup = module.network_bias_backup = None
        return original(module, *arguments, **named)

    return load
