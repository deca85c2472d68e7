"""Prompts of regions by the real sd-forge-couple beside us (`--webui-extension FOLDER` of it)."""

from __future__ import annotations

import pytest
from cases import check_layers, difference, for_methods
from client import Result, layered

NAME = "Forge Couple"
LINES = "a red apple\na blue car"


@pytest.fixture
def couple(host) -> dict:
    """The API's field that switches Forge Couple on, two regions side by side; skips without it."""
    if NAME.lower() not in host.client.get("/sdapi/v1/scripts")["txt2img"]:
        pytest.skip("needs sd-forge-couple: --webui-extension FOLDER")
    values = [True, True, "Basic", "", "Horizontal", "None", 0.5, [[0.0, 1.0, 0.0, 1.0, 1.0]], "off", False, True]
    return {NAME: {"args": values}}


def job(host, method, theirs: dict, prompt: str = LINES, **choices) -> Result:
    scripts = layered(method, **choices)["alwayson_scripts"] | theirs
    return host.txt2img(prompt=prompt, batch_size=len(method.frames), alwayson_scripts=scripts)


def differs(one: Result, other: Result) -> list[bool]:
    """Of each picture."""
    return [difference(*pair) > 0.2 for pair in zip(one.images, other.images, strict=True)]


@for_methods("sd15_fg", "sd15_joint", "sd15_fg2bg", "sd15_bg2fg")
def test_each_region_has_its_prompt(host, method, couple):
    both = job(host, method, couple)
    check_layers(both, method)
    assert both.info["extra_generation_params"]["forge_couple"] is True
    assert "layerdiffusion_note" not in both.info["extra_generation_params"]
    assert all(differs(both, job(host, method, {})))
    assert all(differs(both, job(host, method, couple, "a red apple\na green meadow")))


@for_methods("sd15_joint")
def test_extra_prompts_beside_regions_are_told(host, method, couple):
    """It takes the prompts of its regions from the first picture of a batch, ours or not."""
    without = job(host, method, couple)
    first, other = (job(host, method, couple, **{f"{frame}_additional_prompt": "two cats"}) for frame in ("fg", "bg"))
    for result in (first, other):
        check_layers(result, method)
        assert "beside lib_couple" in result.info["extra_generation_params"]["layerdiffusion_note"]
    assert all(differs(first, without)) and not any(differs(other, without))
