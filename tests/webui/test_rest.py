"""The REST routes, on FastAPI and a stand-in of a WebUI: tables, files and downloads, encode and decode."""

from __future__ import annotations

import base64
import io
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from fakes.hub import point_to, serve
from fakes.running import Snapshot, picture
from PIL import Image
from safetensors.torch import load, save

fastapi = pytest.importorskip("fastapi", reason="every WebUI has it")
testclient = pytest.importorskip("fastapi.testclient", exc_type=ImportError)

from lib_layerdiffuse import __version__  # noqa: E402
from lib_layerdiffuse.core.bases import BASES, SD_HUB  # noqa: E402
from lib_layerdiffuse.core.methods import METHODS  # noqa: E402
from lib_layerdiffuse.form.arguments import BY_NAME  # noqa: E402
from lib_layerdiffuse.form.ways import CHAINS, find_way, ways_for  # noqa: E402
from lib_layerdiffuse.webui.layer_files.transfers import TRANSFERS, Transfer  # noqa: E402

ROOT = "/layerdiffuse/v1"


def client_of(webui, **flags):
    """A caller of a WebUI that was started with these flags."""
    vars(webui.cmd_opts).update({"api": True, "api_auth": None} | flags)
    app = fastapi.FastAPI()
    webui.callbacks.fire("app_started", None, app)
    return testclient.TestClient(app)


def text_of(image: Image.Image) -> str:
    """Base64 of a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def image_of(text: str) -> Image.Image:
    """The picture of a base64 text."""
    return Image.open(io.BytesIO(base64.b64decode(text)))


def latent_text(**tensors: torch.Tensor) -> str:
    """Base64 of a safetensors file."""
    return base64.b64encode(save(tensors)).decode("ascii")


@pytest.fixture(autouse=True)
def no_transfer_yet(monkeypatch) -> None:
    """What one test downloads is none of the others' business."""
    monkeypatch.setattr(TRANSFERS, "last", Transfer())


@pytest.fixture
def client(sd15):
    return client_of(sd15)


def test_without_the_api_there_are_no_routes(a1111) -> None:
    client = client_of(a1111, api=False, nowebui=False)
    assert client.get(f"{ROOT}/version").status_code == 404


def test_with_api_auth_only_its_users_may_call(a1111) -> None:
    client = client_of(a1111, api_auth="anna:secret,ben:with:colon")
    assert client.get(f"{ROOT}/version").status_code == 401
    for name, password, code in (
        ("anna", "secret", 200),
        ("ben", "with:colon", 200),
        ("anna", "wrong", 401),
        ("x", "", 401),
    ):
        assert client.get(f"{ROOT}/version", auth=(name, password)).status_code == code


def test_the_tables(client) -> None:
    assert client.get(f"{ROOT}/version").json()["version"] == __version__
    assert client.get(f"{ROOT}/version").json()["base"] == "sd15"
    assert [row["name"] for row in client.get(f"{ROOT}/schema").json()] == list(BY_NAME)
    rows = client.get(f"{ROOT}/methods").json()
    assert [row["id"] for row in rows] == [row.id for row in (*METHODS, *CHAINS)]
    chain = next(row for row in rows if row["id"] == "xl_bg2fg")
    assert chain["steps"] == ["xl_bg2blend", "xl_bgblend2fg"] and chain["frames"] == ["foreground", "blended"]
    assert chain["files"] == [f"{stem}.safetensors" for stem in find_way("xl_bg2fg").stems]
    joint = next(row for row in client.get(f"{ROOT}/methods?base=sd15").json() if row["id"] == "sd15_joint")
    assert joint["frames"] == ["foreground", "background", "blended"] and joint["transparent_frames"] == 1
    assert len(client.get(f"{ROOT}/methods?base=sdxl").json()) == len(ways_for("sdxl"))


def test_openapi_describes_every_route(client) -> None:
    description = client.get("/openapi.json").json()
    paths = {path: set(entry) for path, entry in description["paths"].items() if path.startswith(ROOT)}
    assert paths == {
        f"{ROOT}/version": {"get"},
        f"{ROOT}/schema": {"get"},
        f"{ROOT}/methods": {"get"},
        f"{ROOT}/files": {"get"},
        f"{ROOT}/files/transfer": {"get", "post", "delete"},
        f"{ROOT}/encode": {"post"},
        f"{ROOT}/decode": {"post"},
        f"{ROOT}/export": {"post"},
        f"{ROOT}/import": {"post"},
        f"{ROOT}/find-out": {"post"},
    }
    summaries = [entry["summary"] for path in paths for entry in description["paths"][path].values()]
    assert all(summaries) and len(set(summaries)) == len(summaries)


def test_encode_and_decode_are_a_round_trip_of_their_own_numbers(sd15, client) -> None:
    """What decode makes of encode's latent is what the codec makes of it, and the model stays as it is."""
    state, given = Snapshot.of(sd15), picture(72, seed=5)  # 72 is no multiple of 64
    made = client.post(f"{ROOT}/encode", json={"image": text_of(given)}).json()
    assert "detail" not in made, made
    latent = load(base64.b64decode(made["latent"]))["latent"]
    assert latent.shape == (1, 4, 9, 9) and (made["width"], made["height"]) == (72, 72)
    assert image_of(made["image"]).mode == "RGB" and image_of(made["image"]).size == (72, 72)
    plain = client.post(f"{ROOT}/encode", json={"image": text_of(Image.new("RGBA", (72, 72)))}).json()
    assert not torch.equal(load(base64.b64decode(plain["latent"]))["latent"], latent)
    answers = [client.post(f"{ROOT}/decode", json={"latent": made["latent"], "passes": 1}).json() for _ in range(2)]
    assert answers[0] == answers[1] and answers[0]["base"] == "sd15"
    decoded = image_of(answers[0]["images"][0])
    assert decoded.mode == "RGBA" and decoded.size == (72, 72) and np.ptp(np.asarray(decoded)[..., 3]) > 0
    cut = client.post(f"{ROOT}/decode", json={"latent": made["latent"], "passes": 1, "width": 70, "height": 64}).json()
    assert np.array_equal(np.asarray(image_of(cut["images"][0])), np.asarray(decoded.crop((0, 0, 70, 64))))
    state.check(sd15)


ZEROS = torch.zeros(1, 4, 8, 8)
HOSTILE = [
    ("encode", {"image": "no base64 at all"}, 422),
    ("encode", {"image": ""}, 422),
    ("encode", {}, 422),
    ("encode", {"image": 5}, 422),
    ("encode", {"image": text_of(Image.new("L", (5000, 5000)))}, 422),
    ("decode", {"latent": "AAAA"}, 422),
    ("decode", {"latent": latent_text(one=ZEROS, two=ZEROS + 1)}, 422),
    ("decode", {"latent": latent_text(one=torch.zeros(4, 8, 8))}, 422),
    ("decode", {"latent": latent_text(one=torch.zeros(0, 4, 8, 8))}, 422),
    ("decode", {"latent": latent_text(one=torch.zeros(1, 16, 8, 8))}, 422),
    ("decode", {"latent": latent_text(one=torch.zeros(17, 4, 8, 8))}, 422),
    ("decode", {"latent": latent_text(one=torch.zeros(1, 4, 513, 512))}, 422),
    ("decode", {"latent": latent_text(one=ZEROS * float("nan"))}, 422),
    ("decode", {"latent": latent_text(one=ZEROS), "passes": 3}, 422),
    ("decode", {"latent": latent_text(one=ZEROS), "width": 65}, 422),
    ("decode", {"latent": latent_text(one=ZEROS), "height": -1}, 422),
    ("files/transfer", {"names": ["../../secret.safetensors"]}, 422),
    ("files/transfer", {"base": "sd3"}, 422),
    ("files/transfer", {"names": "layer_sd15_joint.safetensors"}, 422),
]


@pytest.mark.parametrize(("route", "body", "code"), HOSTILE)
def test_hostile_calls_are_answered_with_what_to_do(a1111, route, body, code) -> None:
    client = client_of(a1111)
    answer = client.post(f"{ROOT}/{route}", json=body)
    assert answer.status_code == code
    detail = answer.json()["detail"]
    if isinstance(detail, dict):  # a list is FastAPI's own, of a wrong type
        assert set(detail) == {"got", "expected", "what_to_do"} and all(detail.values())
    assert client.post(f"{ROOT}/decode", json={"latent": latent_text(one=ZEROS), "passes": 1}).status_code == 200


def test_a_base_that_nobody_knows(client) -> None:
    for route in ("methods", "files"):
        answer = client.get(f"{ROOT}/{route}?base=sd3")
        assert answer.status_code == 422 and "sd15" in answer.json()["detail"]["expected"]


def test_files_are_listed_fetched_in_the_background_and_stopped(a1111, monkeypatch, tmp_path) -> None:
    name, content = "layer_sd15_joint.safetensors", bytes(range(256)) * 4000
    client = client_of(a1111)
    shutil.copytree(a1111.models, tmp_path / "mine")  # not the folder of all tests
    monkeypatch.setattr(a1111, "models", tmp_path / "mine")
    monkeypatch.setattr(sys.modules["modules.paths"], "models_path", str(tmp_path / "mine"))
    (tmp_path / "mine" / "layer_model" / name).unlink()
    before = client.get(f"{ROOT}/files").json()
    assert before["licence"] == SD_HUB.licence and before["folder"] == str(tmp_path / "mine" / "layer_model")
    assert [row["name"] for row in before["files"] if not row["present"]] == [name]
    with serve(name, content) as server:
        point_to(monkeypatch, server)
        assert client.post(f"{ROOT}/files/transfer", json={}).status_code == 200
        TRANSFERS.last.wait(30)
    told = client.get(f"{ROOT}/files/transfer").json()
    assert told == {"running": False, "doing": None, "done": [name], "error": None}
    row = next(row for row in client.get(f"{ROOT}/files?base=sd15").json()["files"] if row["name"] == name)
    assert row["present"] and row["size"] == len(content)
    with a1111.settings(layerdiffuse_offline=True):
        (tmp_path / "mine" / "layer_model" / name).unlink()
        client.post(f"{ROOT}/files/transfer", json={"names": [name]})
        TRANSFERS.last.wait(30)
        assert "offline" in client.get(f"{ROOT}/files/transfer").json()["error"]["got"]


def test_one_download_at_a_time(a1111, monkeypatch) -> None:
    client = client_of(a1111)
    began, names = [], [f"{BASES['sdxl'].decoder}.safetensors"]

    def slowly(self, stem):
        began.append(stem)
        while not self._state.interrupted:
            time.sleep(0.01)

    monkeypatch.setattr("lib_layerdiffuse.webui.layer_files.downloads.HostLayerFiles.find", slowly)
    monkeypatch.setattr("lib_layerdiffuse.webui.layer_files.downloads.HostLayerFiles.present", lambda self, stem: None)
    assert client.post(f"{ROOT}/files/transfer", json={"names": names, "base": "sdxl"}).json()["running"]
    second = client.post(f"{ROOT}/files/transfer", json={})
    assert second.status_code == 409 and "one at a time" in second.json()["detail"]["expected"]
    assert not client.delete(f"{ROOT}/files/transfer").json()["running"] and began == [BASES["sdxl"].decoder]
