"""Forge's patchers: clones of one model, a user's Lora merged before sampling, functions around the self-attention."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fakes.lora import delta_of, is_touched


class LoraLoader:
    """Merges a patcher's networks into the model when it is loaded for sampling, and restores what was merged."""

    def __init__(self, model: nn.Module):
        self._model, self.backup, self.loaded_hash = [model], {}, str([])

    @torch.inference_mode()
    def refresh(self, patches: dict[tuple, dict[str, Any]]) -> None:
        """Bring the model to these patches."""
        wanted = str(list(patches))
        if wanted == self.loaded_hash:
            return
        for key, weight in self.backup.items():
            set_parameter(self._model[0], key, weight)
        self.backup = {}
        for (_name, strength), entries in patches.items():
            for key, make in entries.items():
                weight = get_parameter(self._model[0], key)
                self.backup.setdefault(key, weight)
                merged = (weight.float() + make(weight.float(), strength)).to(weight.dtype)
                set_parameter(self._model[0], key, nn.Parameter(merged, requires_grad=False))
        self.loaded_hash = wanted


class NetworkModel(nn.Module):
    """A network with its predictor and the precisions in which it is kept and computes."""

    predictor_kind: type

    def __init__(self, network: nn.Module, storage: torch.dtype):
        super().__init__()
        self.diffusion_model, self.predictor = network, self.predictor_kind()
        self.storage_dtype, self.computation_dtype = storage, torch.float32
        self.lora_loader = LoraLoader(self)


def get_parameter(model: nn.Module, key: str) -> nn.Parameter:
    """A parameter by name; ValueError as Forge words it."""
    path, _, name = key.rpartition(".")
    try:
        return model.get_submodule(path)._parameters[name]
    except (AttributeError, KeyError) as error:
        raise ValueError(f"Wrong LoRA Key: {key}") from error


def set_parameter(model: nn.Module, key: str, parameter: nn.Parameter) -> None:
    """Put a parameter into its module."""
    path, _, name = key.rpartition(".")
    setattr(model.get_submodule(path), name, parameter)


class Patcher:
    """`forge_objects.unet`; clones share the model."""

    def __init__(self, model: nn.Module):
        self.model, self.lora_patches, self.object_patches = model, {}, {}
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.extra_preserved_memory_during_sampling = 0
        self.controlnet_linked_list = self.extra_concat_condition = None
        self.load_device = self.offload_device = self.current_device = torch.device("cpu")

    def clone(self) -> Patcher:
        """A patcher of the same model with patches of its own."""
        other = Patcher(self.model)
        other.lora_patches, other.object_patches = self.lora_patches.copy(), self.object_patches.copy()
        other.model_options = copy.deepcopy(self.model_options)
        other.extra_preserved_memory_during_sampling = self.extra_preserved_memory_during_sampling
        return other

    def add_patches(self, *, filename: str, patches: dict[str, Any], strength_patch: float = 1.0) -> None:
        """Remember what is to be merged."""
        self.lora_patches[(filename, strength_patch)] = patches

    def add_extra_preserved_memory_during_sampling(self, size: int) -> None:
        """Keep memory free."""
        self.extra_preserved_memory_during_sampling += size

    def set_model_patch(self, patch: Any, name: str) -> None:
        """A function around the self-attention, such as token merging adds."""
        self.model_options["transformer_options"].setdefault("patches", {}).setdefault(name, []).append(patch)

    def replace_attention(self, patch: Any, name: str, *places: tuple[Any, ...]) -> None:
        """A function in place of an attention of these blocks; of all blocks where none is named."""
        found = {block.place for block in self.model.modules() if hasattr(block, "place")}
        replaced = self.model_options["transformer_options"].setdefault("patches_replace", {})
        replaced.setdefault(name, {}).update(dict.fromkeys(places or found, patch))


class TokenMerging:
    """Every other token, where there is more than one; each twice afterwards."""

    merged = False

    def before(self, *parts: Any) -> tuple[Any, Any, Any]:
        """Of query, key and value."""
        self.merged = parts[0].shape[1] > 1
        return tuple(part[:, ::2] if self.merged else part for part in parts[:3])

    def after(self, x: Any, _options: Any) -> Any:
        """Of the result."""
        return x.repeat_interleave(2, 1) if self.merged else x


def network_patches(name: str, model: nn.Module) -> dict[str, Any]:
    """What the network called `name` has for the layers of a model, by parameter."""

    def maker(layer: str) -> Callable[[torch.Tensor, float], torch.Tensor]:
        return lambda weight, strength: delta_of(name, layer, weight, strength)

    found = {}
    for key, _ in model.named_parameters():
        path, _, attribute = key.rpartition(".")
        layer = path.replace(".", "_")
        if attribute == "weight" and is_touched(layer):
            found[key] = maker(layer)
    return found
