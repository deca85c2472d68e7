"""Which stored rows belong to the rows of a UNet call: one for all, the same order again and again, or by index."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .errors import InputError


def spread_rows(stored: torch.Tensor, count: int, rows: Sequence[int] | None = None) -> torch.Tensor:
    """`stored` [N,...] -> [count,...]: one row for all, the rows named, else N rows repeated (N divides `count`).

    InputError for numbers that do not fit.
    """
    if len(stored) == 1:
        return stored.expand(count, *stored.shape[1:])
    if rows is not None:
        if len(rows) != count or not all(0 <= row < len(stored) for row in rows):
            raise InputError(f"row map {list(rows)}", f"{count} numbers below {len(stored)}", "set it before each call")
        return stored[list(rows)]
    if count % len(stored):
        raise InputError(
            f"{count} rows in the UNet call for {len(stored)} conditions",
            f"a multiple of {len(stored)}",
            "give one condition image for all, or one for each picture of the batch",
        )
    return stored.repeat(count // len(stored), *[1] * (stored.ndim - 1)) if count != len(stored) else stored
