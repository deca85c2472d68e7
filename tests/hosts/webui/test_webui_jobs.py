"""The WebUI's other features together with the methods: samplers, hires fix, img2img, Lora, interrupt, files."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cases import TRANSPARENT, check_layers, difference, for_bases, for_methods, opaque_pictures, skip_without
from client import ERROR_KEY, HIRES, SIZE, Result, as_base64, is_transparent, layered, picture, same
from PIL import Image
from server import changed_settings

from lib_layerdiffuse.core.methods import METHODS, find_method

SAMPLERS = ("Euler a", "DPM++ 2M SDE", "DPM++ SDE", "UniPC", "DDIM", "PLMS", "LCM", "Restart")
LONG_PROMPT = "a red apple, " * 25  # as many tokens for one text model as for the other
ROUNDING = 2.0
CONFLICTS = ("sd15_joint", "sd15_fg2bg", "xl_fg_attn", "xl_bgblend2fg")


# --- sampling


@for_methods("sd15_joint", "xl_bgblend2fg", "demo_fg")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers(host, method, sampler):
    host.skip_without_sampler(sampler)
    choices = {"sampler_name": sampler, "steps": 4}
    plain = host.txt2img(batch_size=len(method.frames), **choices).images
    result = host.txt2img(**choices, **layered(method, output_origin=True))
    assert not any(map(same, plain, opaque_pictures(result, method)))
    check_layers(host.txt2img(**choices, **layered(method)), method)
    stopped = host.txt2img(**choices, **layered(method, output_origin=True, ending_step=0))
    assert all(map(same, plain, opaque_pictures(stopped, method)))


@for_methods(*CONFLICTS)
@pytest.mark.parametrize(
    "choices",
    [
        {"cfg_scale": 1},
        {"negative_prompt": ""},
        {"prompt": LONG_PROMPT},
        {"negative_prompt": LONG_PROMPT},
        {"s_min_uncond": 100, "steps": 4},
        {"prompt": "[a red apple:a green pear:0.5] on [grass|sand]", "steps": 4},
    ],
    ids=["cfg_1", "no_negative", "long_prompt", "long_negative", "skipped_uncond", "changing_prompt"],
)
def test_guidance_and_prompts_of_every_kind(host, method, choices):
    check_layers(host.txt2img(**choices, **layered(method)), method)


@for_methods("sd15_fg", *CONFLICTS)
def test_issue_100_prompts_joined_by_and(host, method):
    one = host.txt2img(prompt="a red apple AND a green pear :0.7", **layered(method))
    check_layers(one, method)
    other = host.txt2img(prompt="a red apple", **layered(method))
    assert not any(map(same, one.images, other.images))
    both = host.txt2img(
        prompt="a red apple AND a green pear :0.7", batch_size=2 * len(method.frames), **layered(method)
    )
    check_layers(both, method, groups=2)
    assert max(map(difference, one.images, both.images)) < ROUNDING


@for_methods("sd15_joint", "xl_fg_attn")
def test_cond_and_uncond_in_separate_calls_of_the_unet(host, method):
    with changed_settings(host.client, batch_cond_uncond=False):
        apart = host.txt2img(**layered(method)).images
        again = host.txt2img(prompt="a red apple AND a green pear", **layered(method))
    together = host.txt2img(**layered(method)).images
    assert max(map(difference, apart, together)) < ROUNDING
    assert again.images == [] or again.error == ""


@for_methods("sd15_joint", "sd15_fg2bg")
def test_token_merging_does_not_reach_attention_sharing(host, method):
    expected = host.txt2img(**layered(method)).images
    with changed_settings(host.client, token_merging_ratio=0.5):
        result = host.txt2img(**layered(method))
    check_layers(result, method)
    assert all(map(same, expected, result.images))


@for_methods("sd15_fg", "sd15_joint", "xl_fg_conv")
def test_negative_guidance_at_an_even_seed_variation(host, method):
    check_layers(host.txt2img(subseed=3, subseed_strength=0.4, **layered(method)), method)


# --- sizes


@for_methods()
def test_issue_54_size_not_a_multiple_of_64(host, method):
    if host.webui.family.name == "neo":
        pytest.skip("this WebUI rounds sizes to multiples of 64 by itself")
    result = host.txt2img(width=104, height=72, **layered(method))
    check_layers(result, method, size=(104, 72))


@for_methods("sd15_fg", "sd15_joint", "sd15_fg2bg", "xl_fg_attn", "xl_bgblend2fg", "demo_fg")
@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_forge_2_issue_71_119_88_hires_fix_gives_layers_of_the_final_size(host, method, upscaler):
    skip_without(host, upscaler)
    choices = HIRES | {"hr_scale": 2, "hr_upscaler": upscaler}
    result = host.txt2img(**choices, hr_second_pass_steps=2, **layered(method))
    check_layers(result, method, size=(2 * SIZE, 2 * SIZE))
    plain = host.txt2img(batch_size=len(method.frames), **choices, hr_second_pass_steps=2).images
    off = host.txt2img(**choices, hr_second_pass_steps=2, **layered(method, weight=0, output_origin=True))
    assert max(map(difference, plain, opaque_pictures(off, method))) < 0.01  # an upscaler on threads may turn a level


# --- img2img


@for_methods(*TRANSPARENT)
def test_issue_84_115_68_img2img_of_a_picture_with_alpha(host, method):
    result = host.img2img(picture(), **layered(method))
    check_layers(result, method)
    opaque = host.img2img(picture("background"), **layered(method))
    check_layers(opaque, method)
    assert not same(result.images[0], opaque.images[0])


@for_methods("sd15_fg", "xl_fg_attn", "demo_fg")
def test_the_start_pictures_alpha_reaches_the_latent(host, method):
    cut_out = picture()
    more = cut_out.copy()
    more.putalpha(cut_out.getchannel("A").point(lambda level: 255 if level else 0))
    kept = {"denoising_strength": 0.3, "steps": 4, **layered(method)}
    assert not same(host.img2img(cut_out, **kept).images[0], host.img2img(more, **kept).images[0])
    assert same(host.img2img(cut_out, **kept).images[0], host.img2img(cut_out, **kept).images[0])


@for_methods("sd15_fg", "xl_fg_attn", "demo_fg")
def test_forge_12_every_start_picture_of_a_batch_counts(host, method):
    first, second, third = picture(), picture("background"), picture("blended")
    one = host.img2img(first, second, batch_size=2, **layered(method))
    other = host.img2img(first, third, batch_size=2, **layered(method))
    check_layers(one, method, groups=2)
    # threads add up in an order of their own, which may turn a level
    assert difference(one.images[0], other.images[0]) < 0.01 < difference(one.images[1], other.images[1])


@for_methods("sd15_fg", "xl_fg_attn", "demo_fg")
@pytest.mark.parametrize("resize_mode", [0, 1, 2, 3])
def test_start_pictures_of_another_size(host, method, resize_mode):
    result = host.img2img(picture(size=(100, 80)), resize_mode=resize_mode, **layered(method))
    check_layers(result, method)


def mask_of(box: tuple[int, int, int, int], size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return mask


@for_methods("sd15_fg", "xl_fg_attn", "demo_fg")
@pytest.mark.parametrize("fill", [0, 1])
def test_forge_10_inpainting_only_the_masked_part(host, method, fill):
    size, box = (160, 128), (60, 40, 100, 80)
    start = picture(size=size)
    masked = {"mask": as_base64(mask_of(box, size)), "mask_blur": 0, "inpainting_fill": fill}
    result = host.img2img(
        start, **masked, inpaint_full_res=True, inpaint_full_res_padding=8, resize_mode=0, **layered(method)
    )
    check_layers(result, method, size=size)
    outside = np.asarray(mask_of((40, 20, 120, 100), size)) == 0
    difference_outside = np.abs(np.int16(result.pixels[0]) - np.int16(start))[..., 3][outside]
    assert difference_outside.max() <= 2, "alpha far outside the mask is not the start picture's"


@for_methods("sd15_fg", "xl_fg_attn", "demo_fg")
def test_inpainting_the_whole_picture(host, method):
    masked = {"mask": as_base64(mask_of((16, 16, 48, 48), (SIZE, SIZE))), "mask_blur": 2, "inpainting_fill": 1}
    check_layers(host.img2img(picture(), **masked, inpaint_full_res=False, **layered(method)), method)


@for_methods("sd15_fg", "demo_fg")
def test_colour_correction_keeps_alpha(host, method):
    with changed_settings(host.client, img2img_color_correction=True):
        check_layers(host.img2img(picture(), **layered(method)), method)


# --- Loras, checkpoints


@for_methods("sd15_fg", "sd15_joint", "sd15_fg2bg", "xl_fg_attn", "xl_fg_conv", "xl_bgblend2fg")
def test_forge_1_a_users_lora_before_with_and_after_a_method(host, method):
    frames, lora = len(method.frames), f"a red apple {host.lora}"
    plain = host.plain()
    with_lora = host.txt2img(prompt=lora).images[0]
    alone = host.txt2img(**layered(method)).images
    both = host.txt2img(prompt=lora, **layered(method))
    check_layers(both, method)
    assert not any(map(same, both.images, alone))
    assert same(host.txt2img(prompt=lora).images[0], with_lora)
    assert all(map(same, host.txt2img(**layered(method)).images, alone))
    assert all(map(same, host.txt2img(prompt=lora, **layered(method)).images, both.images))
    weightless = host.txt2img(prompt=lora, **layered(method, weight=0, output_origin=True))
    of_lora = host.txt2img(prompt=lora, batch_size=frames).images
    assert all(map(same, opaque_pictures(weightless, method), of_lora))
    assert same(host.plain(), plain)


@for_methods("sd15_fg", "xl_fg_attn")
def test_a_method_first_and_the_lora_at_once(host, method):
    """The order in which a WebUI that backs weights up at their first use would back up altered ones."""
    host.switch("demo")
    host.switch(method.base)
    host.txt2img(prompt=f"a red apple {host.lora}", **layered(method))


@for_methods("sd15_joint", "xl_fg_conv")
def test_a_change_of_checkpoint_within_the_job(host, method):
    other = "sdxl" if method.base == "sd15" else "sd15"
    expected = host.txt2img(**layered(method)).images
    host.switch(other)
    title = host.webui.title(host.client, method.base)
    changed = {"override_settings": {"sd_model_checkpoint": title}}
    result = host.txt2img(**changed, **layered(method))
    check_layers(result, method)
    assert all(map(same, result.images, expected))
    host.webui.loaded = ""  # which one is loaded now is the WebUI's business


@for_methods("sd15_joint", "xl_fg_conv", "xl_bgblend2fg")
def test_a_refiner_of_the_same_base_goes_on_with_the_method(host, method):
    expected = host.txt2img(steps=4, **layered(method)).images
    refined = {"refiner_checkpoint": host.twin(), "refiner_switch_at": 0.5}
    result = host.txt2img(steps=4, **refined, **layered(method))
    host.webui.loaded = ""
    check_layers(result, method)
    assert all(map(same, result.images, expected))


@for_methods("sd15_joint", "xl_fg_conv")
def test_another_checkpoint_for_hires_fix(host, method):
    skip_without(host, "Latent")
    choices = HIRES | {"hr_scale": 2, "hr_upscaler": "Latent"}
    expected = host.txt2img(**choices, **layered(method)).images
    result = host.txt2img(**choices, hr_checkpoint_name=host.twin(), **layered(method))
    host.webui.loaded = ""
    check_layers(result, method, size=(2 * SIZE, 2 * SIZE))
    assert all(map(same, result.images, expected))


# --- interrupt


@for_methods("sd15_joint", "xl_bgblend2fg", "demo_fg")
def test_interrupt_in_the_middle(host, method):
    found: list[Result] = []
    job = threading.Thread(
        target=lambda: found.append(host.txt2img(steps=150, width=128, height=128, **layered(method)))
    )
    job.start()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not host.client.get("/sdapi/v1/progress")["state"]["sampling_step"]:
        time.sleep(0.2)
    begin = time.monotonic()
    host.client.post("/sdapi/v1/interrupt", {})
    job.join(300)
    assert not job.is_alive() and found, "the job did not end"
    assert time.monotonic() - begin < 60
    result = found[0]
    assert ERROR_KEY not in str(result.info)
    check_layers(result, method, size=(128, 128))
    check_layers(host.txt2img(**layered(method)), method)


# --- files


def saved_job(host, method, **settings) -> tuple[list[Image.Image], list[Path]]:
    """The pictures of a job that saves its files, without a grid, and the files."""
    before = set(pictures_below(host.webui.data))
    with changed_settings(host.client, grid_save=False, **settings):
        result = host.txt2img(save_images=True, **layered(method))
    assert result.error == ""
    saved = sorted(set(pictures_below(host.webui.data)) - before)
    return result.images[result.info.get("index_of_first_image", 0) :], saved


def check_saved(host, method, images: list[Image.Image], saved: list[Path]) -> None:
    """The layers in the answer and in the files are to the bit those of a job that saves nothing."""
    expected = host.txt2img(**layered(method)).images
    assert len(images) == len(saved) == len(expected)
    for place, layer in enumerate(expected):
        if method.is_transparent(place):
            with Image.open(saved[place]) as file:
                assert file.format == "PNG" and "layerdiffusion_method" in file.text["parameters"]
                assert same(images[place], layer) and same(file, layer)
        if len(expected) > 1:
            assert method.frame_of(place) in saved[place].name


@for_methods("sd15_joint", "xl_fg_attn", "demo_fg")
@pytest.mark.parametrize("file_format", ["png", "jpg", "webp"])
def test_issue_9_28_31_45_52_94_132_144_files_keep_alpha_and_infotext(host, method, file_format):
    check_saved(host, method, *saved_job(host, method, samples_format=file_format))


@for_methods("sd15_joint", "xl_fg_attn", "demo_fg")
@pytest.mark.parametrize("mode", ["Alpha", "RGB", "None"])
def test_the_forge_familys_stealth_infotext_leaves_alpha_alone(host, method, mode):
    """It hides the generation parameters in the last bits of alpha, which it makes opaque before, or of the colours."""
    known = host.client.get("/sdapi/v1/options")
    names = [name for name in ("stealth_pnginfo_option", "stealth_pnginfo_opt") if name in known]
    if not names:
        pytest.skip("this WebUI hides no generation parameters in pixels")
    check_saved(host, method, *saved_job(host, method, samples_format="png", **{names[0]: mode}))


@for_methods("sd15_fg", "demo_fg")
def test_the_grid_of_a_batch(host, method):
    with changed_settings(host.client, grid_save=True, return_grid=True):
        result = host.txt2img(batch_size=2, save_images=True, **layered(method))
    start = result.info["index_of_first_image"]
    assert start == 1 and len(result.images) == 3
    result.images = result.images[start:]
    check_layers(result, method, groups=2)


def pictures_below(folder: Path) -> list[Path]:
    """In `outputs`, or in Neo's `output`."""
    return [path for path in folder.glob("output*/**/*") if path.suffix in (".png", ".jpg", ".webp")]


# --- the WebUI's own scripts


@for_bases("sd15")
def test_x_y_z_plot_leaves_its_cells_to_the_method(host):
    method = find_method("sd15_fg")
    seeds, nothing = [1, "5,9", []], [0, "", []]
    looks = [True, True, False, False, False, False, False, 0, False]  # a legend, the single pictures too
    plot = {"script_name": "x/y/z plot", "script_args": [*seeds, *nothing, *nothing, *looks]}
    result = host.txt2img(**plot, **layered(method))
    assert result.error == "" and len(result.images) >= 2
    cells = [image for image in result.images if image.size == (SIZE, SIZE)]
    assert len(cells) == 2 and all(map(is_transparent, cells))


@for_bases("sd15", "sdxl", "demo")
def test_all_methods_after_each_other_leave_no_trace(host):
    methods = [method for method in METHODS if method.base == host.base]
    first = [host.txt2img(**layered(method)).images for method in methods]
    for method, images in zip(reversed(methods), reversed(first), strict=True):
        assert all(map(same, images, host.txt2img(**layered(method)).images))
        assert same(host.plain(), host.webui.plain[host.base])
