"""How much memory a device has to spare, and how to tell that it ran out."""

from __future__ import annotations

import importlib
from typing import Any

import torch

UNKNOWN = 4 * 2**30  # bytes assumed where the system does not say
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "buffer size")


def free_bytes(device: torch.device) -> int:
    """Bytes at hand on `device`, what torch keeps in its own cache included."""
    return _FREE.get(device.type, lambda _: UNKNOWN)(device)


def is_roomy(device: torch.device) -> bool:
    """Whether more than half of the device's memory is free, so that nobody misses what is kept there for later."""
    return device.type in _TOTAL and free_bytes(device) > _TOTAL[device.type](device) / 2


def _free_cuda(device: torch.device) -> int:
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def _free_mps(device: torch.device) -> int:
    # torch before 2.5 does not tell the limit
    limit = getattr(torch.mps, "recommended_max_memory", lambda: UNKNOWN)()
    return max(0, limit - torch.mps.current_allocated_memory())


def _free_cpu(device: torch.device) -> int:
    memory = _system_memory()
    return UNKNOWN if memory is None else memory.available  # it counts what the page cache would give back


def _total_cpu(device: torch.device) -> int:
    memory = _system_memory()
    return 4 * UNKNOWN if memory is None else memory.total


def _system_memory() -> Any:
    """psutil's figures of the machine, on every system; None without psutil, which all hosts bring."""
    try:
        return importlib.import_module("psutil").virtual_memory()
    except (ImportError, OSError, RuntimeError):  # a sandbox may hide the figures
        return None


_TOTAL = {"cuda": lambda device: torch.cuda.mem_get_info(device)[1], "cpu": _total_cpu}
_FREE = {"cuda": _free_cuda, "mps": _free_mps, "cpu": _free_cpu}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, on whichever device, failed for want of memory."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS)


def release(device: torch.device) -> None:
    """Hand torch's cached memory back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
