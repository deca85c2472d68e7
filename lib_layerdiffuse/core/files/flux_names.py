"""Names of Flux's layers: BFL's (WebUIs, releases), partly fused, and diffusers', as one table that is read both ways.

The rows of a fused layer are counted in hidden widths, so that the table holds for networks of any width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import WeightsError

BFL, DIFFUSERS = "bfl", "diffusers"
BLOCK = re.compile(r"(blocks_)(\d+)(_)")
BLOCK_STARTS = ("double_blocks.", "single_blocks.")
WIDTH_OF = {BFL: "img_in.bias", DIFFUSERS: "x_embedder.bias"}  # has as many places as the network is wide
NORMS = {"scale": "weight"}  # BFL's releases call the weight of a norm of queries and keys so

Span = tuple[int, "int | None"]  # of rows, in hidden widths; None: to the end


@dataclass(frozen=True)
class Row:
    """A layer in both namings, N for the number of its block; `span` are its rows in a fused layer of BFL's.

    `swapped`: the two halves of its rows are in the other order.
    """

    bfl: str
    diffusers: str
    span: Span | None = None
    swapped: bool = False

    def path(self, naming: str, number: str) -> str:
        """The layer's path."""
        return getattr(self, naming).replace(".N.", f".{number}.")


def _attention(bfl: str, diffusers: str, parts: Iterable[str]) -> tuple[Row, ...]:
    return tuple(Row(bfl, f"{diffusers}.{part}", (place, place + 1)) for place, part in enumerate(parts))


DOUBLE, DOUBLES = "double_blocks.N", "transformer_blocks.N"
SINGLE, SINGLES = "single_blocks.N", "single_transformer_blocks.N"
TABLE = (
    *_attention(f"{DOUBLE}.img_attn.qkv", f"{DOUBLES}.attn", ("to_q", "to_k", "to_v")),
    *_attention(f"{DOUBLE}.txt_attn.qkv", f"{DOUBLES}.attn", ("add_q_proj", "add_k_proj", "add_v_proj")),
    Row(f"{DOUBLE}.img_attn.proj", f"{DOUBLES}.attn.to_out.0"),
    Row(f"{DOUBLE}.txt_attn.proj", f"{DOUBLES}.attn.to_add_out"),
    Row(f"{DOUBLE}.img_attn.norm.query_norm", f"{DOUBLES}.attn.norm_q"),
    Row(f"{DOUBLE}.img_attn.norm.key_norm", f"{DOUBLES}.attn.norm_k"),
    Row(f"{DOUBLE}.txt_attn.norm.query_norm", f"{DOUBLES}.attn.norm_added_q"),
    Row(f"{DOUBLE}.txt_attn.norm.key_norm", f"{DOUBLES}.attn.norm_added_k"),
    Row(f"{DOUBLE}.img_mlp.0", f"{DOUBLES}.ff.net.0.proj"),
    Row(f"{DOUBLE}.img_mlp.2", f"{DOUBLES}.ff.net.2"),
    Row(f"{DOUBLE}.txt_mlp.0", f"{DOUBLES}.ff_context.net.0.proj"),
    Row(f"{DOUBLE}.txt_mlp.2", f"{DOUBLES}.ff_context.net.2"),
    Row(f"{DOUBLE}.img_mod.lin", f"{DOUBLES}.norm1.linear"),
    Row(f"{DOUBLE}.txt_mod.lin", f"{DOUBLES}.norm1_context.linear"),
    *_attention(f"{SINGLE}.linear1", f"{SINGLES}.attn", ("to_q", "to_k", "to_v")),
    Row(f"{SINGLE}.linear1", f"{SINGLES}.proj_mlp", (3, None)),
    Row(f"{SINGLE}.linear2", f"{SINGLES}.proj_out"),
    Row(f"{SINGLE}.modulation.lin", f"{SINGLES}.norm.linear"),
    Row(f"{SINGLE}.norm.query_norm", f"{SINGLES}.attn.norm_q"),
    Row(f"{SINGLE}.norm.key_norm", f"{SINGLES}.attn.norm_k"),
    Row("img_in", "x_embedder"),
    Row("txt_in", "context_embedder"),
    Row("time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"),
    Row("time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"),
    Row("vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
    Row("vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
    Row("guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"),
    Row("guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"),
    Row("final_layer.linear", "proj_out"),
    Row("final_layer.adaLN_modulation.1", "norm_out.linear", swapped=True),
)


@dataclass(frozen=True)
class Place:
    """Where a named layer is in another naming: `taken` of its rows are `span` of the rows there; None for all."""

    path: str
    taken: Span | None = None
    span: Span | None = None
    swapped: bool = False


@dataclass(frozen=True)
class Named:
    """A layer as somebody named it; of BFL's fused layers all rows of the table."""

    naming: str
    number: str
    rows: tuple[Row, ...]

    def places(self, naming: str) -> list[Place]:
        """Where it is in a naming; several for a fused layer in diffusers' naming."""
        if naming == self.naming:
            return [Place(self.rows[0].path(naming, self.number))]
        if naming == BFL:
            return [Place(row.path(BFL, self.number), None, row.span, row.swapped) for row in self.rows]
        return [Place(row.path(DIFFUSERS, self.number), row.span, None, row.swapped) for row in self.rows]


def find_layer(name: str) -> Named | None:
    """The layer of a path in either naming, its dots as they are or as underscores; None for any other name."""
    plain = name.replace(".", "_")
    found = BLOCK.search(plain)
    key = BLOCK.sub(r"\1N\3", plain, count=1) if found else plain
    return next(
        (Named(naming, found[2] if found else "", INDEX[naming][key]) for naming in INDEX if key in INDEX[naming]), None
    )


def _index(naming: str) -> dict[str, tuple[Row, ...]]:
    index: dict[str, tuple[Row, ...]] = {}
    for row in TABLE:
        key = getattr(row, naming).replace(".", "_")
        index[key] = (*index.get(key, ()), row)
    return index


INDEX = {naming: _index(naming) for naming in (BFL, DIFFUSERS)}


def naming_of(names: Iterable[str]) -> str:
    """The naming of a network by the names of its layers or parameters."""
    return BFL if any(name.startswith(BLOCK_STARTS) for name in names) else DIFFUSERS


def rows_of(span: Span, width: int, rows: int) -> tuple[int, int]:
    """First row and the one after the last of a span in a layer of `rows` rows."""
    start, stop = span
    return start * width, rows if stop is None else stop * width


def swap_halves(rows: Tensor) -> Tensor:
    """Rows [2*N,...] of shift and scale the other way round."""
    return torch.cat(rows.chunk(2)[::-1])


def renamed(state: Mapping[str, Tensor], naming: str) -> dict[str, Tensor]:
    """A transformer's tensors under the names of the other naming, fused layers cut or joined; the same values.

    WeightsError for a name that neither has.
    """
    width = len(_known(state, WIDTH_OF[naming_of(state)]))
    whole: dict[str, Tensor] = {}
    joined: dict[str, list[tuple[int, Tensor]]] = {}
    for name, tensor in state.items():
        path, _, attribute = name.rpartition(".")
        layer = find_layer(path)
        if layer is None:
            raise _unknown(name)
        for place in layer.places(naming):
            part = tensor if place.taken is None else tensor[slice(*rows_of(place.taken, width, len(tensor)))]
            part = swap_halves(part) if place.swapped else part
            target = f"{place.path}.{_attribute(attribute, place.path, naming)}"
            if place.span is None:
                whole[target] = part
            else:
                joined.setdefault(target, []).append((place.span[0], part))
    parts = {name: sorted(parts, key=lambda part: part[0]) for name, parts in joined.items()}
    return whole | {name: torch.cat([part for _, part in rows]) for name, rows in parts.items()}


def _attribute(attribute: str, path: str, naming: str) -> str:
    if not path.endswith("_norm") or naming == DIFFUSERS:
        return NORMS.get(attribute, attribute)
    return "scale"


def _known(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise _unknown(next(iter(state), "none"))
    return state[name]


def _unknown(name: str) -> WeightsError:
    return WeightsError(
        f"the parameter {name}", "the parameters of Flux's transformer", "use a checkpoint of Flux.1 dev or schnell"
    )
