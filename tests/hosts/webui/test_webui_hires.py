"""Hires fix whose second pass has another checkpoint, sampler or prompt, or an odd size; alpha is of its latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import difference, for_methods, opaque_pictures, skip_without
from client import HIRES, Result, is_transparent, layered, same
from PIL import Image
from safetensors.torch import load_file

from lib_layerdiffuse.core.codec.codec import TransparencyCodec, to_vae_space
from lib_layerdiffuse.core.methods import BASES, Method
from lib_layerdiffuse.core.picture.alpha import from_tensor
from lib_layerdiffuse.core.picture.alpha_care import AlphaCare, care_for
from lib_layerdiffuse.core.picture.hidden import with_hidden_colours

SCALES = {"sd15": 0.18215, "sdxl": 0.13025}
WIDTH, HEIGHT = 72, 104  # times 1.5: no multiple of 8, and what becomes of it none of the decoder's 64
ROUNDING, OTHER = 1.0, 5.0  # levels of 255 in the mean: the test decodes pixels that were rounded to levels before
CHANGES = {
    "checkpoint": lambda host: {"hr_checkpoint_name": host.sibling()},
    "sampler": lambda host: {"hr_sampler_name": "DPM++ 2M"},
    "prompt": lambda host: {"hr_prompt": "a green pear", "hr_negative_prompt": "a red apple"},
}
upscalers = pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])


def in_two_passes(upscaler: str) -> dict:
    """The job's fields, but for what a test changes."""
    second = {"hr_scale": 1.5, "hr_upscaler": upscaler, "hr_second_pass_steps": 3}
    return HIRES | second | {"width": WIDTH, "height": HEIGHT}


def decoded(host, opaque: Image.Image, latent: np.ndarray) -> Image.Image:
    """What the decoder and the care of the settings make of a picture and a latent [4,h,w] in the sampler's scale."""
    codec = TransparencyCodec.from_state_dicts(decoder=load_file(host.layer_file(BASES[host.base].decoder)))
    pixels = torch.from_numpy(np.array(opaque)).permute(2, 0, 1)[None].float() / 255
    values = codec.decode(pixels, to_vae_space(torch.from_numpy(latent)[None], SCALES[host.base]), passes=1)
    return with_hidden_colours(from_tensor(care_for(values, pixels, AlphaCare(clear_haze=True)))[0])


def check_last_latents(host, method: Method, result: Result) -> None:
    """Alpha is decoded from the latents that the second pass ended in, and they count."""
    latents, opaque = np.load(host.webui.witness), opaque_pictures(result, method)
    for place, latent in enumerate(latents):
        if method.is_transparent(place):
            ours = result.images[place]
            assert difference(decoded(host, opaque[place], latent), ours) < ROUNDING
            assert difference(decoded(host, opaque[place], np.zeros_like(latent)), ours) > OTHER


def check_size(host, method: Method, result: Result, fields: dict) -> None:
    """RGBA of the size that the WebUI makes without us."""
    size = host.txt2img(batch_size=len(method.frames), **fields).images[0].size
    assert size > (WIDTH, HEIGHT) and {image.size for image in result.images} == {size}
    for place in range(len(method.frames)):
        assert not method.is_transparent(place) or is_transparent(result.images[place])


@for_methods("sd15_fg", "sd15_joint", "xl_fg_attn", "xl_bgblend2fg")
@upscalers
def test_issue_71_119_88_106_12_50_alpha_of_the_second_passs_latents_at_an_odd_size(host, method, upscaler):
    skip_without(host, upscaler)
    fields = in_two_passes(upscaler)
    result = host.txt2img(**fields, **layered(method, output_origin=True))
    assert result.error == ""
    check_last_latents(host, method, result)
    check_size(host, method, result, fields)


@for_methods("sd15_joint", "xl_fg_attn")
@upscalers
@pytest.mark.parametrize("change", CHANGES)
def test_issue_71_119_88_106_12_50_another_second_pass(host, method, upscaler, change):
    skip_without(host, upscaler)
    fields = in_two_passes(upscaler)
    expected = host.txt2img(**fields, **layered(method)).images
    fields |= CHANGES[change](host)
    result = host.txt2img(**fields, **layered(method, output_origin=True))
    assert result.error == "" and not any(map(same, expected, result.images))
    check_last_latents(host, method, result)
    check_size(host, method, result, fields)
    host.webui.loaded = ""  # after another checkpoint, the WebUI decides which one it keeps
