"""Tests in a real WebUI: `pytest tests/hosts/webui --webui FOLDER [--webui-checkpoint FILE ...]`; skipped without it.

One server serves all tests and is started when the first needs it; tests are grouped by base, as loading a checkpoint
is slow. After every test a plain picture must still be what it was before the first: the extension leaves no trace.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from checkpoints import (  # noqa: E402
    ROOT,
    SUFFIX,
    Checkpoint,
    write_checkpoint,
    write_flux_twins,
    write_layer_files,
    write_lora,
    write_missing_layers,
    write_sibling,
    write_without,
)
from client import Client, Result, result_of, same  # noqa: E402
from control_files import write_control_files  # noqa: E402
from server import EXTENSION, Family, Launch, Server, detect_family, find_python, link_or_copy  # noqa: E402
from texts import write_texts  # noqa: E402
from webui_page import Page  # noqa: E402

from lib_layerdiffuse.files.checkpoints import checkpoint_shapes, recognise_base  # noqa: E402

BASES = ("sd15", "sdxl", "demo", "flux")
# what a base wants of every job. Flux: by the schedule type Automatic, an API's default, Forge samples at levels of
# 9999, 0 and 0 (it takes places in the schedule for levels of noise); the last step divides by 0, and no number is left
OWN: dict[str, dict[str, Any]] = {"flux": {"cfg_scale": 1, "distilled_cfg_scale": 3.5, "scheduler": "Simple"}}
# one step is enough to compare by, and a full-size SDXL takes seconds for each on a processor
FULL_SIZE: dict[str, dict[str, Any]] = {"sdxl": {"steps": 1}}
# of jobs from pictures: at denoising 0.6 two steps begin at the highest level, where Flux has noise alone
FROM_PICTURES: dict[str, dict[str, Any]] = {"flux": {"steps": 3}}
DEMO_FOLDER = "layerdiffuse_demo"
WITNESS, CUT = "layerdiffuse_witness", "layerdiffuse_cut"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip these tests without --webui; group them by base, those of the page last."""
    ours = [item for item in items if HERE in item.path.parents]
    if config.getoption("--webui") is None:
        for item in ours:
            item.add_marker(pytest.mark.skip(reason="needs --webui FOLDER"))
    places = [place for place, item in enumerate(items) if item in set(ours)]
    for place, item in zip(places, sorted(ours, key=group_of), strict=True):
        items[place] = item


def group_of(item: pytest.Item) -> tuple[bool, int]:
    """Where a test belongs in the order of the session."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    base = parameters.get("base")
    return "page" in item.path.stem, BASES.index(base) if base in BASES else 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Adds what the WebUI logged during a test to the report of its failure."""
    report = yield
    webui = item.funcargs.get("webui") if hasattr(item, "funcargs") else None
    if report.failed and webui is not None and webui.server is not None:
        report.sections.append(("log of the WebUI", webui.server.tail(since=webui.log_start)))
    return report


@dataclass
class WebUi:
    """The WebUI under test with all that a session puts beside it, and its server while it runs."""

    path: Path
    data: Path
    layer_models: Path
    checkpoints: dict[str, Checkpoint]
    settings: dict[str, Any]
    server: Server | None = None
    log_start: int = 0
    loaded: str = ""
    plain: dict[str, Image.Image] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        """The family of this WebUI."""
        return detect_family(self.path)

    @property
    def full_size(self) -> bool:
        """Whether its checkpoints are slow ones of the published size."""
        return not self.family.small_checkpoints

    def saved(self) -> set[Path]:
        """The pictures saved so far, in `outputs` or in Neo's `output`, but for grids."""
        return {path for path in self.data.glob("output*/**/*.png") if "grid" not in path.name}

    @property
    def witness(self) -> Path:
        """Where the latents that a sampler ended in are written, [B,4,h,w] in its scale."""
        return self.data / "latents.npy"

    def running(self, page: bool = False) -> Client:
        """The API of the running server, which is started again where it lacks the page."""
        if self.server is None or (page and not self.server.launch.page):
            self.close()
            self.server = Server(self._launch(page), self.data / "webui.log")
            self.server.__enter__()
            self.loaded = ""
        return self.server.client

    def _launch(self, page: bool, base: str = "demo") -> Launch:
        order = (base, *BASES) if page else BASES
        first = next(self.checkpoints[base] for base in order if base in self.checkpoints)
        return Launch(
            self.path,
            self.data,
            self.layer_models,
            checkpoint=str(first.path.relative_to(self.data / "models/Stable-diffusion").as_posix()),
            bases=tuple(self.checkpoints),
            page=page,
            settings=self.settings,
            environment={"LAYERDIFFUSE_WITNESS": str(self.witness)},
        )

    def use(self, base: str, page: bool = False) -> Client:
        """The API with a checkpoint of this base loaded; skips the test where there is none."""
        if base not in self.checkpoints:
            pytest.skip(f"no {base} checkpoint for this WebUI: name one with --webui-checkpoint")
        client = self.running(page)
        if self.loaded != base:
            client.post("/sdapi/v1/options", {"sd_model_checkpoint": self.title(client, base)})
            self.loaded = base
        return client

    def title(self, client: Client, base: str) -> str:
        """The name by which the WebUI knows the checkpoint of a base."""
        return self.title_of(client, self.checkpoints[base].path.name)

    def title_of(self, client: Client, name: str) -> str:
        """The name by which the WebUI knows the checkpoint in a file of this name."""
        models = client.get("/sdapi/v1/sd-models")
        return next(model["title"] for model in models if Path(model["filename"]).name == name)

    @contextlib.contextmanager
    def without_extension(self, base: str) -> Iterator[Server]:
        """A second server, with the same checkpoints, this base's loaded, and nothing of ours."""
        launch = replace(self._launch(True, base), data=self.data.parent / "plain", layer_models=None)
        if not (launch.data / "models").exists():
            link_or_copy(self.data / "models", launch.data / "models")
        with Server(launch, self.data.parent / "plain.log") as server:
            yield server

    @contextlib.contextmanager
    def in_language(self, language: str, base: str) -> Iterator[Server]:
        """A second server in this language, with the same checkpoints, this base's loaded, and our extension."""
        settings = self.settings | {"localization": language}
        launch = replace(self._launch(True, base), data=self.data.parent / language, settings=settings)
        for name in ("models", "extensions"):
            if not (launch.data / name).exists():
                link_or_copy(self.data / name, launch.data / name)
        with Server(launch, self.data.parent / f"{language}.log") as server:
            yield server

    def close(self) -> None:
        """Stop the server, if it runs."""
        if self.server is not None:
            self.server.stop()
            self.server = None


@pytest.fixture(scope="session")
def webui(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUi]:
    """The WebUI with checkpoints, layer files, Loras and this repository as its extension."""
    path = pytestconfig.getoption("--webui").resolve()
    folder = tmp_path_factory.mktemp("webui")
    data, layer_models = folder / "data", folder / "layer_models"
    layer_models.mkdir()
    link_or_copy(ROOT, data / "extensions" / EXTENSION)
    link_or_copy(HERE / "witness", data / "extensions" / WITNESS)
    for other in pytestconfig.getoption("--webui-extension"):
        link_or_copy(other.resolve(), data / "extensions" / other.resolve().name)
    checkpoints = make_checkpoints(path, pytestconfig.getoption("--webui-checkpoint"), data / "models/Stable-diffusion")
    if {"flux", "sdxl"} & set(checkpoints) and detect_family(path).is_forge:
        link_or_copy(HERE / "cut", data / "extensions" / CUT)
    (data / "models/Lora").mkdir(parents=True)
    for base, checkpoint in checkpoints.items():
        if base == "demo":
            write_missing_layers(checkpoint, layer_models)
        else:
            write_layer_files(checkpoint, layer_models)
            write_lora(checkpoint, lora_path(data, base))
        if base == "flux":
            write_flux_twins(checkpoint, layer_models, data / "models/Lora")
        if base == "sd15":
            write_control_files(checkpoint, data / "models/ControlNet")
    found = WebUi(path, data, layer_models, checkpoints, write_texts(data))
    yield found
    found.close()
    for large in (data / "models", layer_models):  # the log and the pictures stay for a look
        shutil.rmtree(large)


def make_checkpoints(webui: Path, given: list[Path], folder: Path) -> dict[str, Checkpoint]:
    """The checkpoints of a session by base: those given, else small ones where this WebUI loads such."""
    family = detect_family(webui)
    folder.mkdir(parents=True)
    found = {}
    for path in given:
        base = recognise_base(checkpoint_shapes(path), path)
        link_or_copy(path.resolve(), folder / f"layerdiffuse_test_{base}{SUFFIX}")
        found[base] = Checkpoint.read(base, folder / f"layerdiffuse_test_{base}{SUFFIX}")
    if family.small_checkpoints:
        for base in ("sd15", "sdxl"):
            if base not in found:
                target = folder / f"layerdiffuse_test_{base}{SUFFIX}"
                found[base] = write_checkpoint(webui, find_python(webui), base, target)
        found["demo"] = copy_demo(folder / DEMO_FOLDER)
    if not found:
        pytest.skip(f"{family.name} loads no small checkpoints: name one with --webui-checkpoint")
    return {base: found[base] for base in BASES if base in found}


def copy_demo(folder: Path) -> Checkpoint:
    """The demo model that ships, where a WebUI looks for checkpoints; its layer files stay in the extension."""
    folder.mkdir(parents=True)
    for name in ("demo.safetensors", "demo.yaml"):
        shutil.copyfile(ROOT / "lib_layerdiffuse/demo_model" / name, folder / name)
    return Checkpoint.read("demo", folder / "demo.safetensors")


def lora_path(data: Path, base: str) -> Path:
    """Where the user's Lora for a base lies."""
    return data / "models/Lora" / f"layerdiffuse_test_{base}{SUFFIX}"


@dataclass
class Host:
    """A WebUI with a checkpoint loaded, as one test uses it."""

    webui: WebUi
    base: str
    client: Client

    @property
    def lora(self) -> str:
        """What a prompt says to use the user's Lora."""
        return f"<lora:{lora_path(self.webui.data, self.base).stem}:1>"

    def layer_file(self, stem: str) -> Path:
        """The layer file of this stem."""
        return self.webui.layer_models / f"{stem}{SUFFIX}"

    def switch(self, base: str) -> None:
        """Load the checkpoint of another base."""
        self.webui.use(base)

    def twin(self) -> str:
        """The title of another checkpoint with the same weights."""
        return self.namesake("twin")

    def namesake(self, name: str) -> str:
        """The title of another checkpoint with the same weights and this in its name, by which Neo knows some kinds."""
        return self._relative(name, lambda path, target: link_or_copy(path.resolve(), target))

    def sibling(self) -> str:
        """The title of another checkpoint with other weights."""
        return self._relative("sibling", write_sibling)

    def relative(self, name: str, gone: re.Pattern[str], added: dict[str, tuple[int, ...]]) -> str:
        """The title of a checkpoint without some keys and with others."""
        return self._relative(name, partial(write_without, gone=gone, added=added))

    def other(self) -> str:
        """The title of another checkpoint: of another base where copies would be large, else with other weights."""
        if not self.webui.full_size:
            return self.sibling()
        bases = [base for base in self.webui.checkpoints if base != self.base]
        if not bases:
            pytest.skip("needs a second --webui-checkpoint, of another base")
        return self.webui.title(self.client, bases[0])

    def _relative(self, name: str, make: Callable[[Path, Path], None]) -> str:
        """The title of another checkpoint, which `make` writes the first time."""
        path = self.webui.checkpoints[self.base].path
        relative = path.with_stem(f"{path.stem}_{name}")
        if not relative.exists():
            make(path, relative)
            if (settings := path.with_suffix(".yaml")).exists():
                link_or_copy(settings.resolve(), relative.with_suffix(".yaml"))
            self.client.post("/sdapi/v1/refresh-checkpoints", {})
        return self.webui.title_of(self.client, relative.name)

    def skip_without_sampler(self, name: str) -> None:
        """Skip a test of a sampler that this WebUI does not have."""
        if name not in {sampler["name"] for sampler in self.client.get("/sdapi/v1/samplers")}:
            pytest.skip(f"this WebUI has no sampler {name}")

    def decoded(self, answer: dict) -> Result:
        """The result in an answer of the API."""
        return result_of(answer)

    @property
    def own(self) -> dict[str, Any]:
        """What every job with this base and WebUI wants."""
        return OWN.get(self.base, {}) | (FULL_SIZE.get(self.base, {}) if self.webui.full_size else {})

    def txt2img(self, **choices) -> Result:
        """A small job from text."""
        return self.client.txt2img(**self.own | choices)

    def img2img(self, *images: Image.Image, **choices) -> Result:
        """A small job from pictures."""
        own = self.own | FROM_PICTURES.get(self.base, {})
        return self.client.img2img(*images, **own | choices)

    def plain(self) -> Image.Image:
        """The plain picture by which changes of the model are noticed."""
        return self.txt2img().images[0]


@pytest.fixture
def host(webui: WebUi, base: str) -> Iterator[Host]:
    """The WebUI with a checkpoint of the test's base; afterwards its plain picture must be the same to the bit."""
    found = Host(webui, base, webui.use(base))
    webui.log_start = webui.server.log.stat().st_size
    if base not in webui.plain:
        webui.plain[base] = found.plain()
    yield found
    after = replace(found, client=webui.use(base)).plain()
    before, webui.plain[base] = webui.plain[base], after  # so that the next test is judged by what it does itself
    assert same(before, after), "a plain picture after this test is not what it was before"


@pytest.fixture(scope="session")
def browser(chromium):
    """One context for all tests: its cache keeps the page's scripts."""
    return chromium.new_context(viewport={"width": 1500, "height": 1100}, accept_downloads=True)


@pytest.fixture(scope="session")
def opened(webui, browser, pytestconfig) -> Iterator[Page]:
    """One tab for all tests: loading the page costs more than any of them."""
    base = next((base for base in ("demo", "sd15", "flux", "sdxl") if base in webui.checkpoints), "sd15")
    webui.use(base, page=True)
    page = Page(browser, webui.server.url, base, pytestconfig.getoption("--screenshots"))
    yield page
    page.tab.close()


@pytest.fixture
def page(webui, opened) -> Page:
    webui.log_start = webui.server.log.stat().st_size
    return opened
