"""Networks whose parts keep their types, and what torch's own types leave out."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import nn

Kind = TypeVar("Kind", bound=nn.Module)


class ModulesOf(nn.ModuleList, Generic[Kind]):
    """A list of networks of one kind."""

    if TYPE_CHECKING:

        def __init__(self, modules: Iterable[Kind]) -> None: ...
        def __iter__(self) -> Iterator[Kind]: ...


class NamedModules(nn.ModuleDict, Generic[Kind]):
    """Networks of one kind by name."""

    if TYPE_CHECKING:

        def __init__(self, modules: Mapping[str, Kind]) -> None: ...
        def __getitem__(self, key: str) -> Kind: ...
        def items(self) -> ItemsView[str, Kind]: ...


def channels_last(network: Kind) -> Kind:
    """The network with its convolutions' weights in that memory format, in place."""
    options: dict[str, Any] = {"memory_format": torch.channels_last}
    return network.to(**options)


@torch.no_grad()
def spread_output(layer: nn.Conv2d, hidden: torch.Tensor, deviation: float = 1.0) -> None:
    """Give a convolution's output on `hidden` [B,C,H,W] mean 0 and this deviation by channel, in place.

    Fresh convolutions pass on a thousandth of what they see (layer-sequential unit variance, arXiv 1511.06422).
    """
    own, mean = torch.std_mean(layer(hidden), dim=(0, 2, 3))
    scale = deviation / own.clamp_min(1e-6)
    layer.weight *= scale[:, None, None, None]
    if layer.bias is not None:
        layer.bias.copy_((layer.bias - mean) * scale)
