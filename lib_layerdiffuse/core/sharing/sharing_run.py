"""What changes of attention sharing from run to run, or from UNet call to UNet call."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..files.layouts import PROJECTIONS
from ..rows import spread_rows
from .sharing_unit import AttentionLayer, Prepared, Projections

COND, UNCOND = "cond", "uncond"
PATCHED = ("attn1", "attn2")  # self and cross attention, as the options of a UNet call name them; units alternate so


@dataclass
class SharingRun:
    """What changes from run to run, or from UNet call to UNet call.

    `overrides`: one entry per frame, text conditioning [N,S,D] that replaces the context in conditional rows.
    `rows`: 'cond' or 'uncond' for each row of the coming UNet call; needed where there are overrides.
    `signals`: of `AttentionSharing.signals`. N is 1, or the results of the batch. `groups`: which result each group of
    the coming call belongs to, where a host splits a batch over several calls. `active` False is the plain UNet.
    `depths`: how often the latent was halved at each layer, by which a layer finds its signal; without them it is the
    signal of as many tokens as the layer has. `merging` lets projections be merged with their layers' weights: quicker,
    and a copy of them for each frame.
    """

    overrides: Sequence[Tensor | None] = ()
    signals: Mapping[int, Tensor] = field(default_factory=dict)
    rows: Sequence[str] | None = None
    groups: Sequence[int] | None = None
    active: bool = True
    merging: bool = True
    depths: Sequence[int] = ()
    options: dict = field(default_factory=dict, repr=False)  # of the UNet call at hand, where it has any
    patches: dict[str, dict] = field(default_factory=dict, repr=False)  # of attention in that call, by PATCHED
    _resampled: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    _control: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    _projections: dict[int, Projections] = field(default_factory=dict, repr=False)

    def projections_of(self, index: int) -> Projections:
        """What is merged in this run of unit `index`, by the name of the projection; None where it cannot be."""
        if not self.merging:
            return dict.fromkeys(PROJECTIONS)
        return self._projections.setdefault(index, {})

    def adopt(self, options: dict) -> dict:
        """Options of a UNet call (Forge's `transformer_options`) without the patches that bypass attention layers."""
        replaced = options.get("patches_replace", {})
        self.patches = {name: replaced[name] for name in PATCHED if replaced.get(name)}
        rest = {name: patches for name, patches in replaced.items() if name not in self.patches}
        self.options = {**options, "patches_replace": rest} if self.patches else options
        return self.options

    def patch_of(self, name: str, attention: AttentionLayer) -> tuple[Callable | None, dict]:
        """The patch of this kind of attention for the block that the UNet is in, with the options that it wants."""
        patches = self.patches.get(name)
        if not patches:
            return None, {}
        options = {key: value for key, value in self.options.items() if key not in ("patches", "patches_replace")}
        options["n_heads"], options["dim_head"] = attention.heads, getattr(attention, "dim_head", None)
        block = options.get("block")
        full = block and (block[0], block[1], options.get("block_index", 0))
        return patches.get(full, patches.get(block)), options

    @property
    def adds_rows(self) -> bool:
        """Whether somebody changes the rows that cross attention sees in this call (regional prompts do)."""
        return bool(self.options.get("patches", {}).get("attn2_patch"))

    def control_for(self, index: int, prepared: Prepared, hidden: Tensor) -> Tensor:
        """What control adds to unit `index`, [F,groups,T,C]; the convolutions run once per run, not per step."""
        _, groups, tokens, _ = hidden.shape
        signal = self._signal(index, tokens)
        known = self._control.get(index)
        if known is None or known[0] is not signal or known[1].dtype != hidden.dtype:
            known = (signal, prepared.control_tokens(signal.to(hidden.device)))
            self._control[index] = known
        return torch.stack([spread_rows(added, groups, self.groups) for added in known[1]])

    def _signal(self, index: int, tokens: int) -> Tensor:
        """The signal of unit `index`'s depth, on the block's grid, which others may shrink for a while."""
        have = list(self.signals)
        if not self.depths and tokens in self.signals:
            return self.signals[tokens]
        if self.depths and have:
            depth = min(self.depths[index], len(have) - 1)
            own = self.signals[have[depth]]
            if have[depth] == tokens:
                return own
            grid = grid_of(tokens, (own.shape[-2], own.shape[-1]))
            if grid is not None:
                return self._on_grid(own, grid, (depth, tokens))
        known = ", ".join(str(count) for count in have) or "none at all"
        raise InputError(
            f"a layer of {tokens} tokens, and control signals of {known}",
            "a control image of the size of the picture",
            "encode the control image at the size of the picture; switch token merging off",
        )

    def _on_grid(self, signal: Tensor, grid: tuple[int, int], key: tuple[int, int]) -> Tensor:
        known = self._resampled.get(key)
        if known is None or known[0] is not signal:
            resampled = F.interpolate(signal.float(), size=grid, mode="bilinear", antialias=True)
            self._resampled[key] = known = signal, resampled.to(signal.dtype)
        return known[1]


ROUNDING = 1.5  # tokens by which halving and shrinking may change a side


def grid_of(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of so many tokens in the proportions of `size`; None where they make no such grid."""
    scale = math.sqrt(tokens / (size[0] * size[1]))
    height, width = (side * scale for side in size)
    rows = range(max(1, math.ceil(height - ROUNDING)), math.floor(height + ROUNDING) + 1)
    fitting = [(row, tokens // row) for row in rows if tokens % row == 0 and abs(tokens // row - width) <= ROUNDING]
    return min(fitting, key=lambda grid: abs(grid[0] - height), default=None)
