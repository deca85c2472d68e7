"""Flux in few bits: GGUF and bitsandbytes' files, beside the user's Lora.

The WebUI is started anew for those in GGUF, with files of VAE and text models.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import check_layers, difference, for_bases
from checkpoints import HERE
from client import HttpError, layered, same
from packed_flux import TRANSFORMER, parts_of
from safetensors.torch import save_file
from server import find_python
from test_webui_flux import FLUX, FLUX_TWIN, ROUNDING, TWIN, loaded, opaque, refused

pytestmark = for_bases("flux")
MODULES = "forge_additional_modules"
MINUTES = 10


def packed(webui, kind: str) -> Path:
    """The session's checkpoint, packed the first time."""
    source = webui.checkpoints["flux"].path
    target = source.with_stem(f"{source.stem}_{kind}").with_suffix(".safetensors" if kind == "nf4" else ".gguf")
    if not target.exists():
        command = [find_python(webui.path), HERE / "packed_flux.py", webui.path, source, source.parent, kind]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60 * MINUTES)
        assert done.returncode == 0, done.stderr
    return target


@contextmanager
def with_modules(webui, *modules: Path) -> Iterator[None]:
    """The WebUI started anew with these parts of checkpoints: its API does not take any that no page has listed."""
    before = webui.settings
    webui.close()
    webui.settings = before | {MODULES: [str(path) for path in modules]}
    try:
        yield
    finally:
        webui.close()
        webui.settings = before


@pytest.fixture(scope="module")
def gguf(webui) -> Iterator[Path]:
    """The folder of files in few bits."""
    if "flux" not in webui.checkpoints:
        pytest.skip("no flux checkpoint for this WebUI: name one with --webui-checkpoint")
    folder = packed(webui, "Q8_0").parent
    packed(webui, "Q4_0")
    with with_modules(webui, *parts_of(folder)):
        yield folder


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_gguf_in_both_layouts_beside_the_users_lora(gguf, host, kind):
    whole, prompt = host.plain(), {"prompt": f"a red apple {host.lora}"}
    name = packed(host.webui, kind).name
    with loaded(host, host.webui.title_of(host.client, name)):
        plain, before = host.plain(), host.txt2img(**prompt).images[0]
        assert not same(plain, whole)
        layer, both = opaque(host), opaque(host, fields=prompt)
        assert difference(layer, plain) > ROUNDING and difference(both, before) > ROUNDING
        assert difference(both, layer) > ROUNDING
        assert difference(layer, opaque(host, method_file=FLUX_TWIN)) < ROUNDING
        check_layers(host.txt2img(**layered(FLUX)), FLUX)
        assert same(before, host.txt2img(**prompt).images[0]) and same(plain, host.plain())
        merged = host.txt2img(prompt=TWIN).images[0]
        # the WebUI packs what it merged, ours is added to the outputs
        assert difference(layer, merged) < (2 * ROUNDING if kind == "Q8_0" else difference(plain, layer))


def has_bitsandbytes(webui) -> bool:
    """Whether the WebUI's own Python can read four-bit floats."""
    command = [str(find_python(webui.path)), "-c", "import bitsandbytes"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def refused_unread(host) -> None:
    """What comes of a file that the WebUI cannot read."""
    if host.webui.family.name == "forge":
        refused(host, "four-bit floats", "bitsandbytes")
        with pytest.raises(HttpError):
            host.plain()
        return
    with pytest.raises(HttpError, match="bitsandbytes"):
        host.txt2img(**layered(FLUX))


def test_four_bit_floats_are_painted_with_or_refused_in_one_line(host):
    """Without bitsandbytes Forge loads such a file, and its own jobs end in an error; Neo does not load it."""
    whole, name = host.plain(), packed(host.webui, "nf4").name
    host.client.post("/sdapi/v1/refresh-checkpoints", {})
    with loaded(host, host.webui.title_of(host.client, name)):
        if not has_bitsandbytes(host.webui):
            refused_unread(host)
            return
        plain, layer = host.plain(), opaque(host)
        assert not same(plain, whole) and difference(layer, plain) > ROUNDING
        assert difference(layer, opaque(host, method_file=FLUX_TWIN)) < ROUNDING
        check_layers(host.txt2img(**layered(FLUX)), FLUX)
        assert same(plain, host.plain())


@pytest.mark.parametrize("storage", ["bnb-nf4", "bnb-fp4"])
def test_stored_as_four_bit_floats(host, storage):
    """The WebUI packs a checkpoint of 16 bits itself on a GPU alone, and without bitsandbytes leaves it as it is."""
    if host.webui.family.name != "forge" or has_bitsandbytes(host.webui):
        pytest.skip("this WebUI has no such setting, or ends in an error on a processor")
    with loaded(host, host.namesake(storage), forge_unet_storage_dtype=storage):
        plain = host.plain()
        assert difference(opaque(host), plain) > ROUNDING and same(plain, host.plain())


FUSED = "single_transformer_blocks.0.mlp_fc1.qweight", "time_text_embed.guidance_embedder.linear_1.weight"


def test_nunchaku_is_refused_in_one_line(host, monkeypatch):
    """Neo puts a wrapper of its own around such a transformer; what Nunchaku itself is stands in `stand_ins`."""
    webui = host.webui
    if webui.family.name != "neo":
        pytest.skip("Nunchaku is Neo's")
    source = webui.checkpoints["flux"].path
    packed(webui, "Q4_0")
    path = source.with_stem(f"{source.stem}_svdq")
    names = [*FUSED, *(f"single_transformer_blocks.{place}.norm.linear.bias" for place in range(20))]
    save_file({f"{TRANSFORMER}{name}": torch.zeros(8) for name in names}, path)
    folders = [str(HERE / "stand_ins"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
    with with_modules(webui, *parts_of(source.parent)):
        again = replace(host, client=webui.use("flux"))
        with loaded(again, webui.title_of(again.client, path.name)):
            refused(again, "Nunchaku", "Flux.1 dev")
        assert same(webui.plain["flux"], replace(host, client=webui.use("flux")).plain())
