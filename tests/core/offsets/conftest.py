"""The toy UNet as a fixture."""

from __future__ import annotations

import pytest
import torch
from toy_unet import Block


@pytest.fixture
def model() -> Block:
    torch.manual_seed(0)
    return Block().requires_grad_(False)
