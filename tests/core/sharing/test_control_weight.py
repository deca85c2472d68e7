"""The weight of a method scales all of what its control convolutions add, their bias too."""

from __future__ import annotations

import pytest
import torch
from small_attention import small_state

from lib_layerdiffuse.core.sharing.sharing_unit import _control_layers


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_the_last_control_layer_is_scaled_whole(strength) -> None:
    first = "hookers.layers.0."
    state = small_state(2, control=True)
    unit = {key.removeprefix(first): tensor for key, tensor in state.items() if key.startswith(first)}
    prefix = "control_convs.1"
    like = torch.zeros(1)
    first_weight, first_bias, weight, bias = _control_layers(unit, 1, strength, like)
    assert torch.equal(first_weight, unit[f"{prefix}.0.weight"]) and torch.equal(first_bias, unit[f"{prefix}.0.bias"])
    assert torch.allclose(weight, unit[f"{prefix}.2.weight"] * strength)
    assert torch.allclose(bias, unit[f"{prefix}.2.bias"] * strength) and unit[f"{prefix}.2.bias"].abs().max() > 0
