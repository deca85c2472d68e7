"""What a user is told when a device's memory does not suffice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..core.errors import InputError
from ..core.memory import is_out_of_memory, release


@contextmanager
def out_of_memory_advice(device: torch.device) -> Iterator[None]:
    """Turns a device's out-of-memory error into an InputError that says what helps."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch has no one type for this over its devices
        if not is_out_of_memory(error):
            raise
        release(device)
        raise InputError(
            "more memory asked for than there is",
            "a run that fits into the memory at hand",
            "choose a smaller --batch or --size, or fewer --passes",
        ) from error
