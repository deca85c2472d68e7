"""LoRA files of Flux in the layouts of kohya, PEFT and their relatives, as offsets of the network that is loaded.

A pair `up` [out,r], `down` [r,in] of a layer adds strength * alpha / r * up @ down to its weight; without an alpha the
factor is 1. Which layout a file has is told by its keys alone; BFL's fused layers and diffusers' split ones go into
each other by rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import WeightsError
from ..files.flux_names import Place, naming_of, rows_of, swap_halves
from ..files.lora_keys import ADVICE, Pair, pairs_of
from ..files.weights import Shape, WeightFile
from .offsets import LowRank, OffsetSet, Rows, checked_offsets

ADAPTER = "lora_adapter_metadata"  # where newer releases of diffusers keep PEFT's settings


def read_lora(path: str | Path, parameters: Mapping[str, Shape]) -> OffsetSet:
    """The pairs of a LoRA file as offsets of a network with these parameters, in BFL's or diffusers' naming."""
    with WeightFile(path) as file:
        pairs, factor = pairs_of(file.shapes, str(file.path)), adapter_factor(file.metadata)
        tensors = {pair.name: {half: file.tensor(key) for half, key in pair.keys.items()} for pair in pairs}
        return fitted(pairs, tensors, parameters, (str(file.path), file.metadata, factor))


def parse_lora(state: Mapping[str, Tensor], parameters: Mapping[str, Shape], source: str = "the LoRA") -> OffsetSet:
    """The pairs of a state dict, as `read_lora` gives them."""
    pairs = pairs_of(state, source)
    tensors = {pair.name: {half: state[key] for half, key in pair.keys.items()} for pair in pairs}
    return fitted(pairs, tensors, parameters, (source, {}, None))


def fitted(
    pairs: Iterable[Pair],
    tensors: Mapping[str, Mapping[str, Tensor]],
    parameters: Mapping[str, Shape],
    origin: tuple[str, Mapping[str, str], float | None],
) -> OffsetSet:
    """Pairs as offsets of parameters; `origin`: the file, its metadata, its factor where no alpha says another.

    WeightsError for one whose layer is not among the parameters.
    """
    source, metadata, factor = origin
    naming = naming_of(parameters)
    entries: dict[str, tuple[LowRank, ...]] = {}
    for pair in pairs:
        low_rank = _low_rank(pair.name, tensors[pair.name], source, factor)
        for place in pair.layer.places(naming):
            name = f"{place.path}.weight"
            if name not in parameters:
                raise WeightsError(
                    f"{pair.name} in {source}", f"layers of the loaded checkpoint, which has no {place.path}", ADVICE
                )
            entries[name] = (*entries.get(name, ()), _placed(low_rank, place, parameters[name]))
    offsets = OffsetSet(dict(entries), source=source, metadata=dict(metadata))
    return checked_offsets(offsets, parameters)


def adapter_factor(metadata: Mapping[str, str]) -> float | None:
    """alpha / rank where diffusers wrote PEFT's settings beside the pairs; None where it did not."""
    try:
        said: Any = json.loads(metadata.get(ADAPTER, "{}"))
        alpha, rank = (said.get(f"transformer.{name}", said.get(name)) for name in ("lora_alpha", "r"))
        return float(alpha) / float(rank)
    except (ValueError, TypeError, AttributeError, ZeroDivisionError):
        return None


def _low_rank(name: str, tensors: Mapping[str, Tensor], source: str, factor: float | None) -> LowRank:
    up, down = tensors["up"], tensors["down"]
    if up.ndim != 2 or down.ndim != 2 or up.shape[1] != len(down) or not len(down):
        raise WeightsError(
            f"up {list(up.shape)} and down {list(down.shape)} of {name} in {source}",
            "two matrices of one rank",
            "the file is not sound: get it again",
        )
    scale = 1.0 if factor is None else factor
    if "alpha" in tensors:
        scale = float(tensors["alpha"].flatten()[0]) / len(down)
    return LowRank(up, down, scale)


def _placed(pair: LowRank, place: Place, shape: Shape) -> LowRank:
    """The pair for one place: `up` cut to its rows, or told which rows of a fused layer it belongs to."""
    width, up = pair.down.shape[1], pair.up
    if place.taken is not None:
        up = up[slice(*rows_of(place.taken, width, len(up)))]
    if place.swapped:
        up = swap_halves(up)
    rows = None if place.span is None else Rows(*rows_of(place.span, width, shape[0]), shape[0])
    return replace(pair, up=up, rows=rows)
