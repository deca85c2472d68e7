"""A stand-in for Nunchaku, which some GPUs alone can run: names for Neo to import, and a transformer without layers."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from types import ModuleType
from typing import Any

import torch
from torch import nn


class NunchakuFluxTransformer2dModel(nn.Module):
    """What a checkpoint becomes."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
        self.comfy_lora_meta_list: list[Any] = []
        self.comfy_lora_sd_list: list[Any] = []

    @classmethod
    def from_pretrained(cls, *_arguments: Any, **_named: Any) -> NunchakuFluxTransformer2dModel:
        return cls()

    def set_attention_impl(self, _name: str) -> None:
        """Nothing to choose."""


class NunchakuT5EncoderModel(nn.Module):
    """Never made here."""


def any_name(name: str) -> Any:
    """A class without anything, or a function that gives back the transformer that it was given."""
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (nn.Module,), {}) if name[0].isupper() else lambda *_, transformer=None, **_named: transformer


class AnyModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Whatever is imported from below this package is there, with any name in it."""

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Any:
        if name.startswith(f"{__name__}."):
            return importlib.util.spec_from_loader(name, self, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = any_name


sys.meta_path.insert(0, AnyModule())
