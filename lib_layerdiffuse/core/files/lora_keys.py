"""Keys of LoRA files of Flux: which layer each belongs to, in the layouts of kohya, PEFT and their relatives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import WeightsError
from .flux_names import Named, find_layer, naming_of
from .weights import Shape

PREFIXES = (  # the longest first where one begins another
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "lora_transformer_",
    "lora_unet_",
    "lycoris_",
    "",
)
HALVES = {
    ".lora_up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora.up.weight": "up",
    ".lora.down.weight": "down",
    ".alpha": "alpha",
}
ADVICE = "choose a LoRA made for Flux.1, or a checkpoint that this one was made for"


@dataclass(frozen=True)
class Pair:
    """The keys of one layer in a file: `up`, `down` and maybe `alpha`."""

    name: str
    layer: Named
    keys: Mapping[str, str]


def is_lora(keys: Iterable[str]) -> bool:
    """Whether all keys are those of low-rank pairs of Flux's layers, in any of the layouts."""
    keys = tuple(keys)
    return bool(keys) and all(split_key(key) is not None for key in keys)


def split_key(key: str) -> tuple[str, Named, str] | None:
    """The layer's name as it is written, the layer, and which half a key is; None for a key of anything else."""
    suffix = next((suffix for suffix in HALVES if key.endswith(suffix)), None)
    if suffix is None:
        return None
    written = key[: -len(suffix)]
    for prefix in PREFIXES:
        layer = find_layer(written[len(prefix) :]) if written.startswith(prefix) else None
        if layer is not None:
            return written, layer, HALVES[suffix]
    return None


def pairs_of(keys: Iterable[str], source: str) -> list[Pair]:
    """The pairs of a file; WeightsError for keys of anything else, and for half a pair."""
    found: dict[str, tuple[Named, dict[str, str]]] = {}
    strange = []
    for key in keys:
        parts = split_key(key)
        if parts is None:
            strange.append(key)
        else:
            found.setdefault(parts[0], (parts[1], {}))[1][parts[2]] = key
    if strange or not found:
        told = f"the key {strange[0]}{_more(strange)}" if strange else "no key"
        raise WeightsError(f"{told} in {source}", "low-rank pairs of Flux's layers (kohya or PEFT)", ADVICE)
    halves = [name for name, (_, keys) in found.items() if not {"up", "down"} <= keys.keys()]
    if halves:
        kinds = " and ".join(sorted(found[halves[0]][1]))
        raise WeightsError(
            f"only {kinds} of {halves[0]}{_more(halves)} in {source}",
            "up and down of every layer",
            "the file is not whole: get it again",
        )
    return [Pair(name, layer, keys) for name, (layer, keys) in found.items()]


def fits_network(layers: Iterable[tuple[str, int]], parameters: Mapping[str, Shape]) -> bool:
    """Whether a network, in either naming, has all of these layers with so many inputs each."""
    naming = naming_of(parameters)
    found = [(find_layer(name), inputs) for name, inputs in layers]
    return all(
        parameters.get(f"{place.path}.weight", ())[1:] == (inputs,)
        for layer, inputs in found
        if layer is not None
        for place in layer.places(naming)
    )


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
