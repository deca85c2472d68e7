"""The print of a base: some numbers of each of its layers in a small file, by which a checkpoint's distance is told.

Numbers are taken from places that the layer's size alone decides, spread over it, so that their differences stand for
those of all.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import InputError, WeightsError

logger = logging.getLogger(__name__)

FORMAT = "layerdiffuse base print 1"
SAMPLES = 64  # numbers of a layer
SPREAD = 2_654_435_769  # 2**32 by the golden ratio: its multiples, modulo 2**32, lie evenly
LEAST_SHARED = 0.9  # of the base's layers that a checkpoint of it has
LARGEST = 32_000_000  # bytes of a file that is read

Weights = Callable[[str], Tensor | None]  # a network's parameter by its name, None where it has none


@dataclass(frozen=True)
class BasePrint:
    """The print of a base: `samples` float32 [SAMPLES] and `sizes` (numbers in all) by the names of parameters."""

    base: str
    title: str
    samples: Mapping[str, np.ndarray]
    sizes: Mapping[str, int]

    def drift(self, weights: Weights) -> float | None:
        """How far a network is from the base: about |network - base| / |base|; None for one of another kind."""
        change = size = shared = 0.0
        for name, own in self.samples.items():
            tensor = weights(name)
            if tensor is None or tensor.numel() != self.sizes[name]:
                continue
            shared += 1
            factor = self.sizes[name] / len(own)
            change += factor * float(np.square(sampled(tensor) - own).sum())
            size += factor * float(np.square(own).sum())
        if not size or shared < LEAST_SHARED * len(self.samples) or not np.isfinite(change):
            return None
        return (change / size) ** 0.5

    def to_json(self) -> str:
        """As the text of a file; numbers in half precision."""
        layers = {
            name: [self.sizes[name], base64.b64encode(own.astype("<f2").tobytes()).decode()]
            for name, own in self.samples.items()
        }
        return json.dumps({"format": FORMAT, "base": self.base, "title": self.title, "layers": layers}, indent=0)


def file_name(base: str) -> str:
    """What the print of a base is called in a folder of layer files."""
    return f"base_print_{base}.json"


def find_print(base: str, folders: Iterable[Path]) -> Path | None:
    """The print of a base in the first folder that has it."""
    return next((path for folder in folders if (path := folder / file_name(base)).is_file()), None)


def drift_of(modules: Mapping[str, nn.Module], base: str, folders: Iterable[Path]) -> float | None:
    """How far a network, by the paths of its modules, is from its base; None where that cannot be told here."""
    path = find_print(base, folders)
    try:
        return None if path is None else read_print(path).drift(lambda name: plain_weight(modules, name))
    except WeightsError:
        logger.exception("the checkpoint is not compared with its base")
        return None


def plain_weight(modules: Mapping[str, nn.Module], name: str) -> Tensor | None:
    """A parameter [...] by name, as it was before a WebUI's LoRAs; None where there is none of plain numbers."""
    path, _, own = name.rpartition(".")
    module = modules.get(path)
    backup = getattr(module, "network_weights_backup", None)  # of the WebUI's built-in Lora
    tensor = backup if isinstance(backup, Tensor) and own == "weight" else getattr(module, own, None)
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.is_meta:
        return None
    return tensor if tensor.element_size() > 1 else None  # 8 bits round by about as much as a tuning changes


def sampled(tensor: Tensor) -> np.ndarray:
    """Numbers of a tensor of any shape, float32 [min(SAMPLES, size)], at places that its size decides."""
    count = min(SAMPLES, tensor.numel())
    places = [(number * SPREAD % 2**32) * tensor.numel() >> 32 for number in range(count)]
    flat = tensor.detach().reshape(-1)
    return flat[torch.tensor(places, device=flat.device)].float().cpu().numpy()


def print_of(base: str, title: str, tensors: Iterable[tuple[str, Tensor]]) -> BasePrint:
    """The print of a base's network from its named parameters [...]: all that have two dimensions or more."""
    samples, sizes = {}, {}
    for name, tensor in tensors:
        if tensor.ndim > 1 and tensor.is_floating_point():
            samples[name], sizes[name] = sampled(tensor), tensor.numel()
    return BasePrint(base, title, samples, sizes)


def read_print(path: Path) -> BasePrint:
    """A print from its file; WeightsError for anything else."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("too large")
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(f"of the format {told['format']!r}")
        sizes = {str(name): int(size) for name, (size, _) in told["layers"].items()}
        samples = {str(name): _numbers(text, sizes[name]) for name, (_, text) in told["layers"].items()}
        return BasePrint(str(told["base"]), str(told["title"]), samples, sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{path}, which is no print of a base ({error})",
            "a file that the command `fingerprint` wrote",
            "make it again from the base's checkpoint",
        ) from error


def _numbers(text: str, size: int) -> np.ndarray:
    numbers = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32)
    if len(numbers) != min(SAMPLES, size) or not np.isfinite(numbers).all():
        raise InputError("other numbers than the layer's", "those of its size", "make it again")
    return numbers
