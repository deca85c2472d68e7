"""The WebUI's own scripts that cut a picture into tiles and join them: RGBA in, RGBA out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import check_refused, for_methods
from client import Result, is_transparent, layered, picture, same
from PIL import Image
from server import changed_settings

UPSCALE, POOR, MK2 = "sd upscale", "poor man's outpainting", "outpainting mk2"
TILE = 128
ALL = ["left", "right", "up", "down"]
ULTIMATE = "ultimate sd upscale"  # the real one: `--webui-extension FOLDER` of it
for_scripts = pytest.mark.parametrize("name", [UPSCALE, POOR, MK2])


def start(size: tuple[int, int] = (TILE, TILE)) -> Image.Image:
    """A disc that the right edge cuts, so that outpainting has something to go on with."""
    whole = picture("foreground", (size[0] + 32, size[1]))
    return whole.crop((0, 0, *size))


def script_values(host, name: str, directions: list[str], scale: float, fill: int) -> list:
    """The script's own arguments, as this WebUI orders them."""
    values = {
        UPSCALE: [None, 32, "None" if scale == 1 else "Lanczos", scale],
        POOR: [32, 4, fill, directions],
        MK2: [None, 64, 4, directions, 1.0, 0.05],
    }[name]
    return [*values[1:], False] if name == UPSCALE and host.webui.family.name == "neo" else values


def run(host, name: str, image: Image.Image, directions: list[str] = ALL, **choices) -> Result:
    """A small job with this script; skips the test where the WebUI does not have it."""
    if name not in host.client.get("/sdapi/v1/scripts")["img2img"]:
        pytest.skip(f"this WebUI has no script {name}")
    values = script_values(host, name, directions, choices.pop("scale", 1.5), choices.pop("fill", 0))
    fields = {"width": TILE, "height": TILE, "script_name": name, "script_args": values}
    return host.img2img(image, **fields, **choices)


def saved_since(host, before: set[Path]) -> list[Path]:
    """Files that are new, without grids."""
    return sorted(path for path in outputs(host) - before if "grid" not in path.name)


def outputs(host) -> set[Path]:
    return {path for path in (host.webui.data / "outputs").rglob("*") if path.suffix in (".png", ".jpg", ".webp")}


def notes(result: Result) -> str:
    return str(result.info["extra_generation_params"].get("layerdiffusion_note", ""))


def check_kept(result: Result, image: Image.Image, place: tuple[int, int], margin: int) -> None:
    """The start picture lies at its place, but for a margin into which the mask's blur reaches."""
    x, y = (place[axis] + margin for axis in (0, 1))
    width, height = (image.size[axis] - 2 * margin for axis in (0, 1))
    found = result.pixels[0][y : y + height, x : x + width]
    wanted = np.asarray(image)[margin : margin + height, margin : margin + width]
    visible = wanted[..., 3] > 0
    assert np.array_equal(found[..., 3], wanted[..., 3])
    assert np.array_equal(found[visible], wanted[visible])


@for_methods("sd15_fg", "demo_fg")
@for_scripts
@pytest.mark.parametrize("file_format", ["png", "jpg"])
def test_the_joined_picture_is_rgba_in_answer_and_file(host, method, name, file_format):
    before = outputs(host)
    with changed_settings(host.client, samples_format=file_format, samples_save=True):
        result = run(host, name, start(), ["right"], **layered(method))
    assert result.error == "" and len(result.images) == 1 and is_transparent(result.images[0])
    size = {UPSCALE: (192, 192), POOR: (192, 128), MK2: (192, 128)}[name]
    assert result.images[0].size == size
    (path,) = saved_since(host, before)
    with Image.open(path) as file:
        assert file.format == "PNG" and "layerdiffusion_method" in file.text["parameters"]
        assert same(file, result.images[0])


@for_methods("sd15_fg", "demo_fg")
@pytest.mark.parametrize("fill", [0, 1])
def test_poor_mans_outpainting_on_all_sides(host, method, fill):
    image = start()
    result = run(host, POOR, image, fill=fill, **layered(method))
    assert result.error == "" and result.images[0].size == (192, 192)
    check_kept(result, image, (32, 32), margin=32)


@for_methods("sd15_fg", "demo_fg")
def test_outpainting_mk2_on_all_sides_in_a_batch(host, method):
    image = start()
    result = run(host, MK2, image, batch_size=2, **layered(method))
    assert result.error == "" and notes(result) == ""
    assert [picture.size for picture in result.images] == [(512, 256), (256, 256), (256, 256)]
    result.images = result.images[1:]
    assert all(map(is_transparent, result.images)) and not same(*result.images)
    check_kept(result, image, (64, 64), margin=48)


@for_methods("sd15_fg", "demo_fg")
def test_outpainting_mk2_of_a_size_that_is_no_multiple_of_64(host, method):
    image = start((120, 104))
    result = run(host, MK2, image, ["left", "up"], **layered(method))
    assert result.error == "" and notes(result) == ""
    assert result.images[0].size == (192, 192) and is_transparent(result.images[0])
    check_kept(result, image, (72, 88), margin=48)


@for_methods("sd15_fg", "demo_fg")
def test_sd_upscale_at_hardly_any_denoising_gives_the_picture_back(host, method):
    """Tiles are encoded with their alpha, decoded, and joined at their places."""
    image = start((192, 192))
    result = run(host, UPSCALE, image, scale=1, denoising_strength=0.01, batch_size=2, **layered(method))
    assert result.error == "" and result.images[0].size == (192, 192)
    assert is_transparent(result.images[0])
    if method.base == "demo":  # the others have made-up weights
        found, wanted = (np.asarray(one, np.float32) / 255 for one in (result.images[0], image))
        assert np.abs(found[..., 3] - wanted[..., 3]).mean() < 0.05
        premultiplied = [values[..., :3] * values[..., 3:] for values in (found, wanted)]
        assert np.abs(premultiplied[0] - premultiplied[1]).mean() < 0.05


@for_methods("sd15_fg", "demo_fg")
def test_sd_upscale_several_times(host, method):
    result = run(host, UPSCALE, start(), n_iter=2, **layered(method))
    assert result.error == "" and len(result.images) == 2 and all(map(is_transparent, result.images))
    assert not same(*result.images)


@for_methods("sd15_joint", "sd15_fg2bg")
@for_scripts
def test_methods_of_layers_are_refused_with_the_reason(host, method, name):
    before = outputs(host)
    check_refused(run(host, name, start(), ["right"], **layered(method)), "script", "Single")
    assert saved_since(host, before) == []


@for_methods("sd15_fg", "demo_fg")
@for_scripts
def test_without_the_box_the_scripts_are_what_they_were(host, method, name):
    plain = [run(host, name, start(), ["right"]) for _ in range(2)]  # the VAE's noise depends on the job before
    run(host, name, start(), ["right"], **layered(method))
    again = [run(host, name, start(), ["right"]) for _ in range(2)]
    assert same(*(results[1].images[0].convert("RGB") for results in (plain, again)))
    assert again[1].images[0].convert("RGBA").getextrema()[3][0] >= 254  # Forge hides a text with a date in alpha
    assert not [key for key in again[1].info["extra_generation_params"] if key.startswith("layerdiffusion")]


@for_methods("demo_fg", "sd15_fg")
def test_loopback_in_a_format_without_alpha(host, method):
    with changed_settings(host.client, samples_format="jpg"):
        values = {"script_name": "loopback", "script_args": [2, 0.5, "Linear", "None"]}
        if "loopback" not in host.client.get("/sdapi/v1/scripts")["img2img"]:
            pytest.skip("this WebUI has no script loopback")
        result = host.img2img(start(), width=TILE, height=TILE, **values, **layered(method))
    assert result.error == "" and result.images and is_transparent(result.images[-1])


def ultimate_values(redraw: int, seams: int, scale: float) -> list:
    """Its arguments with tiles of 64; `redraw` 0 to 2 is linear, chess, none, `seams` 0 to 3 a way to fix seams."""
    tiles, fix, upscaler = [64, 64, 4, 16], [64, 0.35, 16], 1
    return [None, *tiles, *fix, upscaler, True, redraw, False, 4, seams, 2, 512, 512, scale]


@for_methods("sd15_fg", "demo_fg")
@pytest.mark.parametrize(("redraw", "seams"), [(0, 0), (1, 0), (2, 1)])
def test_the_real_ultimate_sd_upscale(host, method, redraw, seams):
    if ULTIMATE not in host.client.get("/sdapi/v1/scripts")["img2img"]:
        pytest.skip("needs Ultimate SD Upscale: --webui-extension FOLDER")
    before, fields = outputs(host), {"script_name": ULTIMATE, "script_args": ultimate_values(redraw, seams, 2)}
    result = host.img2img(start((64, 64)), denoising_strength=0.3, steps=4, **fields, **layered(method))
    assert result.error == "" and notes(result) == ""
    assert is_transparent(result.images[0]) and result.images[0].size == (128, 128)
    (path,) = saved_since(host, before)
    with Image.open(path) as file:
        assert file.format == "PNG" and same(file, result.images[0])
