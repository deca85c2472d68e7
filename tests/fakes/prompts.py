"""Prompts as WebUIs read them: extra networks, AND, conditioning per step, batches of uneven lengths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from rule import randn_for

NETWORK = re.compile(r"<(\w+):([^>]+)>")
WEIGHTED = re.compile(r"^(.*?)(?:\s*:\s*([-+]?\d+(?:\.\d*)?))?\s*$", re.DOTALL)
WORDS_PER_CHUNK, TOKENS_PER_CHUNK = 8, 7


@dataclass(frozen=True)
class Scheduled:
    """A conditioning that holds up to a step."""

    end_at_step: int
    cond: Any


@dataclass(frozen=True)
class Composable:
    """One prompt of several that are joined by AND."""

    schedules: list[Scheduled]
    weight: float


@dataclass(frozen=True)
class Multicond:
    """The prompts of a batch: one list of `Composable` for each picture."""

    shape: tuple[int, ...]
    batch: list[list[Composable]]


class DictWithShape(dict):
    """SDXL's conditioning."""

    @property
    def shape(self) -> torch.Size:
        return self["crossattn"].shape


@dataclass(frozen=True)
class NetworkTag:
    """What stands in a tag of a network behind its kind."""

    items: list[str]


def parse_prompts(prompts: list[str]) -> tuple[list[str], dict[str, list[NetworkTag]] | None]:
    """`extra_networks.parse_prompts`: prompts without tags of networks, and the tags of the first one, by kind."""
    found: dict[str, list[NetworkTag]] = {}
    for kind, items in NETWORK.findall(prompts[0]) if prompts else ():
        found.setdefault(kind, []).append(NetworkTag(items.split(":")))
    return [NETWORK.sub("", prompt) for prompt in prompts], found if prompts else None


def loras_of(found: dict[str, list[NetworkTag]] | None) -> tuple[tuple[str, float], ...]:
    """Names and strengths of the networks that tags name."""
    tags = [tag.items for tag in (found or {}).get("lora", ())]
    return tuple((items[0], float(items[1]) if len(items) > 1 else 1.0) for items in tags)


def styled(prompt: str, styles: list[str]) -> str:
    """A prompt with styles: put into those that have a place for it, in front of the others."""
    for style in styles:
        whole = style.replace("{prompt}", prompt)
        prompt = whole if whole != style else ", ".join(filter(None, (prompt.strip(), style)))
    return prompt


def embed(text: str, width: int, vector: int = 0) -> Any:
    """Made-up conditioning of a text, [T,width], T growing with its length; SDXL's has a vector too."""
    chunks = max(1, -(-len(text.split()) // WORDS_PER_CHUNK))
    text = text.strip()  # as tokenizers read it
    context = randn_for(f"text/{text}", (chunks * TOKENS_PER_CHUNK, width))
    return {"crossattn": context, "vector": randn_for(f"pooled/{text}", (vector,))} if vector else context


def learn(model: Any, prompts: list[str], steps: int) -> list[list[Scheduled]]:
    """Plain prompts of a batch."""
    return [[Scheduled(steps, model.embed(prompt))] for prompt in prompts]


def learn_multicond(model: Any, prompts: list[str], steps: int) -> Multicond:
    """Prompts of a batch, split at AND."""
    batch = []
    for prompt in prompts:
        parts = [WEIGHTED.match(part).groups() for part in re.split(r"\bAND\b", prompt)]
        batch.append([Composable(learn(model, [text], steps)[0], float(weight or 1)) for text, weight in parts])
    return Multicond((len(prompts),), batch)


def stack(conds: list[torch.Tensor]) -> torch.Tensor:
    """Conditionings of one batch; the last row of shorter ones is repeated."""
    length = max(len(cond) for cond in conds)
    return torch.stack([torch.cat([cond, cond[-1:].expand(length - len(cond), -1)]) for cond in conds])


def stacked(conds: list[Any]) -> Any:
    """[N,T,C] of tensors, or SDXL's dictionary of both."""
    if not isinstance(conds[0], dict):
        return stack(conds)
    others = {key: torch.stack([cond[key] for cond in conds]) for key in conds[0] if key != "crossattn"}
    return DictWithShape(crossattn=stack([cond["crossattn"] for cond in conds]), **others)


def at_step(schedules: list[Scheduled], step: int) -> Any:
    """The conditioning that holds at a step."""
    return next((entry.cond for entry in schedules if step <= entry.end_at_step), schedules[-1].cond)


def reconstruct(conds: list[list[Scheduled]], step: int) -> Any:
    """The unconditional rows of a step."""
    return stacked([at_step(schedules, step) for schedules in conds])


def reconstruct_multicond(conds: Multicond, step: int) -> tuple[list[list[tuple[int, float]]], Any]:
    """(row, weight) of each picture's prompts, and all their rows."""
    places, rows = [], []
    for parts in conds.batch:
        places.append([(len(rows) + place, part.weight) for place, part in enumerate(parts)])
        rows += [at_step(part.schedules, step) for part in parts]
    return places, stacked(rows)


def parts(cond: Any, most: int) -> list[Any]:
    """The rows in their order, at most so many at a time."""
    if not isinstance(cond, dict):
        return list(cond.split(most))
    pieces = zip(*(rows.split(most) for rows in cond.values()), strict=True)
    return [DictWithShape(zip(cond, piece, strict=True)) for piece in pieces]


def join(conds: list[Any]) -> Any:
    """Rows of several, one after the other."""
    first = conds[0]
    if isinstance(first, dict):
        return DictWithShape({key: torch.cat([cond[key] for cond in conds]) for key in first})
    return torch.cat(conds)
