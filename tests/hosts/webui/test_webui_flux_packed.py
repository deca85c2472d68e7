"""Flux in few bits: GGUF and bitsandbytes' files, beside the user's Lora.

The WebUI is started anew for those in GGUF, with files of VAE and text models.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cases import check_layers, difference, for_bases
from checkpoints import HERE
from client import layered, same
from packed_flux import parts_of
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
    webui.close()
    webui.settings[MODULES] = [str(path) for path in modules]
    try:
        yield
    finally:
        webui.close()
        del webui.settings[MODULES]


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


def test_four_bit_floats_are_painted_with_or_refused_in_one_line(host):
    """Without bitsandbytes Forge loads such a file, and its own jobs end in an error."""
    whole, name = host.plain(), packed(host.webui, "nf4").name
    host.client.post("/sdapi/v1/refresh-checkpoints", {})
    with loaded(host, host.webui.title_of(host.client, name)):
        if not has_bitsandbytes(host.webui):
            refused(host, "four-bit floats", "bitsandbytes")
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
