"""Whatever is wrong, the user reads why, no picture passes for what it is not, and the next plain job is as before."""

from __future__ import annotations

import base64
import io
import shutil
import sys

import numpy as np
import pytest
import torch
from fakes.running import (
    IMAGE_ARGUMENTS,
    as_mapping,
    layer_of,
    networks_of,
    picture,
    plain,
    positional,
    run,
    same_pictures,
)
from fakes.usable import Usable

from lib_layerdiffuse.core.methods import find_method

# --- arguments


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"method": "(SD1.5) Only Generate Opaque Image"}, ("Only Generate Opaque", "sd15_fg")),
        ({"method": 7}, ("method xl_bg2blend", "sd15_fg")),
        ({"method": 10}, ("method 10", "4 (xl_fg_attn)")),
        ({"method": "sd15_fg", "weight": "much"}, ("weight", "much")),
        ({"method": "sd15_fg", "weight": float("nan")}, ("weight",)),
        ({"method": "sd15_fg", "weight": 9}, ("weight", "0 to 2")),
        ({"method": "sd15_fg", "ending_step": -0.5}, ("ending_step",)),
        ({"method": "sd15_fg", "passes": 3}, ("passes",)),
        ({"method": "sd15_fg", "resize_mode": "Stretch"}, ("resize_mode", "Just Resize")),
        ({"method": "sd15_fg2bg", "fg_image": "not base64"}, ("fg_image", "base64")),
        ({"method": "sd15_fg2bg", "fg_image": base64.b64encode(b"GIF89a?").decode()}, ("fg_image",)),
        ({"method": "sd15_fg2bg", "fg_image": np.zeros((4, 4, 7), np.uint8)}, ("fg_image",)),
    ],
    ids=lambda value: "-".join(f"{name}" for name in value) if isinstance(value, dict) else None,
)
def test_a_bad_argument(usable, layer, words) -> None:
    usable.check(run(usable.webui, layer, steps=1, n_iter=2), *words)


def test_too_many_arguments(usable) -> None:
    usable.check(run(usable.webui, [*positional(method="sd15_fg"), 1, 2, 3], steps=1), "arguments")


def test_an_unknown_name_in_a_mapping(usable) -> None:
    usable.check(run(usable.webui, as_mapping(metod="sd15_fg"), steps=1), "metod")


def test_a_mapping_whose_switch_cannot_be_read(usable) -> None:
    usable.check(run(usable.webui, as_mapping(enabled="perhaps", method="sd15_fg"), steps=1), "enabled")


def test_a_box_that_is_neither_ticked_nor_not(usable) -> None:
    usable.check(run(usable.webui, ["perhaps", *positional(method="sd15_fg")[1:]], steps=1), "enabled")


# --- pictures that a method needs


@pytest.mark.parametrize("method", ["sd15_bg2fg", "xl_fg2blend"])
def test_forge_6_a_conditioned_method_without_its_image(make_webui, flavour, method) -> None:
    row = find_method(method)
    usable = Usable(make_webui(flavour, row.base))
    usable.check(run(usable.webui, {"method": method}, steps=1), IMAGE_ARGUMENTS[row.images[0]])


def test_both_missing_images_are_named(make_webui) -> None:
    usable = Usable(make_webui("forge", "sdxl"))
    usable.check(run(usable.webui, {"method": "xl_fgblend2bg"}, steps=1), "fg_image", "blend_image")


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_forge_6_an_image_as_base64(sdxl, prefix) -> None:
    layer = layer_of(find_method("xl_fg2blend"))
    buffer = io.BytesIO()
    layer["fg_image"].save(buffer, "PNG")
    text = prefix + base64.b64encode(buffer.getvalue()).decode()
    from_text = run(sdxl, layer | {"fg_image": text}, steps=1)
    from_page = run(sdxl, layer, steps=1)
    as_array = run(sdxl, layer | {"fg_image": np.array(layer["fg_image"])}, steps=1)
    assert from_text.error is None and not sdxl.errors
    assert same_pictures(from_text, from_page) and same_pictures(as_array, from_page)
    assert not torch.equal(from_text.samples, run(sdxl, layer_of(find_method("xl_bg2blend")), steps=1).samples)


# --- checkpoints


@pytest.mark.parametrize(("base", "method"), [("sd15", "xl_fg2blend"), ("sdxl", "sd15_fg")])
def test_issue_133_a_method_of_another_base(make_webui, flavour, base, method) -> None:
    usable = Usable(make_webui(flavour, base))
    outcome = run(usable.webui, layer_of(find_method(method)), steps=1)
    usable.check(outcome, method, find_method(method).base.replace("sd", "SD").replace("xl", "XL").replace("15", "1.5"))


def test_issue_70_no_restart_is_needed(usable) -> None:
    assert run(usable.webui, {"method": "xl_fg_conv"}, steps=1).error
    outcome = run(usable.webui, {"method": "sd15_fg"}, steps=1)
    assert outcome.modes == ["RGBA"] and outcome.error is None
    usable.check_webui()


@pytest.mark.parametrize("flag", ["is_sd2", "is_sd3"])
def test_an_architecture_without_methods(usable, flag) -> None:
    setattr(usable.webui.sd_model, flag, True)
    outcome = run(usable.webui, {"method": "sd15_fg"}, steps=1)
    delattr(usable.webui.sd_model, flag)
    usable.check(outcome, flag.removeprefix("is_").upper())


def test_issue_130_an_unknown_architecture(usable) -> None:
    model = usable.webui.sd_model
    model.is_sd1 = False
    outcome = run(usable.webui, {"method": "sd15_fg"}, steps=1)
    model.is_sd1 = True
    usable.check(outcome, "architecture")


def test_an_inpainting_checkpoint(usable) -> None:
    first = networks_of(usable.webui)["unet"].input_blocks[0][0]
    first.in_channels = 9
    outcome = run(usable.webui, {"method": "sd15_fg"}, steps=1)
    first.in_channels = 4
    usable.check(outcome, "9 input channels")


def test_another_engine_in_place_of_the_unet(make_webui) -> None:
    usable = Usable(make_webui("a1111", "sd15"))
    sys.modules["modules.sd_unet"].current_unet = object()
    outcome = run(usable.webui, {"method": "sd15_fg"}, steps=1)
    sys.modules["modules.sd_unet"].current_unet = None
    usable.check(outcome, "engine")


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_an_empty_method_is_the_single_one_of_the_loaded_base(make_webui, flavour, base) -> None:
    webui = make_webui(flavour, base)
    outcome = run(webui, {"method": ""}, steps=1)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not webui.errors
    assert find_method(outcome.parameters["layerdiffusion_method"]).base == base


# --- weight files


@pytest.fixture
def own_models(tmp_path, layers, monkeypatch):
    """A models folder with a few layer files, for tests that spoil them; nothing may be downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "models" / "layer_model"
    folder.mkdir(parents=True)
    for path in layers.glob("layer_sd15_[tv]*.safetensors"):
        shutil.copy(path, folder)
    return folder


def with_models(webui, folder):
    """The WebUI with another models folder."""
    sys.modules["modules.paths"].models_path = str(folder.parent)
    webui.opts.set("layerdiffuse_offline", True)
    return Usable(webui)


WEIGHTS = "layer_sd15_transparent_attn.safetensors"
DECODER = "layer_sd15_vae_transparent_decoder.safetensors"
ENCODER = "layer_sd15_vae_transparent_encoder.safetensors"


@pytest.mark.parametrize("name", [WEIGHTS, DECODER])
def test_forge_7_missing_weights(sd15, own_models, name) -> None:
    usable = with_models(sd15, own_models)
    (own_models / name).unlink()
    usable.check(run(sd15, {"method": "sd15_fg"}, steps=1), name, "LayerDiffusion/layerdiffusion-v1", str(own_models))


def test_a_missing_encoder_matters_in_image_to_image_only(forge, own_models) -> None:
    usable = with_models(forge, own_models)
    (own_models / ENCODER).unlink()
    assert run(forge, {"method": "sd15_fg"}, steps=1).modes == ["RGBA"]
    usable.check(run(forge, {"method": "sd15_fg"}, init_images=[picture()], steps=2), ENCODER)


def truncated(path) -> None:
    """The first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def a_web_page(path) -> None:
    """What a blocked download leaves."""
    path.write_text("<!DOCTYPE html><html><body>Sign in</body></html>")


def foreign(path) -> None:
    """The weights of something else."""
    shutil.copy(path.with_name(ENCODER), path)


@pytest.mark.parametrize("spoil", [truncated, a_web_page, foreign], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("name", [WEIGHTS, DECODER])
def test_broken_weights(forge, own_models, name, spoil) -> None:
    usable = with_models(forge, own_models)
    spoil(own_models / name)
    usable.check(run(forge, {"method": "sd15_fg"}, steps=1), "download")


def test_a_mended_file_is_read_again(forge, own_models, layers) -> None:
    with_models(forge, own_models)
    truncated(own_models / WEIGHTS)
    assert run(forge, {"method": "sd15_fg"}, steps=1).error
    shutil.copy(layers / WEIGHTS, own_models)
    assert run(forge, {"method": "sd15_fg"}, steps=1).modes == ["RGBA"]


# --- sizes


@pytest.mark.parametrize(("width", "height"), [(72, 64), (64, 136), (88, 72)])
def test_forge_3_a_size_that_is_no_multiple_of_64(sd15, width, height) -> None:
    outcome = run(sd15, {"method": "sd15_fg"}, width=width, height=height, steps=1)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not sd15.errors
    assert outcome.pictures[0].size == (width, height) and np.ptp(outcome.arrays[0][..., 3]) > 0


def test_issue_54_size_not_a_multiple_of_64(sdxl) -> None:
    """'Sizes of tensors must match except in dimension 1. Expected size 40 but got size 39'."""
    outcome = run(sdxl, layer_of(find_method("xl_bgblend2fg")), width=104, height=312, steps=1)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not sdxl.errors


def test_the_box_is_not_ticked_and_all_else_is_wrong(usable) -> None:
    outcome = run(usable.webui, plain(method="nonsense", weight="much"), steps=1)
    assert same_pictures(outcome, usable.before) and not outcome.parameters and not usable.webui.errors
