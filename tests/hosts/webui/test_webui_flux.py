"""Flux: LoRAs of every layout beside the user's, start pictures, masks, two passes, and what is refused.

On a checkpoint cut to one double and one single block (`flux_checkpoint.py`): its pictures are noise.
"""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import check_layers, check_refused, difference, for_bases, skip_without
from checkpoints import FLUX_TWIN, RANK
from client import HIRES, SIZE, HttpError, Result, as_base64, layered, picture, same
from PIL import Image
from safetensors.torch import load_file, save_file
from server import changed_settings

from lib_layerdiffuse.core.methods import find_method

FLUX = find_method("flux_fg")
TWIN = f"a red apple <lora:{FLUX_TWIN}:1>"
ROUNDING = 0.5  # levels of 255, in the mean: a merged LoRA is rounded with the weights, ours is not
CODEC = "TransparentVAE"

State = dict[str, torch.Tensor]

pytestmark = for_bases("flux")


def opaque(host, **choices) -> Image.Image:
    """The picture as the VAE decoded it, of a job with the method."""
    result = host.txt2img(**choices.pop("fields", {}), **layered(FLUX, output_origin=True, **choices))
    assert result.error == "" and result.modes == ["RGBA", "RGB"]
    return result.images[1]


def test_both_layouts_and_the_webuis_own_lora_of_the_same_numbers_give_the_same_picture(host):
    plain, kohya, diffusers = host.plain(), opaque(host), opaque(host, method_file=FLUX_TWIN)
    merged = host.txt2img(prompt=TWIN).images[0]
    effect = difference(plain, kohya)
    assert effect > 4 * ROUNDING
    assert difference(kohya, diffusers) < ROUNDING and difference(kohya, merged) < ROUNDING


def test_the_users_own_lora_before_beside_and_after(host):
    prompt = {"prompt": f"a red apple {host.lora}"}
    before, alone = host.txt2img(**prompt).images[0], opaque(host)
    both = opaque(host, fields=prompt)
    assert difference(both, before) > ROUNDING and difference(both, alone) > ROUNDING
    assert same(before, host.txt2img(**prompt).images[0])
    assert same(both, opaque(host, fields=prompt)) and same(alone, opaque(host))


def test_a_batch_is_two_pictures(host):
    both = host.txt2img(batch_size=2, **layered(FLUX))
    check_layers(both, FLUX, groups=2)
    assert difference(both.images[0], both.images[1]) > ROUNDING


def test_guidance_with_a_negative_prompt(host):
    check_layers(host.txt2img(cfg_scale=2, negative_prompt="a pear", **layered(FLUX)), FLUX)


def kept(host, image: Image.Image) -> Image.Image:
    """Image to image that changes little."""
    result = host.img2img(image, denoising_strength=0.2, steps=4, **layered(FLUX))
    check_layers(result, FLUX)
    return result.images[0]


def test_the_start_pictures_alpha_reaches_the_latent(host):
    cut_out = picture()
    more = cut_out.copy()
    more.putalpha(cut_out.getchannel("A").point(lambda level: 255 if level else 0))
    one = kept(host, cut_out)
    assert not same(one, kept(host, more)) and same(one, kept(host, cut_out))


@pytest.mark.parametrize("only_masked", [False, True])
def test_inpainting_leaves_what_is_not_masked(host, only_masked):
    mask, start = Image.new("L", (SIZE, SIZE)), picture()
    mask.paste(255, (16, 16, 48, 48))
    fields = {"mask": as_base64(mask), "mask_blur": 0, "inpaint_full_res": only_masked, "denoising_strength": 0.9}
    result = host.img2img(start, **fields, **layered(FLUX))
    assert result.error == "" and result.modes == ["RGBA"]
    made, given = np.asarray(result.images[0]).astype(int), np.asarray(start).astype(int)
    assert np.abs(made[:8, :, 3] - given[:8, :, 3]).max() <= 1  # haze is cleared
    assert np.abs(made[20:44, 20:44] - given[20:44, 20:44]).mean() > 4


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos", "None"])
def test_hires_fix(host, upscaler):
    if upscaler == "None" and host.webui.family.name != "neo":
        pytest.skip("without upscaler only where there is no other")
    skip_without(host, upscaler)
    fields = HIRES | {"hr_scale": 2, "hr_upscaler": upscaler, "hr_cfg": 1, "hr_distilled_cfg": 3.5}
    check_layers(host.txt2img(**fields, **layered(FLUX)), FLUX, size=(2 * SIZE, 2 * SIZE))


# --- what is refused


@contextlib.contextmanager
def instead(host, stem: str) -> Iterator[Path]:
    """The place of a layer file, which is away inside the block."""
    path = host.layer_file(stem)
    away = path.rename(path.with_suffix(".away"))
    try:
        yield path
    finally:
        away.replace(path)


def refused(host, *words: str, **choices) -> None:
    """One message of one line, and no picture."""
    result: Result = host.txt2img(**choices.pop("fields", {}), **layered(FLUX, **choices))
    check_refused(result, *words)
    assert result.error.strip().count("\n") == 0 and result.error.count("What to do") == 1


def halves_away(state: State) -> State:
    return {key: tensor for key, tensor in state.items() if "lora_up" not in key}


def one_half_away(state: State) -> State:
    return {key: tensor for key, tensor in state.items() if "single_blocks_0_linear2.lora_up" not in key}


def ranks_that_differ(state: State) -> State:
    key = "lora_unet_single_blocks_0_linear2.lora_down.weight"
    return {**state, key: state[key][: RANK // 2].contiguous()}


def sides_of_another_width(state: State) -> State:
    key = "lora_unet_single_blocks_0_linear2.lora_down.weight"
    return {**state, key: torch.cat([state[key]] * 2, 1)}


def more_blocks(state: State) -> State:
    return {key.replace("double_blocks_0", "double_blocks_7"): tensor for key, tensor in state.items()}


def of_sdxl(state: State) -> State:
    layer = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    return {key.replace("lora_unet_double_blocks_0_img_mlp_0", layer): tensor for key, tensor in state.items()}


def other_keys(state: State) -> State:
    return {key.replace("lora_unet_", "something.").replace(".lora_", ".hada_"): value for key, value in state.items()}


FAULTS: dict[Callable[[State], State], str] = {
    halves_away: "only alpha and down",
    one_half_away: "single_blocks_0_linear2",
    ranks_that_differ: "single_blocks",
    sides_of_another_width: "single_blocks",
    more_blocks: "double_blocks",
    of_sdxl: "input_blocks_4_1",
    other_keys: "layerlora",
}


def test_a_lora_that_does_not_fit_is_told_in_one_line_and_the_next_job_is_well(host):
    told = {}
    with instead(host, "layerlora") as path:
        whole = load_file(path.with_suffix(".away"))
        for fault, word in FAULTS.items():
            save_file(fault(whole), path)
            result = host.txt2img(**layered(FLUX))
            told[fault.__name__] = (word, result.error, result.images)
            path.unlink()
    for word, error, images in told.values():
        assert images == [] and "What to do" in error and "\n" not in error.strip(), error
        assert "layerlora" in error and word in error, error
    check_layers(host.txt2img(**layered(FLUX)), FLUX)


def test_a_lora_of_some_layers_is_used(host):
    with instead(host, "layerlora") as path:
        whole = load_file(path.with_suffix(".away"))
        save_file({key: tensor for key, tensor in whole.items() if "double_blocks" in key}, path)
        part = opaque(host)
        path.unlink()
    assert difference(part, host.plain()) > ROUNDING and difference(part, opaque(host)) > ROUNDING


class Other:
    """What a pickle may hide: a name that its reader would import and call."""

    def __reduce__(self) -> tuple:
        return print, ("nobody must see this",)


def test_a_pickle_with_other_imports_is_refused(host):
    with instead(host, CODEC) as path:
        pickled = path.with_suffix(".pth")
        pickled.write_bytes(pickle.dumps({"decoder.x": Other()}))
        refused(host, pickled.name)
        torch.save({"decoder.x": Other()}, pickled)
        refused(host, pickled.name)
        pickled.unlink()
    assert "nobody must see this" not in host.webui.server.log.read_text("utf-8", "replace")


def test_the_published_pickle_is_converted_once(host):
    expected = host.txt2img(**layered(FLUX)).images[0]
    with instead(host, CODEC) as path:
        pickled = path.with_suffix(".pth")
        torch.save(load_file(path.with_suffix(".away")), pickled)
        found = host.txt2img(**layered(FLUX))
        pickled.unlink()
        assert path.is_file() and same(found.images[0], expected)


@pytest.mark.parametrize("wrong", ["sd15_fg", "xl_fg_attn", "flux_alphavae"])
def test_another_method_is_refused(host, wrong):
    result = host.txt2img(**layered(wrong))
    check_refused(result, wrong)
    assert "\n" not in result.error.strip()


def test_the_schedule_type_automatic_is_refused(host):
    """By it Forge's plain picture is none either: the last step is one at a level of noise of 0."""
    if host.webui.family.name != "forge":
        pytest.skip("this WebUI's Automatic suits Flux")
    refused(host, "Automatic", "Simple", fields={"scheduler": "Automatic"})


# --- relatives of the checkpoint

SCHNELL = re.compile(r"\.guidance_in\.")
CHROMA = re.compile(r"\.(guidance_in|time_in|vector_in|(img_|txt_)?mod(ulation)?\.lin|adaLN_modulation)\b")
# by the bias Forge knows Chroma, by the norm Neo
APPROXIMATOR = {
    "model.diffusion_model.distilled_guidance_layer.layers.0.in_layer.bias": (5120,),
    "model.diffusion_model.distilled_guidance_layer.norms.0.scale": (5120,),
}
SOME_LAYERS = re.compile(r"\.(vector_in|double_blocks\.0\.img_mod\.lin)\.")


@contextlib.contextmanager
def loaded(host, title: str, **settings: str) -> Iterator[None]:
    """Another checkpoint inside the block; settings of how it is loaded are heeded only together with one."""
    with changed_settings(host.client, **settings):
        host.client.post("/sdapi/v1/options", {"sd_model_checkpoint": title})
        try:
            yield
        finally:
            host.webui.loaded = ""


@pytest.mark.parametrize("storage", ["float8-e4m3fn", "float8-e4m3fn (fp16 LoRA)"])
def test_weights_in_eight_bits_beside_the_users_lora(host, storage):
    prompt = {"prompt": f"a red apple {host.lora}"}
    whole = host.plain()
    with loaded(host, host.namesake(f"eight{len(storage)}"), forge_unet_storage_dtype=storage):
        plain, before = host.plain(), host.txt2img(**prompt).images[0]
        assert not same(plain, whole)
        assert difference(opaque(host), plain) > ROUNDING
        assert difference(opaque(host, fields=prompt), before) > ROUNDING
        assert same(before, host.txt2img(**prompt).images[0]) and same(plain, host.plain())


def test_schnell_is_painted_with_and_says_whose_files_these_are(host):
    with loaded(host, host.relative("schnell", SCHNELL, {})):
        before, result = host.plain(), host.txt2img(**layered(FLUX, output_origin=True))
        assert result.error == "" and result.modes == ["RGBA", "RGB"]
        assert "Flux.1 dev" in str(result.info)
        assert difference(before, result.images[1]) > ROUNDING and same(before, host.plain())


def test_chroma_is_refused_in_one_line(host):
    with loaded(host, host.relative("chroma", CHROMA, APPROXIMATOR)):
        refused(host, "Chroma")


def test_a_checkpoint_that_lacks_layers_is_no_chroma_and_the_message_names_them(host):
    """Forge loads such a file as it is; a job of its own then ends in a TypeError."""
    if host.webui.family.name != "forge":
        pytest.skip("this WebUI does not load such a file")
    with loaded(host, host.relative("lacking", SOME_LAYERS, {})):
        refused(host, "lacks 3 of Flux.1's layers (", "double_blocks.0.img_mod.lin", "vector_in.in_layer")
        assert "Chroma" not in host.txt2img(**layered(FLUX)).error
        with pytest.raises(HttpError, match="TypeError"):
            host.plain()


def test_kontext_sees_its_reference_and_gives_a_transparent_picture(host):
    """The picture of image to image is Neo's reference: more tokens behind those that are sampled. Forge has none."""
    has_references = host.webui.family.name == "neo"
    with loaded(host, host.namesake("kontext")):
        fields = {"denoising_strength": 1.0, "steps": 2}
        plain = host.img2img(picture("background"), **fields).images[0]
        result = host.img2img(picture("background"), **fields, **layered(FLUX, output_origin=True))
        assert result.error == "" and result.modes == ["RGBA", "RGB"]
        assert difference(plain, result.images[1]) > ROUNDING
        other = host.img2img(picture("blended"), **fields, **layered(FLUX))
        assert other.error == "" and same(result.images[0], other.images[0]) != has_references
        assert same(plain, host.img2img(picture("background"), **fields).images[0])
