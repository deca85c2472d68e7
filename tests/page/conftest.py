"""Fixtures of the page's tests: tiny random models, a server, a browser's tab."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from page_visitor import Visitor


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A PageModel of a tiny random model in the layout of the demo model."""
    tiny = pytest.importorskip("tiny", reason="needs the standalone extra")
    from lib_layerdiffuse.page.model import PageModel
    from lib_layerdiffuse.standalone.settings import ModelSettings

    folder = tiny.write_demo_folder(tmp_path_factory.mktemp("demo"))
    tiny.write_controlnet(folder, tiny.demo_unet(), "demo_control_lines")
    return PageModel.load(ModelSettings(demo=folder, device="cpu"))


@pytest.fixture(scope="session")
def layered(tmp_path_factory):
    """A PageModel of a tiny random SD1.5 with files for its joint and its foreground-conditioned method."""
    tiny = pytest.importorskip("tiny", reason="needs the standalone extra")
    import torch

    from lib_layerdiffuse.files.downloads import LayerFiles
    from lib_layerdiffuse.page.model import PageModel
    from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost

    folder = tmp_path_factory.mktemp("sd15")
    torch.manual_seed(1)
    pipeline = tiny.sd15_pipeline(folder)
    tiny.write_sharing(folder, "layer_sd15_joint", 3)
    tiny.write_sharing(folder, "layer_sd15_fg2bg", 2, control=True)
    tiny.write_codec(folder, "layer_sd15_")
    return PageModel(DiffusersHost(pipeline, "sd15", LayerFiles([folder], offline=True)), {})


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory):
    """A PageModel of a tiny random SDXL with the files of all its methods."""
    tiny = pytest.importorskip("tiny", reason="needs the standalone extra")
    from lib_layerdiffuse.files.downloads import LayerFiles
    from lib_layerdiffuse.page.model import PageModel
    from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost

    folder = tmp_path_factory.mktemp("sdxl")
    return PageModel(DiffusersHost(tiny.write_sdxl_folder(folder), "sdxl", LayerFiles([folder], offline=True)), {})


@pytest.fixture(scope="session")
def browser(chromium):
    """One context for all tests: its cache keeps the page's scripts."""
    return chromium.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)


@pytest.fixture(scope="module")
def demo_server(demo) -> Iterator:
    from lib_layerdiffuse.page.server import Server, ServerSettings

    # a busy machine takes long to load the page again
    with Server(demo, ServerSettings(port=0), grace=60.0) as server:
        yield server


@pytest.fixture(scope="module")
def open_page(browser, demo_server) -> Iterator[Visitor]:
    """One tab for a file's tests of the demo model's page: loading it costs more than any of them, and so does rest."""
    someone = Visitor(browser, demo_server)
    yield someone
    someone.tab.close()


@pytest.fixture
def slow(demo, monkeypatch) -> None:
    """Steps that take a while, as those of a model of use do: nobody who stops a run comes too late."""
    unet = demo.pipeline.pipeline.unet
    usual = unet.forward

    def forward(*arguments, **named):
        time.sleep(0.05)
        return usual(*arguments, **named)

    monkeypatch.setattr(unet, "forward", forward)


@pytest.fixture
def visitor(open_page) -> Iterator[Visitor]:
    """The open page with the box ticked, as it is at first."""
    open_page.tab.check("#layerdiffuse_enabled input")
    open_page.tab.wait_for_selector("#layerdiffuse_body", state="visible")
    yield open_page
    assert open_page.foreign == [], "the page must work without a network"
    assert open_page.errors == [], "no script of the page may fail"
