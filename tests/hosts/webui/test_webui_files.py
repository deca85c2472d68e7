"""Every file that a WebUI writes of a job by its settings: with the transparency that belongs to it."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from cases import for_methods, some_upscaler
from client import HIRES, SIZE, HttpError, as_base64, is_transparent, layered, picture, same
from PIL import Image
from server import changed_settings

KINDS = (".png", ".jpg", ".webp", ".txt")
for_single = for_methods("sd15_fg", "demo_fg")


def new_files(host, job, **settings) -> tuple[list[Image.Image], dict[str, Path]]:
    """The pictures that a job answers with, and the files that it writes by these settings, by name."""
    before = set(host.webui.data.glob("output*/**/*"))
    with changed_settings(host.client, **{"grid_save": False, **settings}):
        result = job()
    assert result.error == ""
    saved = sorted(set(host.webui.data.glob("output*/**/*")) - before)
    first = result.info.get("index_of_first_image", 0)
    return result.images[first:], {path.name: path for path in saved if path.suffix in KINDS}


def opened(saved: dict[str, Path], ending: str) -> Image.Image:
    """The one file whose name ends so."""
    (path,) = (path for name, path in saved.items() if name.endswith(ending))
    with Image.open(path) as image:
        image.load()
    return image


def inpainting(host, method, **choices):
    """A job that paints the middle anew."""
    mask = Image.new("L", (SIZE, SIZE))
    mask.paste(255, (16, 16, 48, 48))
    masked = {"mask": as_base64(mask), "mask_blur": 0, "inpainting_fill": 1, "inpaint_full_res": False}
    return host.img2img(picture(), **masked, save_images=True, **(layered(method) | choices))


@for_single
def test_webp_holds_the_very_pixels_and_the_infotext(host, method):
    layers, saved = new_files(
        host, lambda: host.txt2img(save_images=True, **layered(method)), layerdiffuse_file_format="webp", save_txt=True
    )
    assert same(opened(saved, ".webp"), layers[0]) and len(saved) == 2
    (path,) = (path for name, path in saved.items() if name.endswith(".webp"))
    told = host.client.post("/sdapi/v1/png-info", {"image": base64_of(path)})
    assert "layerdiffusion_method" in told["info"]
    assert path.with_suffix(".txt").read_text(encoding="utf-8").strip() == told["info"].strip()


def base64_of(path: Path) -> str:
    """A file as the API takes it."""
    return base64.b64encode(path.read_bytes()).decode()


@for_single
@pytest.mark.parametrize("upscaler", ["Lanczos", "Latent"])
def test_before_hires_fix(host, method, upscaler):
    first = host.txt2img(**layered(method)).images[0]
    choices = HIRES | {"hr_scale": 2, "hr_upscaler": upscaler, "hr_second_pass_steps": 2}
    _, saved = new_files(
        host,
        lambda: host.txt2img(save_images=True, **choices, **layered(method)),
        save_images_before_highres_fix=True,
        samples_format="jpg",
    )
    found = opened(saved, "-before-highres-fix.png")
    assert found.size == first.size
    difference = np.abs(np.int16(found) - np.int16(first))[np.asarray(first)[..., 3] > 0]
    assert difference.mean() < 1  # made-up weights make much of a level that rounding took


@pytest.mark.parametrize(("base", "joint"), [("sd15", "sd15_joint"), ("sdxl", "xl_joint"), ("demo", "demo_joint")])
@pytest.mark.parametrize("seeds", [{}, {"fg_seed": 70, "blend_seed": 90}], ids=["the set's", "their own"])
def test_every_name_and_text_of_a_set_tells_its_seed(host, base, joint, seeds):
    """That of a grid and of what was saved before the second pass, too; by one method, and by a chain."""
    more = {"hr_scale": 2, "hr_upscaler": some_upscaler(host.client), "hr_second_pass_steps": 2, "save_images": True}
    fields = HIRES | more | {"batch_size": 1 if base == "sdxl" else 3, "seed": 40}
    settings = {"save_images_before_highres_fix": True, "grid_save": True, "grid_extended_filename": True}
    layer = {"alwayson_scripts": {"LayerDiffuse": {"args": [{"method": joint, **seeds}]}}}
    _, saved = new_files(host, lambda: host.txt2img(**fields, **layer), **settings)
    kinds = [next((kind for kind in ("before-highres-fix", "grid") if kind in name), "layer") for name in saved]
    assert sorted(kinds) == ["before-highres-fix"] * 3 + ["grid"] + ["layer"] * 3
    for name, path in saved.items():
        with Image.open(path) as file:
            assert "-40-" in name.replace(".png", "-"), name
            assert ", Seed: 40," in file.info["parameters"], name


@for_single
def test_mask_cut_out_start_picture_and_colours_before_correction(host, method):
    settings = {"save_mask": True, "save_mask_composite": True, "return_mask_composite": True, "save_init_img": True}
    more = {"img2img_color_correction": True, "save_images_before_color_correction": True}
    pictures, saved = new_files(host, lambda: inpainting(host, method), **settings, **more)
    layer, cut = pictures
    assert same(opened(saved, "-mask-composite.png"), cut) and is_transparent(cut)
    outside = np.asarray(cut)[:12, ..., 3]
    assert not outside.any() and is_transparent(layer)
    assert is_transparent(opened(saved, "-before-color-correction.png"))
    (start,) = (path for path in saved.values() if "init" in path.parent.name)
    assert same(Image.open(start), picture())


@for_single
def test_the_jpeg_copy_of_a_large_picture_shows_what_viewers_show(host, method):
    layers, saved = new_files(
        host,
        lambda: host.txt2img(save_images=True, **layered(method)),
        export_for_4chan=True,
        target_side_length=SIZE // 2,
    )
    shown = np.asarray(opened(saved, ".jpg"), np.float32)
    white = Image.new("RGBA", layers[0].size, "white")
    white.alpha_composite(layers[0])
    small = white.convert("RGB").resize((SIZE // 2, SIZE // 2), Image.LANCZOS)
    assert np.abs(shown - np.asarray(small, np.float32)).mean() < 16


@for_single
def test_nothing_but_the_infotext_is_in_the_apis_png(host, method):
    (layer,) = host.txt2img(**layered(method)).images
    assert set(layer.info) == {"parameters"}


@for_single
@pytest.mark.parametrize("rule", ["padded", "as-decoded", "cleared"])
def test_hidden_colours(host, method, rule):
    padded = host.txt2img(**layered(method)).images[0]
    layers, saved = new_files(
        host, lambda: host.txt2img(save_images=True, **layered(method)), layerdiffuse_hidden_colours=rule
    )
    values, hidden = np.asarray(layers[0]), np.asarray(layers[0])[..., 3] == 0
    assert same(opened(saved, ".png"), layers[0])
    assert np.array_equal(values[~hidden], np.asarray(padded)[~hidden])
    if rule == "cleared":
        assert not values[hidden].any()


@for_single
def test_no_mask_is_painted(host, method):
    blank = {"mask": as_base64(Image.new("L", (SIZE, SIZE))), "inpaint_full_res": False, "inpainting_fill": 1}
    result = host.img2img(picture(), **blank, **layered(method))
    assert "nothing is painted into the mask" in str(result.info)
    with changed_settings(host.client, layerdiffuse_fill_transparent=True):
        filled = host.img2img(picture(), **blank, **layered(method))
    assert "nothing is painted" not in str(filled.info) and not same(filled.images[0], result.images[0])


@for_single
def test_soft_inpainting_has_a_mask_of_its_own(host, method):
    if "soft inpainting" not in host.client.get("/sdapi/v1/scripts")["img2img"]:
        pytest.skip("this WebUI has no soft inpainting")
    scripts = {**layered(method)["alwayson_scripts"], "Soft Inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}}
    with changed_settings(host.client, return_mask=True):
        hard = inpainting(host, method, steps=4, do_not_save_grid=True).images
        soft = inpainting(host, method, steps=4, do_not_save_grid=True, alwayson_scripts=scripts).images
    levels = [np.asarray(images[-1].convert("L")) for images in (hard, soft)]
    start, painted = np.asarray(picture()), np.asarray(soft[-2])
    visible = start[..., 3] > 0
    more, less = visible & (levels[0] == 0) & (levels[1] > 16), visible & (levels[0] > 0) & (levels[1] == 0)
    if not more.any() and not less.any():
        pytest.skip("soft inpainting left the mask as it was")
    assert np.array_equal(painted[less], start[less]) and is_transparent(soft[-2])
    assert not more.any() or not np.array_equal(painted[more], start[more])


@for_methods("sd15_joint", "demo_fg")
@pytest.mark.parametrize("mode", ["alpha", "rgb"])
def test_t_diffusiontoolkit_274_extensions_that_hide_a_text_in_pixels(host, method, mode):
    """sd-webui-stealth-pnginfo and sd_webui_stealth_pnginfo (`--webui-extension FOLDER` of one, or of both)."""
    try:
        host.client.post("/sdapi/v1/options", {"stealth_pnginfo": False})
    except HttpError:  # a setting that nobody registered
        pytest.skip("needs such an extension: --webui-extension FOLDER")
    with changed_settings(host.client, stealth_pnginfo=False):
        wanted = host.txt2img(**layered(method)).images
    settings = {"stealth_pnginfo": True, "stealth_pnginfo_mode": mode}
    layers, saved = new_files(host, lambda: host.txt2img(save_images=True, **layered(method)), **settings)
    assert all(map(same, layers, wanted)) and len(saved) == len(wanted)
    for path, layer in zip(saved.values(), wanted, strict=True):
        with Image.open(path) as file:
            assert same(file, layer)
    with changed_settings(host.client, **settings):
        plain = host.txt2img(save_images=True).images[0]
    assert plain.mode == ("RGBA" if mode == "alpha" else "RGB"), "pictures that are not ours are theirs"
