"""Fingerprints of parameters: the same for the same bits, another for any edit."""

from __future__ import annotations

import pytest
import torch

from lib_layerdiffuse.core.offsets.fingerprint import fingerprint

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (3, 5), (6, 4, 3, 3), (16, 32)])
def test_any_edit_is_seen_and_equal_tensors_are_equal(dtype, shape):
    torch.manual_seed(0)
    tensor = torch.randn(shape).to(dtype)
    before = fingerprint(tensor)
    assert fingerprint(tensor.clone()) == before
    for place in range(tensor.numel()):
        edited = tensor.clone()
        edited.view(-1).view(torch.uint8)[place * tensor.element_size()] ^= 1  # one bit
        assert fingerprint(edited) != before


def test_edits_past_torchs_own_count_are_seen():
    parameter = torch.nn.Parameter(torch.randn(8, 8))
    before, count = fingerprint(parameter), parameter._version
    parameter.data[3, 4] += 1e-6
    assert parameter._version == count and fingerprint(parameter) != before


def test_rows_that_change_places_are_seen():
    tensor = torch.randn(8, 8)
    assert fingerprint(tensor) != fingerprint(tensor.flip(0)) != fingerprint(tensor.flip(1))


def test_shape_and_type_belong_to_it():
    zeros = torch.zeros(4, 4)
    prints = {fingerprint(part) for part in (zeros, zeros.view(2, 8), zeros.view(torch.int32), torch.zeros(4, 5))}
    assert len(prints) == 4


def test_views_that_lie_askew_in_memory():
    whole = torch.randn(33, dtype=torch.float16)
    assert fingerprint(whole[1:]) == fingerprint(whole[1:].clone())
    picture = torch.randn(4, 8, 3, 3)
    assert fingerprint(picture.to(memory_format=torch.channels_last)) == fingerprint(picture)


def test_inference_tensors():
    with torch.inference_mode():
        tensor = torch.randn(4, 4)
    assert fingerprint(tensor) == fingerprint(tensor.clone())
