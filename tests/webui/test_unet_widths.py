"""UNets whose levels are no whole multiples of the first one's width, as LDM's class builds them."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from lib_layerdiffuse.webui import unet_widths


def test_widths_are_whole_numbers_from_either_side():
    factor = unet_widths.Factor(128 / 96)
    assert (factor * 96, 96 * factor) == (128, 128) and isinstance(factor * 96, int)
    whole, other = unet_widths.factors([96, 192, 128])[1:]
    assert whole == 2 and other * 96 == 128


def test_ldms_class_is_built_with_them(monkeypatch):
    module = ModuleType(unet_widths.LDM_MODULE)
    module.UNetModel = lambda channel_mult, model_channels, **others: (
        [model_channels * f for f in channel_mult],
        others,
    )
    monkeypatch.setitem(sys.modules, unet_widths.LDM_MODULE, module)
    widths, others = unet_widths.build_unet(channel_mult=[1, 4 / 3, 1.5], model_channels=96, legacy=False)
    assert widths == [96, 128, 144] and others == {"legacy": False}


@pytest.mark.parametrize("first", [1.0, 1])
def test_the_first_level_keeps_its_width(first):
    assert unet_widths.Factor(first) * 320 == 320
