"""Fixtures of the WebUI's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser_tabs import Tabs
from fakes.fixtures import a1111, before_image_saved, flavour, forge, layers, make_webui, sd15, sdxl
from fakes.usable import Usable


@pytest.fixture(autouse=True)
def no_diagnosis(request, monkeypatch):
    """Decoders of random numbers make hazes, of which only the diagnosis' own tests want to hear."""
    if "test_diagnosis" not in request.node.nodeid:
        monkeypatch.setattr("lib_layerdiffuse.webui.finding.diagnosing.diagnose", lambda *_arguments: None)


@pytest.fixture(scope="module")
def tabs(chromium) -> Iterator[Tabs]:
    """Tabs for a file's tests of scripts."""
    context = chromium.new_context(viewport={"width": 700, "height": 1600})
    yield Tabs(context)
    context.close()


@pytest.fixture
def usable(make_webui) -> Usable:
    """AUTOMATIC1111 with an SD1.5 checkpoint."""
    return Usable(make_webui("a1111", "sd15"))


@pytest.fixture
def webui(make_webui):
    """AUTOMATIC1111 with an SDXL checkpoint."""
    return make_webui("a1111", "sdxl")


__all__ = ["a1111", "before_image_saved", "flavour", "forge", "layers", "make_webui", "sd15", "sdxl"]
