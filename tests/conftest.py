"""Shared fixtures, and the tests folder on the path, so that tests can share `rule` and `tiny`."""

from __future__ import annotations

import gc
import gzip
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import selection  # noqa: E402

if TYPE_CHECKING:
    from lib_layerdiffuse.core.codec.decoder import TransparencyUNet

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """One headless Chromium for all tests with a page; they are skipped where it or playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the tests in an installed WebUI (tests/hosts/webui)."""
    group = parser.getgroup("layerdiffuse", "LayerDiffuse in an installed WebUI")
    group.addoption("--webui", metavar="FOLDER", type=Path, help="run the host tests in the WebUI of this folder")
    checkpoint = "a checkpoint for them; needed by WebUIs that load no small ones; may be given for each base"
    group.addoption("--webui-checkpoint", metavar="FILE", type=Path, action="append", default=[], help=checkpoint)
    other = "the folder of another extension to put beside ours; may be given more than once"
    group.addoption("--webui-extension", metavar="FOLDER", type=Path, action="append", default=[], help=other)
    group.addoption("--screenshots", metavar="FOLDER", type=Path, help="where the page's test puts its pictures")
    group.addoption("--long", action="store_true", help="the hundred jobs, and every combination of parameters too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --long every value of every parameter runs once, not all their combinations."""
    if config.getoption("--long"):
        return
    kept = selection.chosen(items, config.args)
    left_out = set(items) - set(kept)
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = kept


def pytest_configure(config: pytest.Config) -> None:
    """Look for garbage less often: large libraries make many objects, and most of what goes needs no collector."""
    config.addinivalue_line("markers", "long: slow, and quicker tests see nearly the same; runs with --long")
    gc.set_threshold(20_000)


class Imported:
    """How many modules there were when what they made was set aside."""

    modules = 0


def pytest_runtest_logfinish() -> None:
    """What a test was the first to import stays: the garbage collector need not look through it again and again."""
    if len(sys.modules) > Imported.modules + 100:
        Imported.modules = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of inputs and outputs of the original modules on weights made by `rule`."""
    return HERE / "data" / "golden"


@pytest.fixture(scope="session")
def published_decoder(golden: Path) -> TransparencyUNet:
    """The decoder in its published size, 104 million made-up weights, loaded as from its file."""
    from rule import file_state  # the process that hands out the tests needs no torch

    from lib_layerdiffuse.core.codec.decoder import TransparencyUNet

    shapes = json.loads(gzip.decompress((golden / "manifest_decoder.json.gz").read_bytes()))
    return TransparencyUNet.from_state_dict(file_state("layer_sd15_vae_transparent_decoder", shapes))
