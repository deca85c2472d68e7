"""The page: its parts without a browser, then the real page in headless Chromium on tiny random models."""

from __future__ import annotations

import argparse
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

gradio = pytest.importorskip("gradio", minversion="6.0")
tiny = pytest.importorskip("tiny", reason="needs the standalone extra")

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError  # noqa: E402
from lib_layerdiffuse.hosts.diffusers_host import DiffusersHost  # noqa: E402
from lib_layerdiffuse.hosts.downloads import LayerFiles  # noqa: E402
from lib_layerdiffuse.page import cli  # noqa: E402
from lib_layerdiffuse.page.form import Form  # noqa: E402
from lib_layerdiffuse.page.handlers import Handlers  # noqa: E402
from lib_layerdiffuse.page.layout import Layout  # noqa: E402
from lib_layerdiffuse.page.model import PageModel, Progress  # noqa: E402
from lib_layerdiffuse.page.server import Server, ServerSettings  # noqa: E402
from lib_layerdiffuse.page.visits import Visits  # noqa: E402
from lib_layerdiffuse.pictures import Pictures  # noqa: E402
from lib_layerdiffuse.settings import GenerateSettings, ModelSettings  # noqa: E402
from lib_layerdiffuse.webui.arguments import LayerArguments  # noqa: E402

ROOT = Path(__file__).parents[2]
PATIENCE = 60_000  # milliseconds; a busy machine is slow, a broken page is for ever


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> PageModel:
    """A tiny random model in the layout of the demo model."""
    return PageModel.load(ModelSettings(demo=tiny.write_demo_folder(tmp_path_factory.mktemp("demo")), device="cpu"))


@pytest.fixture(scope="session")
def layered(tmp_path_factory) -> PageModel:
    """A tiny random SD1.5 with files for its joint and its foreground-conditioned method."""
    folder = tmp_path_factory.mktemp("sd15")
    torch.manual_seed(1)
    pipeline = tiny.sd15_pipeline(folder)
    tiny.write_sharing(folder, "layer_sd15_joint", 3)
    tiny.write_sharing(folder, "layer_sd15_fg2bg", 2, control=True)
    tiny.write_codec(folder, "layer_sd15_")
    return PageModel(DiffusersHost(pipeline, "sd15", LayerFiles([folder], offline=True)), {})


def settings(**choices) -> dict:
    """Values of the form's own fields for a short run."""
    plain = {"prompt": "red apple", "count": 1, "seed": 5, "steps": 1, "guidance": 1.0, "width": 64, "height": 64}
    return plain | {"negative_prompt": "", "init": None, "denoise": 0.75} | choices


def read_png(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


# --- without a browser


def test_the_box_decides_between_opaque_and_transparent():
    assert not Form(settings(), LayerArguments()).generate_settings("demo").transparent
    chosen = Form(settings(), LayerArguments(enabled=True, weight=0.5, ending_step=0.8, passes=2))
    run = chosen.generate_settings("demo")
    assert (run.transparent, run.method, run.mode) == (True, "demo_fg", "single")
    assert (run.weight, run.stop_at, run.passes, run.resize_mode) == (0.5, 0.8, 2, "crop-and-resize")
    run.validated()


def test_the_form_refuses_what_it_lacks_by_name():
    names = list(settings())
    with pytest.raises(InputError, match="seed"):
        Form.parse(names, (*settings(seed=None).values(),))
    with pytest.raises(InputError, match="fg_image"):
        Form(settings(), LayerArguments(enabled=True, method="sd15_fg2bg")).generate_settings("sd15")


def test_a_run_reports_progress_then_each_picture_then_all(demo):
    reports = list(demo.run(GenerateSettings("banana", count=2, batch=1, steps=2, seed=3, passes=1), threading.Event()))
    assert isinstance(reports[-1], Pictures) and len(reports[-1]) == 2
    fractions = [report.fraction for report in reports if isinstance(report, Progress)]
    assert fractions == sorted(fractions) and fractions[-1] <= 1
    assert [report.seed for report in reports if hasattr(report, "seed")] == [3, 4]


def test_errors_of_a_run_reach_the_page(demo):
    with pytest.raises(BaseMismatchError, match="sd15_joint"):
        list(demo.run(GenerateSettings("banana", mode="joint", method="sd15_joint"), threading.Event()))


def test_leaving_a_run_stops_it(demo):
    stop = threading.Event()
    run = demo.run(GenerateSettings("banana", steps=200), stop)
    next(run)
    run.close()
    assert stop.is_set()
    assert len(list(demo.run(GenerateSettings("banana", steps=1, count=1, passes=1), threading.Event()))) > 0


def test_the_handler_writes_files_and_leaves_no_trace(demo):
    visits = Visits()
    with gradio.Blocks():
        layout = Layout(demo)
        layout.build()
    form = settings(count=2)
    values = [*(form[name] for name in layout.form), True, "demo_fg", *(c.value for c in layout.accordion.inputs[2:])]
    last = list(Handlers(demo, layout, visits).generate(None, *values))[-1]
    paths = [Path(path) for path in last[layout.results["files"]]["value"]]
    assert [path.name for path in paths] == ["red-apple-5.png", "red-apple-6.png"]
    assert all(Image.open(path).mode == "RGBA" for path in paths)
    with zipfile.ZipFile(last[layout.results["zip"]]["value"]) as archive:
        assert archive.namelist() == [path.name for path in paths]
        assert archive.read(paths[1].name) == paths[1].read_bytes()
    visits.close()
    assert not visits.folder.exists()


def test_only_the_last_two_runs_of_a_visitor_are_kept():
    visits = Visits()
    visit = visits.of("one")
    folders = [visit.begin_run() for _ in range(4)]
    assert [folder.exists() for folder in folders] == [False, False, True, True]
    assert visits.of("one") is visit and visits.of("two") is not visit
    visits.leave("one")
    assert not visit.folder.exists() and visit.stop.is_set()
    visits.close()


def test_a_port_in_use_is_a_clear_error(demo):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="port"):
            Server(demo, ServerSettings(port=taken.getsockname()[1]))


def test_the_command_line_has_the_page():
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    chosen = parser.parse_args(["page", "--port", "0", "--models", "one", "--models", "two", "--offline"])
    assert (chosen.port, chosen.models, chosen.server_name) == (0, ["one", "two"], "127.0.0.1")
    with pytest.raises(InputError, match="70000"):
        cli.run(parser.parse_args(["page", "--port", "70000"]))


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_the_command_serves_a_page_until_ctrl_c_and_leaves_no_files(tmp_path):
    folder = tiny.write_demo_folder(tmp_path / "demo")
    command = [
        sys.executable,
        "-m",
        "lib_layerdiffuse",
        "page",
        "--port",
        "0",
        "--demo",
        str(folder),
        "--device",
        "cpu",
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        line = process.stdout.readline()
        url = next(word for word in line.split() if word.startswith("http"))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        page = opener.open(url, timeout=180).read().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(180) == 0
    assert "LayerDiffuse" in page
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("layerdiffuse-page-")]


def test_stop_works_while_another_visitor_uses_the_model(demo):
    stop = threading.Event()
    with demo._turn:
        run = demo.run(GenerateSettings("banana"), stop)
        stop.set()
        assert next(run).stopped


# --- in the browser


@pytest.fixture(scope="session")
def browser(chromium):
    """One context for all tests: its cache keeps the page's scripts."""
    return chromium.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)


class Visitor:
    """A browser tab on the page, and what a visitor does with it."""

    def __init__(self, browser, server: Server):
        self.foreign: list[str] = []
        self.tab = browser.new_page()
        self.tab.set_default_timeout(PATIENCE)
        self.tab.on("request", lambda request: self.note(request.url, server.url))
        self.tab.goto(server.url)
        self.tab.wait_for_selector("#page_generate")

    def note(self, url: str, own: str) -> None:
        if not url.startswith((own, "data:", "blob:")):
            self.foreign.append(url)

    def fill_in(self, prompt: str, count: int = 2, steps: int = 2) -> None:
        self.tab.fill("#page_prompt textarea", prompt)
        self.tab.fill("#page_count input[type=number]", str(count))
        if not self.tab.is_visible("#page_steps input[type=number]"):
            self.tab.click("#page_more > button")
        self.tab.fill("#page_steps input[type=number]", str(steps))
        self.tab.keyboard.press("Tab")

    def generate(self) -> None:
        """Press the button and wait for the files of the new run; a fast run may never draw its progress bar."""
        link = "document.querySelector('#page_files a')?.href ?? ''"
        before = self.tab.evaluate(f"() => {link}")
        self.tab.click("#page_generate")
        self.tab.wait_for_function(f"before => {link} !== before", arg=before)
        self.tab.wait_for_selector("#page_generate:not([disabled])")

    def wait_for_pictures(self, count: int) -> None:
        self.tab.wait_for_function(
            "count => document.querySelectorAll('#page_gallery .gallery-item img').length === count", arg=count
        )

    def download(self, selector: str) -> tuple[str, bytes]:
        with self.tab.expect_download() as waiting:
            self.tab.click(selector)
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()

    def message(self) -> str:
        return self.tab.inner_text("#page_messages")


@pytest.fixture(scope="session")
def demo_server(demo) -> Iterator[Server]:
    with Server(demo, ServerSettings(port=0)) as server:
        yield server


@pytest.fixture(scope="session")
def open_page(browser, demo_server) -> Iterator[Visitor]:
    """One tab for all tests of the demo model's page: loading the page costs more than any of them."""
    someone = Visitor(browser, demo_server)
    yield someone
    someone.tab.close()


@pytest.fixture
def visitor(open_page) -> Iterator[Visitor]:
    """The open page with the box unticked."""
    open_page.tab.uncheck("#layerdiffuse_enabled input")
    open_page.tab.wait_for_selector("#layerdiffuse_weight", state="hidden")
    yield open_page
    assert open_page.foreign == [], "the page must work without a network"


def test_issue_9_tick_prompt_generate_and_download_the_real_rgba_files(visitor):
    tab = visitor.tab
    tab.check("#layerdiffuse_enabled input")
    tab.wait_for_selector("#layerdiffuse_weight")
    assert not tab.is_visible("#layerdiffuse_mode"), "the demo model has no other mode"
    visitor.fill_in("red apple")
    visitor.generate()
    visitor.wait_for_pictures(2)
    tab.wait_for_selector("#page_gallery.ld-checkerboard")

    name, data = visitor.download("#page_files a >> nth=1")
    image = read_png(data)
    seed = int(name.removeprefix("red-apple-").removesuffix(".png"))
    assert image.mode == "RGBA" and image.size == (64, 64)
    assert np.ptp(np.asarray(image)[..., 3]) > 0
    assert "red apple" in image.text["parameters"] and f"Seed: {seed}" in image.text["parameters"]

    zip_name, packed = visitor.download("#page_zip")
    assert zip_name == f"red-apple-{seed - 1}.zip"
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == [f"red-apple-{seed - 1}.png", name]
        assert archive.read(name) == data


def test_box_off_gives_the_ordinary_opaque_picture(visitor):
    visitor.fill_in("banana", count=1)
    visitor.generate()
    visitor.tab.wait_for_selector("#page_gallery:not(.ld-checkerboard)")
    _, data = visitor.download("#page_files a")
    assert read_png(data).mode == "RGB"


def test_stop_keeps_what_is_finished_and_the_page_goes_on(visitor):
    tab = visitor.tab
    visitor.fill_in("banana", count=16, steps=100)
    assert tab.is_disabled("#page_stop")
    tab.click("#page_generate")
    tab.wait_for_selector("#page_stop:not([disabled])")
    assert tab.is_disabled("#page_generate")
    begin = time.monotonic()
    tab.click("#page_stop")
    tab.wait_for_selector("#page_generate:not([disabled])")
    assert time.monotonic() - begin < 15
    assert "stopped after" in visitor.message()
    assert tab.is_disabled("#page_stop")
    visitor.fill_in("banana", count=1, steps=1)
    visitor.generate()
    visitor.wait_for_pictures(1)


def test_unknown_words_bring_a_hint_and_a_click_on_a_known_one_removes_it(visitor):
    tab = visitor.tab
    tab.fill("#page_prompt textarea", "a red zeppelin")
    tab.wait_for_selector("#page_hints [role=status]")
    assert "zeppelin" in tab.inner_text("#page_hints") and "red'" not in tab.inner_text("#page_hints")
    tab.click("#page_examples button:has-text('soap bubbles')")
    tab.wait_for_selector("#page_hints [role=status]", state="hidden")
    assert tab.input_value("#page_prompt textarea") == "soap bubbles"


def test_errors_are_told_on_the_page(visitor):
    visitor.fill_in("", count=1)
    visitor.tab.click("#page_generate")
    visitor.tab.wait_for_selector("#page_messages [role=alert]")
    assert "empty prompt" in visitor.message() and "What to do" in visitor.message()
    assert visitor.tab.is_enabled("#page_generate")


def test_the_seed_is_shown_and_can_be_used_again(visitor):
    tab = visitor.tab
    visitor.fill_in("green apple", count=2, steps=1)
    visitor.generate()
    tab.wait_for_function("() => document.querySelector('#page_parameters textarea').value.startsWith('green apple')")
    first = tab.input_value("#page_parameters textarea")
    tab.click("#page_gallery .gallery-item button >> nth=1")
    tab.wait_for_function("before => document.querySelector('#page_parameters textarea').value !== before", arg=first)
    tab.click("#page_reuse")
    tab.wait_for_function("() => Number(document.querySelector('#page_seed input').value) >= 0")
    seed = int(tab.input_value("#page_seed input"))
    assert f"Seed: {seed}," in first
    assert f"Seed: {seed + 1}," in tab.input_value("#page_parameters textarea")


def test_the_files_of_a_visitor_who_leaves_are_removed(browser, demo_server):
    someone = Visitor(browser, demo_server)
    someone.fill_in("banana", count=1, steps=1)
    someone.generate()
    folders = {path.parent for path in demo_server.visits.folder.rglob("banana-*.zip") if "served" not in path.parts}
    someone.tab.close()
    deadline = time.monotonic() + 20
    while any(folder.exists() for folder in folders) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert folders and not any(folder.exists() for folder in folders)


def test_layer_methods_show_their_inputs_and_name_their_layers(browser, layered, tmp_path):
    with Server(layered, ServerSettings(port=0)) as server:
        someone = Visitor(browser, server)
        tab = someone.tab
        tab.check("#layerdiffuse_enabled input")
        assert not tab.is_visible("#layerdiffuse_fg_additional_prompt")
        tab.check("#layerdiffuse_mode input[value=joint]")
        tab.wait_for_selector("#layerdiffuse_fg_additional_prompt")
        assert not tab.is_visible("#layerdiffuse_fg_image")
        tab.fill("#layerdiffuse_bg_additional_prompt textarea, #layerdiffuse_bg_additional_prompt input", "a beach")
        someone.fill_in("a cat", count=1, steps=1)
        someone.generate()
        captions = tab.locator("#page_gallery .caption-label").all_inner_texts()
        assert [text.split(",")[0] for text in captions] == ["foreground", "background", "blended"]

        tab.check("#layerdiffuse_mode input[value=from-foreground]")
        tab.wait_for_selector("#layerdiffuse_fg_image")
        assert not tab.is_visible("#layerdiffuse_bg_image")
        assert not tab.is_visible("#layerdiffuse_fg_additional_prompt")
        tab.click("#page_generate")
        tab.wait_for_selector("#page_messages [role=alert]")
        assert "fg_image" in someone.message()

        picture = np.zeros((40, 30, 4), dtype=np.uint8)
        picture[10:30, 5:25] = (200, 40, 40, 255)
        Image.fromarray(picture).save(tmp_path / "cut-out.png")
        tab.set_input_files("#layerdiffuse_fg_image input[type=file]", tmp_path / "cut-out.png")
        tab.wait_for_selector("#layerdiffuse_fg_image img")
        someone.generate()
        someone.wait_for_pictures(2)
        assert someone.foreign == []
        tab.close()
