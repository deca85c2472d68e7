"""A ControlNet in the standalone host: with every kind of method, as diffusers' own pipeline does, nothing left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from test_diffusers_host import assert_untouched, difference, unet_identity
from tiny_hosts import demo_host, sd15_host, sdxl_host

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError, LayerDiffuseError, WeightsError
from lib_layerdiffuse.core.picture.edges import edge_maps
from lib_layerdiffuse.files.downloads import LayerFiles
from lib_layerdiffuse.standalone.controlnet_files import controlnet_table, read_controlnet, write_controlnet
from lib_layerdiffuse.standalone.controlnet_run import control_picture
from lib_layerdiffuse.standalone.demo import load_demo
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost
from lib_layerdiffuse.standalone.settings import GenerateSettings

BASE = GenerateSettings("a red apple", seed=5, steps=2, count=1, passes=1, width=64, height=64)


def square(side: int = 64) -> Image.Image:
    """A white square's outline on black."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[16:48, 16:48] = 255
    pixels[18:46, 18:46] = 0
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> DiffusersHost:
    host = demo_host(tmp_path_factory.mktemp("demo"))
    tiny.write_controlnet(host.files.folders[0], host.pipeline.unet, "demo_control_lines")
    return host


@pytest.fixture(scope="module")
def sd15(tmp_path_factory) -> DiffusersHost:
    host = sd15_host(tmp_path_factory.mktemp("sd15"), {"layer_sd15_joint": 3, "layer_sd15_fg2bg": 2})
    tiny.write_controlnet(host.files.folders[0], host.pipeline.unet)
    return host


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory) -> DiffusersHost:
    host = sdxl_host(tmp_path_factory.mktemp("sdxl"), {"layer_xl_fg2ble": 1})
    tiny.write_controlnet(host.files.folders[0], host.pipeline.unet)
    return host


def own(host: DiffusersHost) -> Path:
    return host.files.folders[0] / "control.safetensors"


def run(host: DiffusersHost, **changes):
    settings, _ = replace(BASE, **changes).validated()
    return host.run(settings)


def controlled(host: DiffusersHost, **changes):
    file = None if host.base == "demo" else own(host)
    return run(host, controlnet=file, control_image=square(), **changes)


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("demo", {}),
        ("demo", {"transparent": False}),
        ("demo", {"init": square(), "steps": 4}),
        ("demo", {"guidance": 1.0}),
        ("sd15", {"mode": "joint"}),
        ("sd15", {"mode": "from-foreground", "method": "sd15_fg2bg", "foreground": square()}),
        ("sdxl", {}),
        ("sdxl", {"method": "xl_fg2blend", "mode": "from-foreground", "foreground": square()}),
        ("sdxl", {"transparent": False, "count": 2}),
    ],
)
def test_every_picture_follows_it_and_the_model_stays_as_it_was(base, changes, request):
    host = request.getfixturevalue(base)
    before = unet_identity(host)
    plain = run(host, **changes)
    followed = controlled(host, **changes)
    for first, second in zip(plain, followed, strict=True):
        assert not np.array_equal(np.asarray(first.image), np.asarray(second.image))
    assert_untouched(host, before)
    assert difference(controlled(host, control_strength=0.0, **changes), plain) == 0
    assert difference(run(host, **changes), plain) == 0


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_as_diffusers_own_pipeline_has_it(base, request, monkeypatch):
    host = request.getfixturevalue(base)
    kinds = {"sd15": StableDiffusionControlNetPipeline, "sdxl": StableDiffusionXLControlNetPipeline}
    parts = dict(host.pipeline.components)
    control = read_controlnet(own(host), host.pipeline.unet)
    more = {"requires_safety_checker": False} if base == "sd15" else {}
    theirs = kinds[base](**parts, controlnet=control, **more)
    theirs.set_progress_bar_config(disable=True)
    latents = theirs(
        "a red apple",
        image=control_picture(np.asarray(square().convert("RGBA")), (64, 64), "just-resize", False),
        num_inference_steps=2,
        guidance_scale=7.0,
        height=64,
        width=64,
        controlnet_conditioning_scale=0.7,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    seen, pixels = [], host.pixels
    monkeypatch.setattr(host, "pixels", lambda latent: seen.append(latent.values) or pixels(latent))
    controlled(host, transparent=False, guidance=7.0, control_strength=0.7)
    assert torch.allclose(seen[0], latents / host.scale[0], atol=1e-5)


@pytest.mark.parametrize("make", [tiny.demo_unet, tiny.sd15_unet, tiny.sdxl_unet])
def test_both_layouts_are_read(make, tmp_path):
    unet = make()
    control = tiny.lively(ControlNetModel.from_unet(unet))
    write_controlnet(control, tmp_path / "ldm.safetensors", torch.float32)
    control.save_pretrained(tmp_path / "diffusers")
    names = set(load_file(tmp_path / "ldm.safetensors"))
    assert {"control_model.input_hint_block.14.weight", "control_model.zero_convs.0.0.bias"} <= names
    assert "control_model.middle_block_out.0.weight" in names
    bare = {name.removeprefix("control_model."): t for name, t in load_file(tmp_path / "ldm.safetensors").items()}
    save_file(bare, tmp_path / "bare.safetensors")
    expected = control.state_dict()
    for file in ("ldm.safetensors", "bare.safetensors", "diffusers/diffusion_pytorch_model.safetensors"):
        state = read_controlnet(tmp_path / file, unet).state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_names_are_those_of_published_files():
    table = controlnet_table(tiny.sd15_unet().config)
    for ldm, diffusers in {
        "zero_convs.11.0.weight": "controlnet_down_blocks.11.weight",
        "middle_block_out.0.bias": "controlnet_mid_block.bias",
        "input_hint_block.4.weight": "controlnet_cond_embedding.blocks.1.weight",
        "input_hint_block.14.weight": "controlnet_cond_embedding.conv_out.weight",
        "input_blocks.4.1.proj_in.weight": "down_blocks.1.attentions.0.proj_in.weight",
        "time_embed.2.bias": "time_embedding.linear_2.bias",
    }.items():
        assert table.to_diffusers(ldm) == diffusers and table.to_ldm(diffusers) == ldm
    assert table.to_diffusers("zero_convs.12.0.weight") is None


def test_a_small_controlnet_has_attention_in_fewer_places(tmp_path):
    unet = tiny.sdxl_unet()
    config = dict(ControlNetModel.from_unet(unet).config)
    config["down_block_types"] = ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"]
    config["transformer_layers_per_block"] = [1, 1, 1]
    control = tiny.lively(ControlNetModel.from_config(config))
    write_controlnet(control, tmp_path / "small.safetensors", torch.float32)
    read = read_controlnet(tmp_path / "small.safetensors", unet)
    assert list(read.config.down_block_types) == config["down_block_types"]
    assert all(torch.equal(tensor, control.state_dict()[name]) for name, tensor in read.state_dict().items())


def test_lines_are_drawn_of_an_ordinary_picture(demo):
    pixels = np.zeros((80, 64, 4), np.uint8)
    pixels[20:60, 16:48] = 255
    drawn = control_picture(pixels, (64, 64), "crop-and-resize", True)
    assert drawn.shape == (1, 3, 64, 64) and set(drawn.unique().tolist()) == {0.0, 1.0}
    as_it_is = control_picture(pixels, (64, 64), "crop-and-resize", False)
    assert as_it_is[0, :, 32, 32].tolist() == [1, 1, 1] and as_it_is[0, :, 2, 2].tolist() == [0, 0, 0]
    lines = Image.fromarray((edge_maps(as_it_is)[0, 0].numpy() * 255).astype(np.uint8))
    photo = Image.fromarray(pixels)
    assert difference(run(demo, control_image=photo, draw_lines=True), run(demo, control_image=lines)) < 40
    assert difference(run(demo, control_image=photo, draw_lines=True), run(demo, control_image=photo)) > 2


def test_it_is_read_once_and_told_in_the_infotext(sd15, monkeypatch):
    first = controlled(sd15, transparent=False)
    kept = sd15._kept["controlnet"][1]
    controlled(sd15, transparent=False)
    assert sd15._kept["controlnet"][1] is kept
    assert 'ControlNet 0: "Module: none, Model: control, Weight: 1"' in first[0].parameters
    assert "ControlNet" not in run(sd15, transparent=False)[0].parameters


def files_of_other_kinds(folder: Path) -> dict[str, Path]:
    paths = {}
    for name, keys in {
        "T2I": ["body.0.in_conv.weight"],
        "LoRA": ["lora_controlnet", "input_hint_block.0.weight"],
        "difference": ["difference", "control_model.input_hint_block.0.weight"],
        "no ControlNet": ["something.weight"],
        "a whole checkpoint": ["model.diffusion_model.input_blocks.0.0.weight"],
    }.items():
        paths[name] = folder / f"{name.replace(' ', '')}.safetensors"
        save_file({key: torch.zeros(3, 3) for key in keys}, str(paths[name]))
    return paths


def test_files_that_are_no_controlnet_for_this_model(sd15, sdxl, demo, tmp_path):
    before = unet_identity(sd15)
    for said, path in files_of_other_kinds(tmp_path).items():
        with pytest.raises(WeightsError, match=said):
            run(sd15, controlnet=path, control_image=square())
    with pytest.raises(BaseMismatchError, match="a ControlNet for a text of width 64"):
        run(sd15, controlnet=own(sdxl), control_image=square())
    with pytest.raises(WeightsError, match="does not fit the loaded model"):
        run(demo, controlnet=own(sd15), control_image=square())
    half = tmp_path / "half.safetensors"
    half.write_bytes(own(sd15).read_bytes()[:5000])
    with pytest.raises(WeightsError, match="truncated"):
        run(sd15, controlnet=half, control_image=square())
    assert_untouched(sd15, before)
    assert difference(run(sd15, transparent=False), run(sd15, transparent=False)) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"controlnet": "nowhere.safetensors", "control_image": square()}, "no file nowhere"),
        ({"controlnet": "nowhere.safetensors"}, "without a picture"),
        ({"control_image": square()}, "without a ControlNet"),
        ({"controlnet": "x", "control_image": "nowhere.png"}, "no file nowhere.png"),
        ({"controlnet": "x", "control_image": square(), "control_strength": 3}, "control_strength"),
        ({"controlnet": 3, "control_image": square()}, "controlnet 3"),
        ({"controlnet": "x", "control_image": 3}, "control_image 3"),
        ({"controlnet": "x", "control_image": square(), "draw_lines": "yes"}, "draw_lines"),
    ],
)
def test_bad_input(sd15, changes, said):
    with pytest.raises(LayerDiffuseError, match=said):
        run(sd15, **changes)


def test_the_demo_model_without_its_controlnet(tmp_path):
    folder = tiny.write_demo_folder(tmp_path)
    host = DiffusersHost(load_demo(folder), "demo", LayerFiles([folder], offline=True))
    with pytest.raises(WeightsError, match="demo_control_lines"):
        run(host, control_image=square())


def test_settings_that_change_nothing_are_named(demo):
    assert "control_strength is not used: there is no control image" in run(demo, control_strength=0.5).notes
    with pytest.raises(InputError):
        run(demo, controlnet="some.safetensors")
