"""What a frozen model makes of texts, made once for all texts of a set: nested dictionaries of tensors [texts,...]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

ENCODED = 256  # texts at a time
MOST_KEPT = 2 * 2**30  # bytes
Encode = Callable[[list[str]], dict[str, Any]]
Change = Callable[..., Any]


def each_tensor(change: Change, *trees: dict[str, Any]) -> dict[str, Any]:
    """Dictionaries of tensors of the same keys, nested or not, as one of `change(*tensors)`."""
    return {
        key: each_tensor(change, *values) if isinstance(values[0], dict) else change(*values)
        for key, values in ((key, [tree[key] for tree in trees]) for key in trees[0])
    }


def encoded_table(encode: Encode, texts: Sequence[str], stored: Change = lambda tensor: tensor) -> dict[str, Any]:
    """What `encode` gives for all texts, a few at a time, each part's tensors as `stored` makes them."""
    parts = [texts[start : start + ENCODED] for start in range(0, len(texts), ENCODED)]
    return each_tensor(lambda *tensors: torch.cat(tensors), *(each_tensor(stored, encode([*part])) for part in parts))


class TextConditions:
    """What a frozen model makes of each text, made once for all texts of a set where that fits into `limit` bytes."""

    def __init__(self, encode: Encode, texts: list[str], limit: int = MOST_KEPT):
        self.encode, self.texts, self.limit = encode, texts, limit
        self.rows = {text: row for row, text in enumerate(texts)}
        self._table: dict[str, Any] | None = None

    def of(self, captions: list[str]) -> dict[str, Any]:
        """The UNet's keyword arguments for `captions`, tensors [B,...], nested as `encode` gives them."""
        table = self.table
        if table is None:
            return self.encode(captions)
        rows = torch.tensor([self.rows[text] for text in captions])
        return each_tensor(lambda tensor: tensor[rows.to(tensor.device)], table)

    @property
    def table(self) -> dict[str, Any] | None:
        """What is made of all texts; None where it would take too much memory."""
        if self._table is None:
            sizes: list[int] = []
            each_tensor(lambda tensor: sizes.append(tensor.nbytes), self.encode(self.texts[:1]))
            if sum(sizes) * len(self.texts) <= self.limit:
                self._table = encoded_table(self.encode, self.texts)
        return self._table
