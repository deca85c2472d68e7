"""The REST routes in a real WebUI: described, answered, and the model as it was."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from client import HttpError, as_base64, picture, same
from PIL import Image

from lib_layerdiffuse.form.arguments import BY_NAME

ROOT = "/layerdiffuse/v1"


def image_of(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize("base", ["sd15", "sdxl", "demo"])
def test_encode_and_decode(host, base):
    before = host.plain()
    assert host.client.get(f"{ROOT}/version")["base"] == base
    made = host.client.post(f"{ROOT}/encode", {"image": as_base64(picture())})
    decoded = image_of(host.client.post(f"{ROOT}/decode", {"latent": made["latent"], "passes": 1})["images"][0])
    assert decoded.mode == "RGBA" and decoded.size == (made["width"], made["height"]) == (64, 64)
    if base == "demo":  # the others have made-up weights
        assert np.abs(np.asarray(decoded, float)[..., 3] - np.asarray(picture(), float)[..., 3]).mean() < 12
    assert same(host.plain(), before)


@pytest.mark.parametrize("base", ["demo"])
def test_the_tables_are_described_and_answered(host):
    paths = host.client.get("/openapi.json")["paths"]
    assert {f"{ROOT}/{name}" for name in ("version", "schema", "methods", "files", "encode", "decode")} <= set(paths)
    assert [row["name"] for row in host.client.get(f"{ROOT}/schema")] == list(BY_NAME)
    assert all(row["present"] for row in host.client.get(f"{ROOT}/files")["files"])
    with pytest.raises(HttpError, match=r"HTTP 422.*what_to_do"):
        host.client.post(f"{ROOT}/decode", {"latent": "AAAA"})
