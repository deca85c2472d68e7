"""What a WebUI's transformer of Flux's kind is, told by its layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...core.offsets.offsets import plain_shape

FLUX_TOKEN = 64  # channels of Flux.1's tokens: 16 of 2x2 places
NAMED = 3  # layers that a message names of those that are missing


def is_flux(network: nn.Module) -> bool:
    """Whether this is a transformer of Flux's kind, or stands in for one."""
    return hasattr(network, "double_blocks") or is_fused(network)


def is_fused(network: nn.Module) -> bool:
    """Whether a Nunchaku engine stands in for the transformer; it has no layers that could be hooked."""
    return type(network).__name__.startswith("SVDQ") or "nunchaku" in type(network).__module__


def is_guided(network: nn.Module) -> bool:
    """Whether a transformer is told how strong its guidance is."""
    guidance: nn.Module | None = getattr(network, "guidance_in", None)
    return guidance is not None and any(True for _ in guidance.parameters())


def without_weights(network: nn.Module) -> list[str]:
    """Paths of layers for which the checkpoint's file had nothing; Forge leaves them without a weight."""
    return [path for path, module in network.named_modules() if is_empty(module)]


def is_empty(module: nn.Module) -> bool:
    """Whether a layer has a place for a weight, and no numbers at all (Forge's norms of heads have a scale)."""
    without = getattr(module, "weight", module) is None and not any(True for _ in module.parameters(recurse=False))
    return without and not isinstance(module, (nn.LayerNorm, nn.GroupNorm))  # these may be without by intent


def told_missing(network: nn.Module) -> str:
    """What is said of a transformer with layers that have no weights; empty where all have some."""
    missing = without_weights(network)
    names = ", ".join(missing[:NAMED]) + (", ..." if missing[NAMED:] else "")
    return f"a checkpoint that lacks {len(missing)} of Flux.1's layers ({names})" if missing else ""


def is_unread(network: nn.Module) -> bool:
    """Whether some layer's weight still has two numbers in each of its places: Forge without bitsandbytes leaves it."""
    return any(map(is_left_packed, network.modules()))


def is_left_packed(module: nn.Module) -> bool:
    """Whether a linear layer that knows its sides has a weight of half as many numbers."""
    sides = getattr(module, "in_features", 0), getattr(module, "out_features", 0)
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and 2 * weight.numel() == sides[0] * sides[1]


def _token(network: nn.Module) -> int:
    layer: Any = network.img_in
    weight = layer.weight
    return FLUX_TOKEN if weight is None else plain_shape(layer, weight)[1]


FOREIGN: tuple[tuple[Callable[[nn.Module], bool], str], ...] = (
    (is_fused, "a Nunchaku (SVDQuant) checkpoint, to whose fused layers nothing can be added"),
    (lambda network: not hasattr(network, "vector_in"), "Chroma or another relative of Flux.1 with other layers"),
    (is_unread, "a checkpoint of four-bit floats that this WebUI has not read (without bitsandbytes it cannot)"),
    (lambda network: _token(network) != FLUX_TOKEN, "an inpainting, editing or newer checkpoint of Flux's kind"),
)


def fault_of(network: nn.Module) -> str:
    """What keeps a transformer from being Flux.1's; empty where nothing does."""
    return next((text for is_so, text in FOREIGN if is_so(network)), "") or told_missing(network)
