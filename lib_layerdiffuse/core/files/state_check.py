"""Comparison of a network's state dict with one read from a file, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

from ..errors import WeightsError

SHOWN = 3  # keys named in a message: enough to recognise the file, short enough to read


Network = TypeVar("Network", bound=nn.Module)


def load_checked(network: Network, state: Mapping[str, torch.Tensor], what: str) -> Network:
    """Loads `state` as float32 into `network`, even on the meta device; WeightsError where a key or shape differs."""
    wanted = network.state_dict()
    differences = state_differences(_shapes(wanted), _shapes(state))
    if differences:
        raise foreign(what, differences)
    for key in wanted:
        _assign(network, key, state[key].detach().float())
    return network


def _assign(network: nn.Module, key: str, tensor: torch.Tensor) -> None:
    """Put a parameter in its place. Not by load_state_dict, which AUTOMATIC1111 replaces while it loads a model."""
    path, _, name = key.rpartition(".")
    network.get_submodule(path)._parameters[name] = nn.Parameter(tensor)


def state_differences(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """Missing and unexpected keys and wrong shapes as one phrase; empty when the two agree."""
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    shapes = [
        f"{key} {list(found[key])} instead of {list(shape)}"
        for key, shape in wanted.items()
        if key in found and tuple(found[key]) != tuple(shape)
    ]
    faults = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
    return "; ".join(f"{name} ({len(keys)}): {_some(keys)}" for name, keys in faults if keys)


def require(state: Mapping[str, torch.Tensor], keys: tuple[str, ...], what: str) -> None:
    """WeightsError unless all `keys`, from which the shape of a network is read, are there."""
    missing = [key for key in keys if key not in state]
    if missing:
        strangers = f"; it holds {_some(list(state))}" if state else "; it is empty"
        raise foreign(what, f"missing ({len(missing)}): {_some(missing)}{strangers}")


def foreign(what: str, differences: str) -> WeightsError:
    """The error for a state dict that does not hold `what`."""
    return WeightsError(
        f"weights that do not fit ({differences})",
        f"the weights of a {what}",
        "check that the right file was chosen; if it was, delete it and download it again",
    )


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
