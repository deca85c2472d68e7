"""Shared fixtures, and the tests folder on the path, so that tests can share `rule` and `tiny`."""

from __future__ import annotations

import gc
import gzip
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from rule import file_state  # noqa: E402

from lib_layerdiffuse.core.codec.decoder import TransparencyUNet  # noqa: E402

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


def choices_of(item: pytest.Item) -> dict[str, int]:
    """Which value each parameter of a test has; names that one mark gives together are one parameter."""
    chosen = dict(getattr(getattr(item, "callspec", None), "indices", {}))
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
        for name in list(names)[1:]:
            chosen.pop(name.strip(), None)
    return chosen


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of tests with three parameters or more every second case, chosen so that each pair of values is still there."""
    if config.getoption("--long"):
        return
    seen: dict[str, dict[str, set[int]]] = {}
    for item in items:
        for name, value in choices_of(item).items():
            seen.setdefault(item.nodeid.partition("[")[0], {}).setdefault(name, set()).add(value)
    left_out = []
    for item in items:
        values = seen.get(item.nodeid.partition("[")[0], {})
        free = [value for name, value in choices_of(item).items() if len(values[name]) > 1]
        if len(free) > 2 and sum(free) % 2:
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish() -> None:
    """What was imported until now stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of inputs and outputs of the original modules on weights made by `rule`."""
    return HERE / "data" / "golden"


@pytest.fixture(scope="session")
def published_decoder(golden: Path) -> TransparencyUNet:
    """The decoder in its published size, 104 million made-up weights, loaded as from its file."""
    shapes = json.loads(gzip.decompress((golden / "manifest_decoder.json.gz").read_bytes()))
    return TransparencyUNet.from_state_dict(file_state("layer_sd15_vae_transparent_decoder", shapes))
