"""The REST routes of layered files: layers to a file and back."""

from __future__ import annotations

import base64
import sys

import numpy as np
import pytest
from fakes.running import picture
from PIL import Image

pytest.importorskip("fastapi", reason="every WebUI has it")
pytest.importorskip("fastapi.testclient", exc_type=ImportError)

from lib_layerdiffuse.sets.reading import read_set
from webui.test_rest import ROOT, client_of, image_of, text_of


@pytest.fixture
def client(a1111):
    return client_of(a1111)


def body(**changes):
    """A set of two layers as a request."""
    layers = [
        {"name": "墙", "image": text_of(Image.new("RGB", (24, 16), (0, 0, 250))), "role": "background"},
        {"name": "ball", "image": text_of(picture(8)), "left": 3, "top": -2, "opacity": 0.5, "seed": 7, "prompt": "x"},
    ]
    return {"width": 24, "height": 16, "layers": layers, **changes}


@pytest.mark.parametrize("kind", ["ora", "zip", "psd"])
def test_layers_become_a_file_and_come_back(client, kind) -> None:
    if kind == "psd":
        pytest.importorskip("psd_tools")
    sent = body(format=kind, blended=text_of(Image.new("RGB", (24, 16), "red")))
    answer = client.post(f"{ROOT}/export", json=sent).json()
    assert answer["suffix"] == f".{kind}" and answer["notes"] == []
    assert [layer.name for layer in read_set(base64.b64decode(answer["file"]))] == ["墙", "ball"]
    back = client.post(f"{ROOT}/import", json={"file": answer["file"]}).json()
    assert (back["width"], back["height"]) == (24, 16) and image_of(back["blended"]).getpixel((0, 0))[:3] == (255, 0, 0)
    for row, wanted in zip(back["layers"], sent["layers"], strict=True):
        assert [row[key] for key in ("name", "left", "top")] == [wanted.get(key, 0) for key in ("name", "left", "top")]
        pixels = [np.asarray(image_of(text).convert("RGBA")) for text in (row["image"], wanted["image"])]
        assert np.array_equal(*pixels)
    assert image_of(back["foreground"]).size == image_of(back["background"]).size == (24, 16)


def test_options_and_notes(client) -> None:
    sent = body(format="webp", trim=True, premultiplied=True, recomposite=True)
    answer = client.post(f"{ROOT}/export", json=sent).json()
    assert answer["suffix"] == ".zip" and "no blended picture" in answer["notes"][0]


@pytest.mark.parametrize(
    ("route", "sent", "reason"),
    [
        ("export", body(format="gif"), "the format 'gif'"),
        ("export", body(width=0), "a canvas with width 0"),
        ("export", body(premultiplied=True), "premultiplied colours"),
        ("export", body(layers=[]), "without layers"),
        ("export", body(layers=[{"image": "x"}]), ""),
        ("export", body(layers=[{"image": text_of(picture(4)), "opacity": 2}]), "opacity 2"),
        ("export", body(layers=body()["layers"][1:] * 300), "300 layers"),
        ("import", {"file": "x"}, "no file"),
        ("import", {"file": ""}, "kind unknown"),
        ("import", {"file": base64.b64encode(b"PK\x03\x04").decode()}, "the file: "),
    ],
)
def test_what_cannot_be_done_says_why(client, route, sent, reason) -> None:
    answer = client.post(f"{ROOT}/{route}", json=sent)
    assert answer.status_code == 422 and reason in answer.json()["detail"]["got"]


def test_a_psd_without_psd_tools_names_the_line_to_type(client, monkeypatch) -> None:
    file = client.post(f"{ROOT}/export", json=body()).json()["file"]
    monkeypatch.setitem(sys.modules, "psd_tools", None)
    answer = client.post(f"{ROOT}/import", json={"file": file})
    assert answer.status_code == 501 and "pip install" in answer.json()["detail"]["what_to_do"]
