"""Every layer method through the API: pictures and their transparency, batches, strength, end, forms of arguments."""

from __future__ import annotations

import numpy as np
import pytest
from cases import (
    TRANSPARENT,
    check_layers,
    difference,
    for_bases,
    for_methods,
    opaque_pictures,
    skip_without_infotexts,
)
from client import arguments, as_base64, given_images, layered, picture, same, script
from PIL import Image

from lib_layerdiffuse.core.methods import METHODS, find_method
from lib_layerdiffuse.form.arguments import ARGUMENTS

SDXL = tuple(method.id for method in METHODS if method.base == "sdxl")
SHARED = tuple(method.id for method in METHODS if len(method.frames) > 1)
ROUNDING = 2.0  # levels of 255 by which another batch size may change a picture


@for_methods()
def test_every_method_gives_its_layers_and_tells_its_settings(host, method):
    result = host.txt2img(**layered(method))
    check_layers(result, method)
    assert len(result.infotexts) == len(result.images)
    for text in result.infotexts:
        assert "layerdiffusion_method: " in text and method.label in text
        assert "layerdiffusion_weight: 1" in text and "layerdiffusion_ending_step: 1" in text
        assert text.startswith("a red apple\n")


@for_methods()
def test_every_method_changes_the_picture_and_weight_0_and_stop_at_0_leave_it(host, method):
    plain = host.txt2img(batch_size=len(method.frames)).images

    def opaque(**choices):
        return opaque_pictures(host.txt2img(**layered(method, output_origin=True, **choices)), method)

    assert not any(map(same, opaque(), plain))
    assert all(map(same, opaque(weight=0), plain))
    assert all(map(same, opaque(ending_step=0), plain))


@for_methods()
def test_forge_9_weight_and_stop_at_are_gradual(host, method):
    def first(**choices):
        result = host.txt2img(steps=4, **layered(method, output_origin=True, **choices))
        return opaque_pictures(result, method)[0]

    pictures = [first(), first(weight=0.5), first(ending_step=0.5), first(weight=0), first(weight=2)]
    assert not any(same(one, other) for n, one in enumerate(pictures) for other in pictures[:n])


@for_methods(*SHARED)
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_forge_5_issue_3_123_batches_are_rounded_up_to_whole_results(host, method, batch):
    frames = len(method.frames)
    groups = -(-batch // frames)
    result = host.txt2img(batch_size=batch, **layered(method))
    check_layers(result, method, groups)
    rounded = batch != groups * frames
    assert ("layerdiffusion_note" in str(result.info)) == rounded


@for_methods(*SHARED)
def test_issue_123_results_of_one_batch_do_not_mix(host, method):
    frames = len(method.frames)
    both = host.txt2img(batch_size=2 * frames, **layered(method)).images
    first = host.txt2img(batch_size=frames, **layered(method)).images
    second = host.txt2img(batch_size=frames, seed=7 + frames, **layered(method)).images
    for one, other in zip(both, [*first, *second], strict=True):
        assert difference(one, other) < ROUNDING


@for_methods("sd15_fg", "demo_fg", *SDXL)
def test_forge_8_issue_125_batch_2(host, method):
    both = host.txt2img(batch_size=2, **layered(method))
    check_layers(both, method, groups=2)
    second = host.txt2img(seed=8, **layered(method)).images[0]
    assert difference(both.images[1], second) < ROUNDING


@for_methods("sd15_joint", "xl_bgblend2fg", "demo_fg")
def test_more_than_one_batch(host, method):
    result = host.txt2img(n_iter=2, **layered(method))
    check_layers(result, method, groups=2)
    assert not same(result.images[0], result.images[len(method.frames)])


@for_methods(*TRANSPARENT)
def test_the_opaque_pictures_can_be_kept_and_the_layers_stay_the_same(host, method):
    alone = host.txt2img(**layered(method)).images
    result = host.txt2img(**layered(method, output_origin=True))
    assert all(map(same, alone, result.images))
    assert result.modes[len(alone) :] == ["RGB"] * method.transparent_frames
    assert len(result.infotexts) == len(result.images)


@for_methods("sd15_fg", "xl_fg_attn")
def test_decoder_passes_change_the_decoding_only(host, method):
    one, eight = (host.txt2img(**layered(method, passes=passes, output_origin=True)) for passes in (1, 8))
    check_layers(host.txt2img(**layered(method, passes=8)), method)
    assert same(one.images[1], eight.images[1]) and not same(one.images[0], eight.images[0])


@for_methods("sd15_fg2bg", "xl_bg2blend", "xl_fgblend2bg")
def test_issue_63_110_128_pictures_as_base64_with_and_without_the_head_of_a_data_url(host, method):
    bare = host.txt2img(**layered(method))
    with_head = {name: f"data:image/png;base64,{text}" for name, text in given_images(method).items()}
    assert all(map(same, bare.images, host.txt2img(**layered(method, **with_head)).images))
    other = {name: as_base64(picture("blended", (40, 100))) for name in given_images(method)}
    assert not any(map(same, bare.images, host.txt2img(**layered(method, **other)).images))


@for_methods("sd15_joint", "xl_bg2blend", "demo_fg")
def test_issue_63_one_mapping_of_names_says_the_same_as_a_list(host, method):
    listed = host.txt2img(**layered(method, weight=0.8))
    names = {"method": method.id, "weight": 0.8, "passes": 1, **given_images(method)}
    for mapping in (names, {f"layerdiffusion_{name}": value for name, value in names.items()}):
        named = host.txt2img(**script([mapping]))
        assert all(map(same, listed.images, named.images)) and named.infotexts == listed.infotexts


@for_methods("sd15_fg", "xl_fg_attn", "demo_fg")
def test_the_twelve_arguments_of_older_scripts_suffice(host, method):
    values = arguments(method, passes=8)
    assert [argument.name for argument in ARGUMENTS[:2]] == ["enabled", "method"]
    twelve, all_of_them = host.txt2img(**script(values[:12])), host.txt2img(**script(values))
    check_layers(twelve, method)
    assert same(twelve.images[0], all_of_them.images[0])


@for_bases("sd15", "sdxl", "demo")
def test_an_empty_method_is_the_single_picture_method_of_the_base(host):
    first = next(method for method in METHODS if method.base == host.base)
    empty, named = host.txt2img(**layered("")), host.txt2img(**layered(first))
    assert same(empty.images[0], named.images[0]) and first.label in empty.infotexts[0]


@for_methods("sd15_fg", "xl_fg_conv", "demo_fg")
def test_the_infotext_alone_brings_the_same_picture_again(host, method):
    skip_without_infotexts(host)
    made = host.txt2img(**layered(method, weight=0.7, ending_step=0.9))
    again = host.client.post("/sdapi/v1/txt2img", {"infotext": made.infotexts[0]})
    repeated = host.decoded(again)
    assert same(made.images[0], repeated.images[0]) and made.infotexts[0] == repeated.infotexts[0]


@for_methods("sd15_joint")
def test_each_frame_may_have_a_prompt_of_its_own(host, method):
    without = host.txt2img(**layered(method))
    result = host.txt2img(**layered(method, bg_additional_prompt="a sandy beach"))
    check_layers(result, method)
    assert not same(without.images[1], result.images[1])
    assert all(text.startswith("a red apple\n") for text in result.infotexts)
    assert all("layerdiffusion_bg_additional_prompt: a sandy beach" in text for text in result.infotexts)
    everywhere = host.txt2img(prompt="a sandy beach, a red apple", **layered(method))
    own = {f"{name}_additional_prompt": "a sandy beach" for name in ("fg", "bg", "blend")}
    assert all(map(same, everywhere.images, host.txt2img(**layered(method, **own)).images))


@for_methods("xl_fg2blend", "sd15_fg2bg")
def test_the_network_sees_a_cut_out_on_grey(host, method):
    cut_out = picture("foreground")
    colour, alpha = np.asarray(cut_out, np.float32)[..., :3] / 255, np.asarray(cut_out, np.float32)[..., 3:] / 255
    on_grey = Image.fromarray(np.uint8(np.rint(255 * (0.5 + (colour - 0.5) * alpha))), "RGB")
    one = host.txt2img(**layered(method, fg_image=as_base64(cut_out))).images
    other = host.txt2img(**layered(method, fg_image=as_base64(on_grey))).images
    assert max(map(difference, one, other)) < ROUNDING


@for_bases("sd15")
def test_forge_4_issue_135_each_base_keeps_its_own_decoder(host):
    rows = [find_method("sd15_fg"), find_method("xl_fg_attn")]
    results = []
    for method in rows * 2:
        host.switch(method.base)
        results.append(host.txt2img(**layered(method)))
        check_layers(results[-1], method)
    assert same(results[0].images[0], results[2].images[0]) and same(results[1].images[0], results[3].images[0])
