"""Checkpoints: the base by their shapes, loading without a network, and what is refused before anything heavy."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from lib_layerdiffuse.api import generate, load
from lib_layerdiffuse.core.errors import BaseMismatchError, InputError, WeightsError
from lib_layerdiffuse.files.checkpoints import recognise_base
from lib_layerdiffuse.standalone import loading
from lib_layerdiffuse.standalone.settings import ModelSettings
from lib_layerdiffuse.training.diffusion.convert import save_ldm_checkpoint

ENTRY = "model.diffusion_model.input_blocks.0.0.weight"
CONTEXT = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def shapes(context: int, channels: int = 4) -> dict[str, tuple[int, ...]]:
    return {ENTRY: (320, channels, 3, 3), CONTEXT: (320, context)}


@pytest.mark.parametrize(("context", "base"), [(768, "sd15"), (2048, "sdxl")])
def test_the_base_is_told_by_the_context_width(context, base):
    assert recognise_base(shapes(context), Path("model.safetensors")) == base


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        (shapes(1024), BaseMismatchError, "SD2"),
        (shapes(1280), BaseMismatchError, "refiner"),
        (shapes(4096), BaseMismatchError, "unknown architecture"),
        (shapes(768, channels=9), BaseMismatchError, "inpainting"),
        ({"lora_unet_down.lora_up.weight": (1, 1)}, WeightsError, "without the UNet"),
        ({"diffusion_model.input_blocks.0.0.weight::diff::0": (320, 4, 3, 3)}, WeightsError, "without the UNet"),
    ],
)
def test_what_is_no_usable_checkpoint_is_named(found, error, message):
    with pytest.raises(error, match=message):
        recognise_base(found, Path("model.safetensors"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle", b"\xff" * 100, b"<html>not found</html>"])
def test_files_that_are_no_safetensors(tmp_path, content):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model.ckpt"):
        load(checkpoint=path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>sign in</html>", "web page"),
        (b"PK\x03\x04 torch.save", "PyTorch checkpoint"),
        (b"\x80\x02}q\x00.", "pickled"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
def test_what_a_foreign_checkpoint_is_is_said(tmp_path, content, kind, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=kind):
        load(tmp_path / name)


def test_a_truncated_checkpoint(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({ENTRY: torch.zeros(320, 4, 3, 3), CONTEXT: torch.zeros(320, 768)}, str(path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"model.safetensors"):
        load(checkpoint=path)


def test_missing_paths_and_devices_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no file .*gone.safetensors"):
        load(checkpoint=tmp_path / "gone.safetensors")
    with pytest.raises(InputError, match="device"):
        load(device="abacus")
    with pytest.raises(InputError, match="precision"):
        load(precision="float8")
    with pytest.raises(InputError, match="device 'meta'"):
        load(device="meta")
    with pytest.raises(InputError, match="colour"):
        load(colour="red")


def test_a_path_is_a_checkpoint_or_a_folder_of_layer_files(tmp_path):
    with pytest.raises(InputError, match=r"no file .*gone.safetensors"):
        load(str(tmp_path / "gone.safetensors"))
    folder = tiny.write_demo_folder(tmp_path)
    for models in (str(folder), folder, [str(folder)]):
        assert load(demo=folder, models=models).files.folders[0] == folder


@pytest.mark.parametrize(
    "choices", [{"models": 7}, {"models": None}, {"models": [None]}, {"checkpoint": 7}, {"demo": ""}, {"offline": "no"}]
)
def test_model_settings_of_the_wrong_type_are_named(choices):
    with pytest.raises(InputError, match=next(iter(choices))):
        load(**choices)
    with pytest.raises(InputError, match="model 7"):
        load(7)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> tuple[Path, Path, StableDiffusionPipeline]:
    """A narrow checkpoint with the context width of SD1.5, by which it is recognised, and its configuration folder."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("single")
    pipeline = tiny.sd15_pipeline(folder, context=768, vae_blocks=1)
    path = folder / "small.safetensors"
    save_ldm_checkpoint(pipeline.vae, pipeline.text_encoder, pipeline.unet, path, torch.float32)
    pipeline.save_pretrained(folder / "config")
    for weights in (folder / "config").rglob("*.safetensors"):
        weights.unlink()
    return path, folder / "config", pipeline


def test_a_single_file_is_loaded_offline_with_its_configuration(checkpoint):
    path, config, pipeline = checkpoint
    host = load(checkpoint=path, config=config, offline=True, device="cpu")
    assert host.base == "sd15" and host.name == "small"
    for name in ("unet", "vae"):
        mine, loaded = getattr(pipeline, name).state_dict(), getattr(host.pipeline, name).state_dict()
        assert mine.keys() == loaded.keys() and all(torch.equal(mine[key], loaded[key]) for key in mine)
    (picture,) = generate("a red apple", pipeline=host, steps=1, count=1, transparent=False)
    assert picture.image.mode == "RGB" and "Model: small" in picture.parameters


def test_without_a_network_the_configuration_is_asked_for(checkpoint, monkeypatch):
    path, config, _ = checkpoint
    with pytest.raises(WeightsError, match="--config"):
        load(checkpoint=path, offline=True)
    with pytest.raises(InputError, match="no folder"):
        load(checkpoint=path, config=config / "gone")


class Listener(http.server.BaseHTTPRequestHandler):
    """A hub that only notes who asks."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        if self.path == "/between":
            self.send_response(204)
            self.end_headers()
        else:
            self.send_error(404)

    do_HEAD = do_POST = do_GET  # the names that the library calls

    def log_message(self, *_arguments):
        """Nothing: the list is the log."""


@pytest.fixture
def hub():
    Listener.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


BOTH = """
import sys, urllib.request
from lib_layerdiffuse.cli.main import main
words = sys.argv[2:]
print(main([*words, "--offline"]), file=sys.stderr)
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1] + "/between")
print(main(words), file=sys.stderr)
"""


def test_offline_asks_nobody(checkpoint, hub, tmp_path):
    """In a process of its own: the libraries read at their import where the hub is."""
    path, _, _ = checkpoint
    words = ["generate", "a cat", "--checkpoint", str(path), "--plain", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "cache")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", BOTH, hub, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    offline, _, online = done.stderr.partition("\n3\n")
    assert done.returncode == 0 and online.rstrip().endswith("\n3"), done.stderr
    assert "--config FOLDER" in offline and "--config FOLDER" in online and not (tmp_path / "out").exists()
    assert "not in the hub's cache" in offline
    # without --offline it asks: the listener is where it would go
    assert Listener.asked[0] == "/between" and len(Listener.asked) > 1


def test_the_switch_is_put_back_after_loading_offline():
    from huggingface_hub import constants

    with loading.offline_hub():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


def test_issue_133_a_wrong_method_is_told_before_the_checkpoint_is_loaded(checkpoint, monkeypatch):
    path, config, _ = checkpoint
    monkeypatch.setattr(loading, "load_checkpoint", lambda *_: pytest.fail("loaded the checkpoint"))
    with pytest.raises(BaseMismatchError, match=r"SD1.5"):
        generate("a cat", method="xl_fg_attn", model=ModelSettings(checkpoint=path, config=config))


def test_the_demo_checkpoint_may_be_named_as_a_file(tmp_path):
    folder = tiny.write_demo_folder(tmp_path)
    assert load(checkpoint=folder / "demo.safetensors").base == "demo"


def test_own_layer_files_come_before_those_of_the_demo(tmp_path):
    folder = tiny.write_demo_folder(tmp_path / "demo")
    (tmp_path / "own").mkdir()
    host = load(demo=folder, models=(tmp_path / "own",))
    assert host.files.find("layer_demo_transparent").parent == folder
    tiny.write_offsets(tmp_path / "own", host.pipeline.unet, "layer_demo_transparent")
    assert host.files.find("layer_demo_transparent").parent == tmp_path / "own"
