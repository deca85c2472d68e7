"""What a checkpoint has learned beyond its base, put only into the layers that a method does not touch.

A method's weights were made for its base; in a checkpoint far from that the layers that they change are other ones, and
alpha is lost. Merged: base + share * (checkpoint - base) outside of those layers, the base's own weights in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import BaseMismatchError, WeightsError
from ..files.flux_names import BFL
from ..files.layouts import OFFSET_KEY, SHARING_PREFIX
from ..files.lora_keys import is_lora, pairs_of
from ..files.weights import read_header

NETWORK = "model.diffusion_model."  # begins the names of what denoises in a checkpoint
OF_THE_BASE = ("first_stage_model.", "vae.")  # the codec is made for the base's own VAE
ATTENTIONS = (".attn1.", ".attn2.")
LEAST_SHARED = 0.9  # of the base's parameters that a checkpoint of that base has

Touches = Callable[[str], bool]


@dataclass
class Drift:
    """How far some of a checkpoint's weights are from the base's: `relative` is |checkpoint - base| / |base|."""

    tensors: int = 0
    change: float = field(default=0.0, repr=False)
    size: float = field(default=0.0, repr=False)

    @property
    def relative(self) -> float:
        """0 where they are the same."""
        return (self.change / self.size) ** 0.5 if self.size else 0.0

    def add(self, base: Tensor, other: Tensor) -> None:
        """Count one tensor: `base` and `other` of the same shape [...]."""
        self.tensors += 1
        self.change += (other - base).square().sum().item()
        self.size += base.square().sum().item()


@dataclass
class Transplant:
    """The merged tensors, and the drift of what was merged and of what the method touches."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    merged: Drift = field(default_factory=Drift)
    touched: Drift = field(default_factory=Drift)


def touches(path: Path) -> Touches:
    """Whether a layer file changes a parameter, by its name in the network; WeightsError for no layer file."""
    check_there(path)
    shapes = read_header(path)[1]
    if is_lora(shapes):
        places = [place for pair in pairs_of(shapes, str(path)) for place in pair.layer.places(BFL)]
        return {f"{place.path}.weight" for place in places}.__contains__
    if f"{SHARING_PREFIX}0.to_q_lora.0.down.weight" in shapes:
        return lambda name: any(part in name for part in ATTENTIONS)
    matches = [match for match in map(OFFSET_KEY.match, shapes) if match]
    if not matches:
        raise WeightsError(
            f"{path}, which changes no layer", "the layer file of a method", "name the file of its weights"
        )
    return {match["parameter"] for match in matches}.__contains__


def transplant(base: Path, checkpoint: Path, touched: Touches, share: float = 1.0) -> Transplant:
    """A checkpoint of the base with `share` of another's difference; typed errors where they are not of one kind."""
    result = Transplant()
    with opened(base) as mine, opened(checkpoint) as theirs:
        check_alike(mine, theirs, checkpoint)
        known = set(theirs.keys())
        for key in mine.keys():
            own = mine.get_tensor(key)
            other = theirs.get_tensor(key) if key in known and own.is_floating_point() else None
            result.tensors[key] = own if other is None else _merged(result, key, (own, other), touched, share)
    return result


def _merged(result: Transplant, key: str, pair: tuple[Tensor, Tensor], touched: Touches, share: float) -> Tensor:
    own, other = pair
    if key.startswith(OF_THE_BASE) or own.shape != other.shape:
        return own
    keeps = touched(key.removeprefix(NETWORK))
    drift = result.touched if keeps else result.merged
    drift.add(own.float(), other.float())
    return own if keeps else torch.lerp(own.float(), other.float(), share).to(own.dtype)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A checkpoint's file; WeightsError where it is none."""
    check_there(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: {error}", "a checkpoint in safetensors format", "check the path") from error


def check_there(path: Path) -> None:
    """WeightsError for what is no file: to open a pipe would wait for ever."""
    try:
        found = path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise WeightsError(f"no file {str(path)!r}", "a file of weights in safetensors format", "check the path")


def check_alike(base: Any, checkpoint: Any, path: Path) -> None:
    """BaseMismatchError unless a checkpoint has nearly all parameters of the base's network, of the same shapes."""
    wanted = [key for key in base.keys() if not key.startswith(OF_THE_BASE)]
    known = set(checkpoint.keys())
    alike = [key for key in wanted if key in known and _shape(base, key) == _shape(checkpoint, key)]
    if len(alike) < LEAST_SHARED * max(1, len(wanted)):
        raise BaseMismatchError(
            f"{path}, which has {len(alike)} of the base's {len(wanted)} parameters",
            "a checkpoint that was made from this base",
            "name the base that it was made from",
        )


def _shape(file: Any, key: str) -> list[int]:
    return file.get_slice(key).get_shape()
