"""The published file for Flux, a pickle: converted once on demand; what could run a program is refused, and not run."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fakes.hub import point_to, serve
from safetensors.torch import load_file

from lib_layerdiffuse.core.bases import BASES, FLUX_HUB
from lib_layerdiffuse.core.codec.decoder import TransparencyUNet
from lib_layerdiffuse.core.codec.encoder import OffsetEncoder
from lib_layerdiffuse.core.codec.reading import read_codec
from lib_layerdiffuse.core.errors import OutputError, WeightsError
from lib_layerdiffuse.core.files.codec_parts import DECODER
from lib_layerdiffuse.files import converting
from lib_layerdiffuse.files.downloads import LayerFiles

STEM = "TransparentVAE"


def codec_state() -> dict[str, torch.Tensor]:
    """Small networks for latents of 16 channels as the published file has them, and a VAE beside them; bfloat16."""
    torch.manual_seed(0)
    networks = {
        "encoder": OffsetEncoder((8, 8, 8, 8), latent_channels=16),
        "decoder": TransparencyUNet((8, 8, 16, 16), latent_channels=16, attention_levels=0, layers=1),
    }
    state = {
        f"{part}.{key}": value for part, network in networks.items() for key, value in network.state_dict().items()
    }
    state["sd_vae.encoder.conv_in.weight"] = torch.rand(4, 3)
    return {key: value.detach().bfloat16() for key, value in state.items()}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> bytes:
    """A file as torch writes it, one weight laid out with its channels last, two that share their numbers."""
    state = codec_state()
    key = "decoder.mid_block.resnets.0.conv1.weight"
    state[key] = state[key].contiguous(memory_format=torch.channels_last)
    state["decoder.conv_norm_out.bias"] = state["decoder.conv_norm_out.weight"]
    path = tmp_path_factory.mktemp("published") / "TransparentVAE.pth"
    torch.save(OrderedDict(state), path)
    return path.read_bytes()


def files_with(folder: Path, content: bytes, name: str = "TransparentVAE.pth") -> LayerFiles:
    (folder / name).write_bytes(content)
    return LayerFiles([folder], offline=True, target=folder)


def test_it_is_converted_once_beside_it(tmp_path, published, monkeypatch):
    files = files_with(tmp_path, published)
    path = files.find(STEM)
    assert path == tmp_path / "TransparentVAE.safetensors" and (tmp_path / "TransparentVAE.pth").is_file()
    saved = torch.load(tmp_path / "TransparentVAE.pth", weights_only=True)
    wanted = {key: value for key, value in saved.items() if not key.startswith("sd_vae.")}
    state = load_file(path)
    assert state.keys() == wanted.keys() and all(torch.equal(state[key], wanted[key]) for key in wanted)
    monkeypatch.setattr(converting.subprocess, "run", None)
    assert files.find(STEM) == path
    assert read_codec(path, DECODER, BASES["flux"].codec.rule).decoder.network.latent_channels == 16


def test_a_download_is_converted_too(tmp_path, published, monkeypatch):
    with serve("TransparentVAE.pth", published, FLUX_HUB.repository) as server:
        point_to(monkeypatch, server)
        path = LayerFiles([tmp_path], target=tmp_path).find(STEM)
    assert server.starts == [0] and len(load_file(path)) == len(codec_state()) - 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["TransparentVAE.pth", "TransparentVAE.safetensors"]


def test_offline_names_the_file_that_the_hub_has(tmp_path):
    with pytest.raises(WeightsError, match=r"TransparentVAE\.pth.*RedAIGC/Flux-version-LayerDiffuse"):
        LayerFiles([tmp_path], offline=True, target=tmp_path).find(STEM)


def test_other_pickles_are_never_read(tmp_path, published, monkeypatch):
    monkeypatch.setattr(converting.subprocess, "run", None)
    for name in ("vae_transparent_decoder.pth", "layerlora.pth", "own.pth"):
        files = files_with(tmp_path, published, name)
    for stem in ("vae_transparent_decoder", "layerlora", "own"):
        with pytest.raises(WeightsError, match="offline"):
            files.find(stem)


# --- what is refused


def archive(**entries: bytes) -> bytes:
    """A ZIP archive; `_` in a name is a dot, `__` a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in entries.items():
            file.writestr(name.replace("__", "/").replace("_", "."), content)
    return buffer.getvalue()


class Runs:
    """Runs a program when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Named:
    """A global of this name, called with arguments when it is unpickled."""

    def __init__(self, call: Callable, *arguments: object):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


class Writer(pickle.Pickler):
    """Storages as torch pickles them: ("storage", class, name, place, numbers)."""

    def persistent_id(self, value: object) -> object:
        return value[1:] if isinstance(value, tuple) and value[:1] == ("STORAGE",) else None


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    Writer(buffer, 2).dump(value)
    return buffer.getvalue()


def tensor(
    shape: tuple = (4,), strides: tuple = (1,), count: object = 4, start: object = 0, name: object = "0"
) -> object:
    storage = ("STORAGE", "storage", torch.FloatStorage, name, "cpu", count)
    return Named(torch._utils._rebuild_tensor_v2, storage, start, shape, strides, False, OrderedDict())


def with_tensor(**choices) -> bytes:
    return archive(a__data_pkl=pickled({"decoder.x": tensor(**choices)}), a__data__0=bytes(16))


def old_format(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def squeezed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", pickled({}))
        file.writestr("a/data/0", bytes(10_000_000))
    return buffer.getvalue()


REFUSED = {
    "another import": lambda: archive(a__data_pkl=pickled({"decoder.x": Named(eval, "1")})),
    "a module": lambda: archive(a__data_pkl=pickled({"decoder.x": torch.nn.Linear})),
    "a subclass of tensors": lambda: archive(
        a__data_pkl=pickled({"decoder.x": Named(torch._utils._rebuild_parameter)})
    ),
    "old format": lambda: old_format(codec_state()),
    "script": script,
    "squeezed": squeezed,
    "no archive": lambda: b"\x80\x02}q\x00.",
    "empty": lambda: b"",
    "web page": lambda: b"<!doctype html>",
    "two pickles": lambda: archive(a__data_pkl=pickled({}), b__data_pkl=pickled({})),
    "no pickle": lambda: archive(a__data__0=b"1234"),
    "broken pickle": lambda: archive(a__data_pkl=b"\x80\x02}q"),
    "a list": lambda: archive(a__data_pkl=pickled([1])),
    "other keys": lambda: archive(a__data_pkl=pickled({"unet.x": tensor()}), a__data__0=bytes(16)),
    "numbers as keys": lambda: archive(a__data_pkl=pickled({1: tensor()})),
    "no tensor": lambda: archive(a__data_pkl=pickled({"decoder.x": 5})),
    "high byte first": lambda: archive(a__data_pkl=pickled({}), a__byteorder=b"big"),
    "too large": lambda: with_tensor(shape=(10**9,)),
    "repeated": lambda: with_tensor(shape=(10**12,), strides=(0,)),
    "negative": lambda: with_tensor(strides=(-1,)),
    "outside": lambda: with_tensor(start=3),
    "short storage": lambda: with_tensor(count=10**9, shape=(10**9,)),
    "no number": lambda: with_tensor(count="4"),
    "elsewhere": lambda: with_tensor(name="../../secret"),
    "not a codec": lambda: with_tensor(),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_anything_else_is_refused_by_name_and_nothing_is_left(tmp_path, kind):
    files = files_with(tmp_path, REFUSED[kind]())
    with pytest.raises(WeightsError, match=r"TransparentVAE\.pth") as caught:
        files.find(STEM)
    assert "a pickle can run programs" in caught.value.what_to_do and len(str(caught.value)) < 600
    assert [file.name for file in tmp_path.iterdir()] == ["TransparentVAE.pth"]


@pytest.mark.parametrize("value", [lambda it: it, lambda it: {"decoder.x": it}, lambda it: {"decoder.x": {"y": [it]}}])
def test_a_program_in_a_pickle_does_not_run(tmp_path, value):
    made = tmp_path / "made"
    files = files_with(tmp_path, archive(a__data_pkl=pickled(value(Runs(made)))))
    with pytest.raises(WeightsError, match=r"the name (posix|nt)\.mkdir"):
        files.find(STEM)
    assert not made.exists()


def test_an_endless_pickle_ends(tmp_path, monkeypatch):
    """Tuples in tuples: hashing the outermost takes for ever."""
    key: tuple = ()
    for _ in range(64):
        key = (key, key)
    head = pickled(key)[:-1]
    monkeypatch.setattr(converting, "LONGEST", 0.5)  # as for ever as two seconds
    files = files_with(tmp_path, archive(a__data_pkl=head + b"K\x01}q\x00" + b"0" + b"."))
    with pytest.raises(WeightsError):
        files.find(STEM)
    body = b"\x80\x02}" + head[2:] + b"K\x01s."  # {key: 1}
    files = files_with(tmp_path, archive(a__data_pkl=body))
    with pytest.raises(WeightsError, match=r"could not be converted|ended with"):
        files.find(STEM)


def test_a_disk_without_room_is_told_as_such(tmp_path, published, monkeypatch):
    files = files_with(tmp_path, published)
    done = subprocess.CompletedProcess([], 28, "", "No space left on device\n")
    monkeypatch.setattr(converting.subprocess, "run", lambda *_arguments, **_named: done)
    with pytest.raises(OutputError, match="No space left"):
        files.find(STEM)
    assert [file.name for file in tmp_path.iterdir()] == ["TransparentVAE.pth"]
