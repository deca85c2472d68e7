from __future__ import annotations

import sys

import psutil
import pytest
import torch

from lib_layerdiffuse.core import memory
from lib_layerdiffuse.core.memory import UNKNOWN, free_bytes, is_out_of_memory, is_roomy, release


def test_real_out_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(ValueError("out of memory"))


def test_free_memory_is_told_or_assumed():
    cpu, machine = free_bytes(torch.device("cpu")), psutil.virtual_memory()
    assert cpu == pytest.approx(machine.available, rel=0.3) and cpu < machine.total
    assert free_bytes(torch.device("meta")) == UNKNOWN
    release(torch.device("cpu"))


def test_without_psutil_little_is_assumed(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert free_bytes(torch.device("cpu")) == UNKNOWN and not is_roomy(torch.device("cpu"))


def test_a_device_is_roomy_while_more_than_half_of_it_is_free(monkeypatch):
    cpu = torch.device("cpu")
    for free, expected in ((0.6, True), (0.4, False)):
        monkeypatch.setitem(memory._FREE, "cpu", lambda _, free=free: int(free * 2**40))
        monkeypatch.setitem(memory._TOTAL, "cpu", lambda _: 2**40)
        assert is_roomy(cpu) is expected
    assert not is_roomy(torch.device("mps"))  # of whose size nothing is known
