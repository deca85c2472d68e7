"""Fixtures of the tests that run on a stand-in of a WebUI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.networks import POOL, write_all_layers
from fakes.running import load, start
from fakes.webui import WebUI

FLAVOURS = ("a1111", "forge")


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the layer files of all methods, encoders and decoders."""
    return write_all_layers(tmp_path_factory.mktemp("models") / "layer_model")


@pytest.fixture
def make_webui(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, layers: Path) -> Iterator[Callable[..., WebUI]]:
    """Starts a WebUI: `make_webui(flavour, base)`; `patch` is another MonkeyPatch, for more than one in a test."""

    def make(flavour: str = "a1111", base: str = "sd15", patch: pytest.MonkeyPatch = monkeypatch, **engine) -> WebUI:
        folder = tmp_path / f"{flavour}-{len(list(tmp_path.iterdir()))}"
        return load(start(patch, folder, layers, flavour, **engine), f"{base}-one")

    yield make
    POOL.give_back()


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """Every test runs on AUTOMATIC1111 and on Forge."""
    return request.param


@pytest.fixture
def sd15(make_webui: Callable[..., WebUI], flavour: str) -> WebUI:
    """A WebUI with an SD1.5 checkpoint."""
    return make_webui(flavour, "sd15")


@pytest.fixture
def a1111(make_webui: Callable[..., WebUI]) -> WebUI:
    """AUTOMATIC1111 with an SD1.5 checkpoint."""
    return make_webui("a1111", "sd15")


@pytest.fixture
def forge(make_webui: Callable[..., WebUI]) -> WebUI:
    """Forge with an SD1.5 checkpoint."""
    return make_webui("forge", "sd15")


@pytest.fixture
def sdxl(make_webui: Callable[..., WebUI], flavour: str) -> WebUI:
    """A WebUI with an SDXL checkpoint."""
    return make_webui(flavour, "sdxl")


@pytest.fixture(params=["first", "last"])
def before_image_saved(request: pytest.FixtureRequest, sd15: WebUI) -> Callable[[Callable[..., None]], None]:
    """Register a callback of another extension before ours, or after."""
    callbacks = sd15.callbacks.lists["before_image_saved"]
    place = 0 if request.param == "first" else len(callbacks)
    return lambda callback: callbacks.insert(place, callback)
