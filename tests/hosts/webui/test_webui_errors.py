"""What cannot be done is refused with a message and without a picture, never answered by a wrong one or HTTP 500."""

from __future__ import annotations

import shutil

import pytest
from cases import WITH_IMAGES, check_layers, check_refused, for_bases, for_methods
from client import HIRES, TITLE, arguments, as_base64, layered, picture

from lib_layerdiffuse.core.methods import BASES, find_method


# the first tests of their methods: files that were read before may be kept
@for_methods("sd15_bg2fg", "xl_fg_conv")
def test_forge_7_missing_then_truncated_then_foreign_then_mended_weights(host, method):
    path = host.layer_file(method.weights)
    away = path.rename(path.with_suffix(".away"))
    try:
        check_refused(host.txt2img(**layered(method)), path.name, "LayerDiffusion/layerdiffusion-v1")
        path.write_bytes(away.read_bytes()[:-1000])
        check_refused(host.txt2img(**layered(method)), path.name, "truncated")
        path.write_bytes(b"<!doctype html><title>404</title>" * 100)
        check_refused(host.txt2img(**layered(method)), path.name, "web page")
    finally:
        away.replace(path)
    check_layers(host.txt2img(**layered(method)), method)


@for_methods("sd15_fg", "xl_fg_attn")
def test_forge_7_missing_decoder(host, method):
    path = host.layer_file(method.decoder)
    away = path.rename(path.with_suffix(".away"))
    try:
        check_refused(host.txt2img(**layered(method)), path.name)
    finally:
        away.replace(path)
    check_layers(host.txt2img(**layered(method)), method)


@for_methods("sd15_fg2bg")
def test_weights_of_another_method_under_this_name(host, method):
    path = host.layer_file(method.weights)
    away = path.rename(path.with_suffix(".away"))
    try:
        shutil.copyfile(host.layer_file("layer_sd15_joint"), path)
        check_refused(host.txt2img(**layered(method)), path.name)
    finally:
        away.replace(path)


@pytest.mark.parametrize(("base", "wrong"), [("sd15", "xl_fg_attn"), ("sdxl", "sd15_fg"), ("demo", "sd15_joint")])
def test_issue_133_70_135_method_of_another_base(host, wrong):
    method = find_method(wrong)
    check_refused(host.txt2img(**layered(method)), BASES[host.base].title, BASES[method.base].title, wrong)
    check_refused(host.img2img(picture(), **layered(method)), wrong)


@for_methods(*WITH_IMAGES)
def test_forge_6_conditioned_method_without_its_images(host, method):
    names = [name for name in ("fg_image", "bg_image", "blend_image") if name.split("_")[0] in images_of(method)]
    check_refused(host.txt2img(**layered(method.label)), *names)
    if len(names) > 1:
        check_refused(host.txt2img(**layered(method, **{names[1]: None})), names[1])


def images_of(method) -> set[str]:
    return {{"foreground": "fg", "background": "bg", "blended": "blend"}[frame] for frame in method.images}


@for_bases("sd15")
@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([True, "(SD1.5) Something Else"], "Something Else"),
        ([True, "sd15_fg", 7], "weight"),
        ([True, "sd15_fg", 1, "soon"], "ending_step"),
        ([True, "sd15_fg2bg", 1, 1, "no picture"], "fg_image"),
        ([True, "sd15_fg2bg", 1, 1, as_base64(picture())[:-60]], "fg_image"),
        ([{"enabled": True, "method": "sd15_fg", "wieght": 1}], "wieght"),
    ],
    ids=["method", "weight", "ending_step", "no_base64", "cut_picture", "name"],
)
def test_issue_63_arguments_that_make_no_sense_are_named(host, values, word):
    check_refused(host.txt2img(alwayson_scripts={TITLE: {"args": values}}), word)


@for_bases("sd15")
def test_a_refused_job_ends_alone(host):
    refused = host.txt2img(n_iter=3, batch_size=2, hr_scale=2, **HIRES, **layered("xl_fg_attn"))
    check_refused(refused, "xl_fg_attn")
    method = find_method("sd15_fg")
    check_layers(host.txt2img(**layered(method)), method)


@for_bases("sd15", "sdxl", "demo")
def test_box_off_is_the_plain_picture_whatever_else_is_sent(host):
    values = arguments("no such method", enabled=False, weight=99, fg_image="no picture")
    result = host.txt2img(alwayson_scripts={TITLE: {"args": values}})
    assert result.error == "" and result.modes == ["RGB"]
    assert "layerdiffusion" not in result.infotexts[0]
