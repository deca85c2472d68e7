"""Layer files in a WebUI: where they are looked for, where they go, what the user sees and can do meanwhile."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from fakes import ui
from fakes.hub import HubServer, serve, without_proxies

from lib_layerdiffuse.core.bases import BASES, SD_HUB
from lib_layerdiffuse.core.errors import OutputError, WeightsError
from lib_layerdiffuse.files.demo_folder import DEMO_FOLDER
from lib_layerdiffuse.webui.layer_files import downloads
from lib_layerdiffuse.webui.layer_files.downloads import DownloadStopped, HostLayerFiles, amount
from lib_layerdiffuse.webui.page.options import Options

STEM = "layer_sd15_joint"
NAME = f"{STEM}.safetensors"
CONTENT = bytes(range(256)) * 5000
PIECE = 10_000  # what is written and told at a time


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def models(tmp_path) -> Path:
    (tmp_path / "webui" / "models").mkdir(parents=True)
    return tmp_path / "webui" / "models"


class State:
    """The WebUI's state, with all texts that it showed; `interrupted` from a given text on."""

    def __init__(self, stop_at: int | None = None):
        self.texts, self.stop_at = [], stop_at

    @property
    def interrupted(self) -> bool:
        return self.stop_at is not None and len(self.texts) >= self.stop_at

    def __setattr__(self, name, value):
        if name == "textinfo":
            self.texts.append(value)
        super().__setattr__(name, value)


@pytest.fixture
def hub(monkeypatch):
    without_proxies(monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", PIECE)
    with serve(NAME, CONTENT) as server:
        monkeypatch.setattr("lib_layerdiffuse.files.hub.ORIGIN", server.address)
        yield server


def files(models: Path, hub: HubServer | None = None, state: State | None = None, **options) -> HostLayerFiles:
    mirror = hub.address if hub else ""
    return HostLayerFiles(Options(mirror=mirror, **options), models, state or State())


def put(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(b"x")
    return folder / NAME


def test_the_named_folder_goes_before_layer_model_and_that_before_models(models, tmp_path, own_cache):
    put(own_cache / "sd-webui-layerdiffuse" / "layer_model")  # belongs to the command line, not to a WebUI
    named = tmp_path / "named"
    found = []
    for folder in (models, models / "layer_model", named):
        path = put(folder)
        found.append(files(models, offline=True, models_folder=str(named)).find(STEM) == path)
    assert found == [True, True, True]


def test_another_webuis_folder_may_be_named(models, tmp_path):
    path = put(tmp_path / "other" / "models" / "layer_model")
    assert files(models, offline=True, models_folder=str(tmp_path / "other")).find(STEM) == path


def test_nothing_of_the_users_cache_is_used(models, own_cache):
    put(own_cache / "sd-webui-layerdiffuse" / "layer_model")
    with pytest.raises(WeightsError):
        files(models, offline=True).find(STEM)


def test_the_demo_models_files_come_from_the_package(models):
    base = BASES["demo"]
    for stem in (base.decoder, base.encoder, "layer_demo_transparent"):
        assert files(models, offline=True).find(stem) == DEMO_FOLDER / f"{stem}.safetensors"
    own = models / "layer_model" / f"{base.decoder}.safetensors"
    own.parent.mkdir()
    own.write_bytes(b"x")
    assert files(models, offline=True).find(base.decoder) == own


def test_the_checkpoint_of_the_demo_model_is_no_layer_file(models):
    with pytest.raises(WeightsError):
        files(models, offline=True).find("demo")


def test_offline_names_the_webuis_folder_and_the_setting(models):
    with pytest.raises(WeightsError) as caught:
        files(models, offline=True).find(STEM)
    for part in (NAME, SD_HUB.repository, str(models / "layer_model"), "Settings > LayerDiffuse", "offline"):
        assert part in str(caught.value)
    assert "--models" not in str(caught.value)


def test_a_named_folder_that_is_not_there_stops_nothing_but_is_told(models, tmp_path, caplog):
    path = put(models / "layer_model")
    gone = str(tmp_path / "gone")
    assert files(models, offline=True, models_folder=gone).find(STEM) == path
    assert gone in caplog.text
    path.unlink()
    with pytest.raises(WeightsError, match="gone"):
        files(models, offline=True, models_folder=gone).find(STEM)


def test_a_download_goes_to_layer_model_and_shows_how_far_it_is(models, hub, tmp_path):
    state = State()
    path = files(models, hub, state).find(STEM)
    assert path == models / "layer_model" / NAME and path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == [NAME]
    assert state.texts[0] == f"Downloading {NAME}: 0 % of 1 MB"
    assert f"Downloading {NAME}: 50 % of 1 MB" in state.texts
    assert state.texts[-2:] == [f"Downloading {NAME}: 100 % of 1 MB", None]
    assert not (tmp_path / "cache" / "sd-webui-layerdiffuse").exists()


def test_downloads_leave_the_named_folder_alone(models, hub, tmp_path):
    (tmp_path / "named").mkdir()
    files(models, hub, models_folder=str(tmp_path / "named")).find(STEM)
    assert list((tmp_path / "named").iterdir()) == []


def test_interrupt_stops_and_the_next_generation_goes_on(models, hub):
    state = State(stop_at=40)
    with pytest.raises(DownloadStopped, match="generate again"):
        files(models, hub, state).find(STEM)
    assert state.texts[-1] is None
    (partial,) = (models / "layer_model").iterdir()
    have = partial.stat().st_size
    assert 0 < have < len(CONTENT) and partial.suffix == ".partial"
    hub.starts.clear()
    assert files(models, hub).find(STEM).read_bytes() == CONTENT
    assert hub.starts == [have]


def test_interrupted_before_it_began_nothing_is_fetched(models, hub):
    with pytest.raises(DownloadStopped):
        files(models, hub, State(stop_at=0)).find(STEM)
    assert hub.starts == []


def test_a_whole_partial_file_is_not_fetched_again(models, hub):
    folder = models / "layer_model"
    folder.mkdir()
    (folder / f"{NAME}.{hub.etag[:12]}.partial").write_bytes(CONTENT)
    assert files(models, hub).find(STEM).read_bytes() == CONTENT
    assert hub.starts == []


def test_a_mirror_gets_no_token(models, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    files(models, hub).find(STEM)
    assert hub.tokens and set(hub.tokens) == {None}


def test_without_a_mirror_the_environments_hub_is_asked(models, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    assert files(models).find(STEM).read_bytes() == CONTENT


def test_full_disk_names_the_setting(models, hub, monkeypatch):
    def fail(*_arguments, **_named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(downloads, "fetch_file", fail)
    with pytest.raises(OutputError, match="Settings > LayerDiffuse"):
        files(models, hub).find(STEM)


def test_in_a_running_webui_its_own_folders_and_state_are_used(models, hub, monkeypatch):
    shared = ui.shared()
    shared.state = State()
    ui.put_modules(monkeypatch, shared=shared, paths=SimpleNamespace(models_path=str(models)))
    path = HostLayerFiles(Options(mirror=hub.address)).find(STEM)
    assert path == models / "layer_model" / NAME and shared.state.texts


def test_sizes_are_told_as_far_as_they_are_known():
    assert amount(304_630_000, 743_000_000) == "41 % of 743 MB"
    assert amount(304_630_000, None) == "305 MB"
