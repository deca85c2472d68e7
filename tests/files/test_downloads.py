"""Layer files: folder precedence, WebUI layouts, offline errors, a download over HTTP that breaks off and goes on."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import huggingface_hub
import pytest
from fakes.hub import point_to, serve

from lib_layerdiffuse.core.bases import SD_HUB
from lib_layerdiffuse.core.errors import OutputError, WeightsError
from lib_layerdiffuse.files.downloads import LayerFiles
from lib_layerdiffuse.files.hub import fetch_file

NAME = "layer_sd15_joint.safetensors"
CONTENT = bytes(range(256)) * 5000


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sd-webui-layerdiffuse" / "layer_model"


def put(folder: Path, content: bytes = b"x") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(content)
    return folder / NAME


@pytest.mark.parametrize("layout", [".", "layer_model", "models/layer_model"])
def test_a_webuis_folders_are_understood(tmp_path, layout):
    path = put(tmp_path / "webui" / layout)
    assert LayerFiles([tmp_path / "webui"], offline=True).find("layer_sd15_joint") == path.resolve()


def test_folders_are_looked_in_in_order_and_the_cache_last(tmp_path, own_cache):
    put(own_cache)
    second = put(tmp_path / "b")
    (tmp_path / "a").mkdir()
    files = LayerFiles([tmp_path / "a", tmp_path / "b"], offline=True)
    assert files.find("layer_sd15_joint") == second
    first = put(tmp_path / "a")
    assert files.find("layer_sd15_joint") == first
    assert LayerFiles(offline=True).find("layer_sd15_joint") == own_cache / NAME


FORBIDDEN = "offline mode forbids the download"  # more than "offline", which is in the name of a test's folder


def test_offline_asks_nobody_and_says_how_to_get_the_file_by_hand(tmp_path, hub):
    with pytest.raises(WeightsError) as caught:
        LayerFiles([tmp_path], offline=True).find("layer_sd15_joint")
    for part in (NAME, SD_HUB.repository, str(tmp_path), "--models", FORBIDDEN):
        assert part in str(caught.value)
    assert not hub.starts and not (tmp_path / NAME).exists()


def test_offline_by_the_hubs_own_switch_asks_nobody(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=FORBIDDEN):
        LayerFiles([tmp_path]).find("layer_sd15_joint")
    assert not hub.starts and not (tmp_path / NAME).exists()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WeightsError, match="nowhere"):
        LayerFiles([tmp_path / "nowhere"])


@pytest.fixture
def hub(monkeypatch):
    with serve(NAME, CONTENT) as server:
        point_to(monkeypatch, server)
        yield server


def test_download_from_a_mirror_into_the_first_folder(tmp_path, hub, caplog):
    (tmp_path / "models" / "layer_model").mkdir(parents=True)
    with caplog.at_level("INFO"):
        path = LayerFiles([tmp_path]).find("layer_sd15_joint")
    assert SD_HUB.licence in caplog.text
    assert path == tmp_path / "models" / "layer_model" / NAME and path.read_bytes() == CONTENT
    asked = len(hub.starts)
    assert LayerFiles([tmp_path]).find("layer_sd15_joint") == path and len(hub.starts) == asked


def test_download_without_a_folder_goes_to_the_cache(hub, own_cache):
    assert LayerFiles().find("layer_sd15_joint") == own_cache / NAME


def test_a_broken_download_leaves_nothing_under_the_final_name_and_goes_on_later(tmp_path, hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between its own tries
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # what is kept comes in such pieces
    hub.broken = 10_000
    with pytest.raises(WeightsError, match="by hand"):
        LayerFiles([tmp_path]).find("layer_sd15_joint")
    assert not (tmp_path / NAME).exists()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [f"{NAME}.{hub.etag[:12]}.partial"]
    hub.broken = 0
    hub.starts.clear()
    assert LayerFiles([tmp_path]).find("layer_sd15_joint").read_bytes() == CONTENT
    assert hub.starts[0] > 0, hub.starts  # went on where it stopped


def test_a_file_that_the_hub_does_not_have(tmp_path, hub):
    with pytest.raises(WeightsError, match=r"no_such_file.safetensors"):
        LayerFiles([tmp_path]).find("no_such_file")


def test_a_damaged_download_is_thrown_away(tmp_path, hub):
    hub.etag = "0" * 64
    with pytest.raises(WeightsError, match="damaged"):
        LayerFiles([tmp_path]).find("layer_sd15_joint")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def origin(hub, monkeypatch):
    """The hub itself, beside its mirror."""
    with serve(NAME, CONTENT) as server:
        monkeypatch.setattr("lib_layerdiffuse.files.hub.ORIGIN", server.address)
        yield server


def test_what_a_mirror_serves_must_be_what_the_hub_has(tmp_path, hub, origin, caplog):
    assert LayerFiles([tmp_path]).find("layer_sd15_joint").read_bytes() == CONTENT
    assert origin.tokens == [None] and not origin.starts and hub.starts  # the hub was asked, the mirror served
    assert not caplog.records


def test_the_users_token_goes_to_the_hub_of_his_choice_and_to_no_other_mirror(tmp_path, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch_file(SD_HUB.repository, NAME, tmp_path / "mirror", endpoint=hub.address)
    assert hub.starts and set(hub.tokens) == {None}
    hub.tokens.clear()
    fetch_file(SD_HUB.repository, NAME, tmp_path / "hub")
    assert set(hub.tokens) == {"Bearer hf_secret"}


@pytest.mark.parametrize("told", ["its own", "none"])
def test_a_mirror_that_serves_another_file_is_refused_whatever_it_says_of_it(tmp_path, hub, origin, told):
    hub.content = CONTENT[::-1]
    hub.etag = hashlib.sha256(hub.content).hexdigest() if told == "its own" else "abc"
    with pytest.raises(WeightsError, match=r"another layer_sd15_joint|damaged"):
        LayerFiles([tmp_path]).find("layer_sd15_joint")
    assert not list(tmp_path.iterdir()) and (told == "none" or not hub.starts)


def test_where_the_hub_does_not_answer_the_mirror_serves_and_the_log_says_so(tmp_path, hub, monkeypatch, caplog):
    monkeypatch.setattr("lib_layerdiffuse.files.hub.ORIGIN", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert LayerFiles([tmp_path]).find("layer_sd15_joint").read_bytes() == CONTENT
    assert "mirror's own checksum alone" in caplog.text


def test_full_disk_while_downloading(tmp_path, hub, monkeypatch):
    def fail(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", fail)
    with pytest.raises(OutputError, match="No space left"):
        LayerFiles([tmp_path]).find("layer_sd15_joint")
    assert not (tmp_path / NAME).exists()
