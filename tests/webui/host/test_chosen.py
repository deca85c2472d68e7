"""A checkpoint that is chosen and not loaded: its base is told by the header of its file, before the first job."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from lib_layerdiffuse.form.accordion import LayerAccordion, Surroundings
from lib_layerdiffuse.form.ways import find_way
from lib_layerdiffuse.webui.host.host import host_name, loaded_base, loaded_base_note

UNET = "model.diffusion_model."
TOKENS, MODULATION, QKV = "img_in.weight", "vector_in.in_layer.weight", "double_blocks.0.img_attn.qkv.weight"


def write_unet(path, context: int, channels: int = 4) -> None:
    """What tells a UNet's base, of a checkpoint in a file."""
    shapes = {"input_blocks.0.0.weight": (8, channels, 3, 3), "middle_block.1.attn2.to_k.weight": (8, context)}
    save_file({UNET + name: torch.zeros(shape) for name, shape in shapes.items()}, path)


@pytest.fixture
def choose(make_webui, tmp_path):
    """Forge before its first job: `choose(file name)` is what its drop-down list does."""
    webui = make_webui("forge", "sd15")
    data = webui.engine.model_data
    data.sd_model = SimpleNamespace()  # what stands there until a checkpoint is loaded

    def call(name: str):
        path = tmp_path / name
        data.forge_loading_parameters = {"checkpoint_info": SimpleNamespace(filename=str(path))}
        return path

    return call


@pytest.mark.parametrize(("context", "base", "joint"), [(768, "sd15", "sd15_joint"), (2048, "sdxl", "xl_joint")])
def test_joint_is_that_of_the_chosen_checkpoint(choose, context, base, joint) -> None:
    write_unet(choose("mine.safetensors"), context)
    assert loaded_base() == base and loaded_base_note() == ""
    place = Surroundings(base=loaded_base, chains=True)
    assert LayerAccordion(None, place).place.methods(place.loaded_base, "joint")[0] is find_way(joint)


def test_another_choice_is_followed_and_so_is_a_file_that_changes(choose) -> None:
    write_unet(choose("one.safetensors"), 768)
    assert loaded_base() == "sd15"
    path = choose("two.safetensors")
    write_unet(path, 2048)
    assert loaded_base() == "sdxl"
    write_unet(path, 768)
    os.utime(path, (1, 1))
    assert loaded_base() == "sd15"


def test_a_transformer_of_flux_without_a_prefix(choose) -> None:
    shapes = {QKV: (24, 8), MODULATION: (8, 8), TOKENS: (8, 64)}
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, choose("flux.safetensors"))
    assert loaded_base() == "flux"


@pytest.mark.parametrize(
    ("context", "channels", "told"), [(1024, 4, "SD2"), (1280, 4, "refiner"), (768, 9, "9 input channels")]
)
def test_what_has_no_methods_is_told_without_its_folder(choose, context, channels, told) -> None:
    path = choose("other.safetensors")
    write_unet(path, context, channels)
    assert loaded_base() is None
    assert told in loaded_base_note() and "other.safetensors" in loaded_base_note()
    assert str(path.parent) not in loaded_base_note()


@pytest.mark.parametrize("content", [None, b"", b"GGUF" + bytes(40), b"PK\x03\x04 a pickle", b"\xff" * 100])
def test_a_file_that_does_not_tell_leaves_it_open(choose, content) -> None:
    path = choose("model.ckpt")
    if content is not None:
        path.write_bytes(content)
    assert loaded_base() is None and loaded_base_note() == ""


def test_a_host_without_a_model_is_named_by_its_modules(tmp_path, monkeypatch) -> None:
    assert host_name(None) == "AUTOMATIC1111"
    (tmp_path / "modules_forge").mkdir()
    (tmp_path / "modules_forge/forge_version.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert host_name(None) == "the Forge family"
