"""Forge's control models that are no ControlNet, with made-up weights beside us: ControlLLLite and Fooocus inpaint."""

from __future__ import annotations

import pytest
from cases import check_layers, difference, for_methods
from client import HttpError, as_base64, layered, picture
from control_files import INPAINT, LITE
from PIL import Image

NAME = "ControlNet"


def unit(host, stem: str, **choices) -> dict:
    """The API's field that switches on the control model in the file of this stem; skips where there is none."""
    if NAME.lower() not in host.client.get("/sdapi/v1/scripts")["txt2img"]:
        pytest.skip("this WebUI has no ControlNet")
    models = host.client.get("/controlnet/model_list")["model_list"]
    model = next((name for name in models if name.startswith(stem)), None) or pytest.skip(f"lists no {stem}")
    mask = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    images = {"image": as_base64(picture("background")), "mask_image": as_base64(mask)}
    return {NAME: {"args": [{"module": "None", "model": model, "save_detected_map": False, **images, **choices}]}}


@for_methods("sd15_fg", "sd15_joint", "sd15_bg2fg")
def test_lite_control_has_its_effect_beside_us(host, method):
    check_effect(host, method, unit(host, LITE))


@for_methods("sd15_fg")
def test_fooocus_inpaint_has_its_effect_beside_us(host, method):
    check_effect(host, method, unit(host, INPAINT))


@for_methods("sd15_bg2fg")
def test_fooocus_inpaint_takes_no_batches(host, method):
    """It fails by itself, as it compares all timesteps of a batch at once; so beside us, and both leave no trace."""
    theirs, ours = unit(host, INPAINT), layered(method)["alwayson_scripts"]
    for scripts in (theirs, ours | theirs):
        with pytest.raises(HttpError, match=r"HTTP 500.*more than one value"):
            host.txt2img(batch_size=2, alwayson_scripts=scripts)


def check_effect(host, method, theirs: dict) -> None:
    """Both are to be seen in the pictures."""
    ours, fields = layered(method)["alwayson_scripts"], {"batch_size": len(method.frames)}
    alone = [host.txt2img(**fields, alwayson_scripts=scripts).images for scripts in (ours, theirs)]
    both = host.txt2img(**fields, alwayson_scripts=ours | theirs)
    check_layers(both, method)
    assert "layerdiffusion_note" not in both.info["extra_generation_params"]
    for images in alone:
        pairs = zip(both.images, images, strict=True)
        assert all(difference(one.convert("RGB"), other.convert("RGB")) > 0.2 for one, other in pairs)
