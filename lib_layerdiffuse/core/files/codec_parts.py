"""Decoder and encoder in files: each in one of its own, or both in one under prefixes, as in the file for Flux."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .weights import Shape, WeightFile

DECODER, ENCODER = "decoder", "encoder"
PARTS = (DECODER, ENCODER)


def prefix_of(keys: Mapping[str, object], part: str) -> str:
    """What the keys of a part begin with; empty where a file has that part alone."""
    prefix = f"{part}."
    return prefix if any(key.startswith(prefix) for key in keys) else ""


def shapes_below(shapes: Mapping[str, Shape], prefix: str) -> dict[str, Shape]:
    """The shapes of the keys that start with `prefix`, which is cut off."""
    return {key[len(prefix) :]: shape for key, shape in shapes.items() if key.startswith(prefix)}


def part_tensors(file: WeightFile, part: str) -> dict[str, torch.Tensor]:
    """The tensors of a part of a file by their own keys; what else is in the file is not read."""
    return file.tensors(prefix_of(file.shapes, part))


def part_shapes(file: WeightFile, part: str) -> dict[str, Shape]:
    """Their shapes."""
    return shapes_below(file.shapes, prefix_of(file.shapes, part))
