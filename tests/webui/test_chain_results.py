"""What a chain's results know without a WebUI."""

from __future__ import annotations

import pytest

from lib_layerdiffuse.form.arguments import LayerArguments
from lib_layerdiffuse.sets.chains import find_chain
from lib_layerdiffuse.webui.chains.chain_run import ChainRun
from lib_layerdiffuse.webui.chains.results import Results


@pytest.mark.parametrize(("places", "whole"), [([], False), ([0], False), ([1], False), ([1, 0], True)])
def test_a_step_is_whole_when_every_picture_of_it_went_out(places, whole):
    chain = ChainRun(find_chain("sdxl", "joint"), LayerArguments(enabled=True))
    chain.pictures.lists["all_seeds"] = [1, 2]
    for place in places:
        chain.take(chain.step.makes[0], place, None)
    assert Results(None, chain).is_whole is whole
