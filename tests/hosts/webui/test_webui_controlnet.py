"""sd-webui-controlnet with the demo model's ControlNet for lines beside us, compared with the standalone host."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
from cases import check_layers, difference, for_bases, for_methods
from client import as_base64, layered, picture, same
from PIL import Image, ImageDraw

from lib_layerdiffuse.api import generate
from lib_layerdiffuse.files.demo_folder import CONTROLNET, DEMO_FOLDER
from lib_layerdiffuse.standalone.demo import load_demo

NAME, SIDE = "ControlNet", 128
PROMPTS = {"prompt": "a house", "negative_prompt": "", "width": SIDE, "height": SIDE}
RUN = {**PROMPTS, "steps": 20, "cfg_scale": 1.5, "sampler_name": "DDIM", "seed": 5}
ROUNDING = 6  # mean levels: A1111 runs the sampler's first step elsewhere


def drawing() -> Image.Image:
    """A house in white lines on black."""
    lines = Image.new("RGB", (SIDE, SIDE))
    pen = ImageDraw.Draw(lines)
    pen.rectangle((30, 60, 98, 112), outline="white")
    pen.polygon(((22, 60), (64, 20), (106, 60)), outline="white")
    pen.rectangle((55, 84, 73, 112), outline="white")
    return lines


@pytest.fixture
def control(host) -> Path:
    """The ControlNet's file where the WebUI lists it: the one that ships, or a random one."""
    if NAME.lower() not in host.client.get("/sdapi/v1/scripts")["txt2img"]:
        pytest.skip("this WebUI has no ControlNet: name it with --webui-extension")
    folder = host.webui.data / "models/ControlNet"
    path = folder / f"{CONTROLNET}.safetensors"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        shipped = DEMO_FOLDER / path.name
        if shipped.exists():
            shutil.copyfile(shipped, path)
        else:
            tiny.write_controlnet(folder, load_demo().unet, CONTROLNET)
    return path


def unit(host, **choices) -> dict:
    """The API's field that switches the ControlNet on."""
    models = host.client.get("/controlnet/model_list?update=true")["model_list"]
    model = next(name for name in models if name.startswith(CONTROLNET))
    chosen = {"module": "none", "model": model, "image": as_base64(drawing()), "save_detected_map": False}
    return {NAME: {"args": [{"enabled": True, **chosen, **choices}]}}


@for_bases("demo")
def test_a_plain_picture_follows_it_as_in_the_standalone_host(host, control):
    plain, followed = host.txt2img(**RUN), host.txt2img(**RUN, alwayson_scripts=unit(host))
    assert not same(plain.images[0], followed.images[0])
    assert same(plain.images[0], host.txt2img(**RUN, alwayson_scripts=unit(host, weight=0.0)).images[0])
    alone = generate(transparent=False, **of_ours(control))[0].image
    assert difference(followed.images[0], alone) < ROUNDING


@for_methods("demo_fg", "demo_joint", "demo_fg2bg", "demo_bg2fg")
def test_every_layer_follows_it_as_in_the_standalone_host(host, method, control):
    if not (DEMO_FOLDER / f"{method.weights}.safetensors").exists():
        pytest.skip(f"no {method.weights}")
    scripts, fields = layered(method)["alwayson_scripts"], RUN | {"batch_size": len(method.frames)}
    ours = host.txt2img(**fields, alwayson_scripts=scripts)
    both = host.txt2img(**fields, alwayson_scripts=scripts | unit(host))
    check_layers(both, method, size=(SIDE, SIDE))
    assert not any(map(same, ours.images, both.images))
    assert "layerdiffusion_note" not in both.info["extra_generation_params"]
    images = {name: picture(name) for name in method.images}
    alone = generate(method=method.id, mode=method.mode, passes=1, **images, **of_ours(control))
    for one, other in zip(both.images, alone, strict=True):
        assert difference(one.convert("RGBA"), other.image.convert("RGBA")) < ROUNDING


def of_ours(control: Path) -> dict:
    """`RUN` for the standalone host."""
    chosen = {"guidance": RUN["cfg_scale"], "steps": RUN["steps"], "seed": RUN["seed"], "sampler": "ddim"}
    return {"prompt": RUN["prompt"], "count": 1, **chosen, "controlnet": control, "control_image": drawing()}
