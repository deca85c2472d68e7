"""What files are for: by what our training says in them, by published names, and by keys and shapes alone."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from lib_layerdiffuse.core.bases import BASES, LatentSpace
from lib_layerdiffuse.core.files.codec_parts import DECODER, ENCODER
from lib_layerdiffuse.core.files.layer_files import (
    CODEC,
    METHOD,
    metadata_of,
    read_contents,
    recognise,
    stands_for,
)
from lib_layerdiffuse.core.files.layouts import (
    PUBLISHED,
    SD15_WIDTHS,
    SharingShape,
    codec_layout,
    decoder_layout,
    encoder_layout,
    sharing_layout,
    xl_attention_layout,
)
from lib_layerdiffuse.core.methods import ATTENTION_SHARING, METHODS, OFFSETS, find_method

WIDE = "diffusion_model.input_blocks.0.0.weight::diff::0"
XL_QUERY = "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight::diff::0"
ALL = ("sd15", "sdxl", "demo")  # whose latents have 4 channels
FLUX_CODEC = codec_layout()
PART = {part: {key: shape for key, shape in FLUX_CODEC.items() if key.startswith(part)} for part in (DECODER, ENCODER)}


@pytest.mark.parametrize("stem", PUBLISHED)
def test_published_files_are_known_by_their_name_and_layout(stem):
    contents = recognise({}, PUBLISHED[stem](), stem)
    (base,) = {base.id for base in BASES.values() if stem in (base.decoder, base.encoder)} | {
        row.base for row in METHODS if row.weights == stem
    }
    assert contents.bases == (base,)
    assert contents.part == (DECODER if "decoder" in stem else ENCODER if "vae" in stem else METHOD)


@pytest.mark.parametrize(
    ("layout", "part", "bases", "methods"),
    [
        (sharing_layout(SharingShape(1, SD15_WIDTHS)), METHOD, ("sd15",), ("sd15_fg",)),
        (sharing_layout(SharingShape(3, SD15_WIDTHS)), METHOD, ("sd15",), ("sd15_joint",)),
        (sharing_layout(SharingShape(2, SD15_WIDTHS, control=True)), METHOD, ("sd15",), ("sd15_fg2bg", "sd15_bg2fg")),
        (sharing_layout(SharingShape(3, (64,) * 7, 128, 4)), METHOD, ("sd15", "demo"), ("sd15_joint", "demo_joint")),
        (xl_attention_layout(), METHOD, ("sdxl",), ("xl_fg_attn", "xl_fg_conv")),
        ({WIDE: (320, 8, 3, 3), XL_QUERY: (640, 2048)}, METHOD, ("sdxl",), ("xl_fg2blend", "xl_bg2blend")),
        ({WIDE: (320, 12, 3, 3), XL_QUERY: (640, 2048)}, METHOD, ("sdxl",), ("xl_fgblend2bg", "xl_bgblend2fg")),
        ({XL_QUERY.replace("640", "64"): (640, 768)}, METHOD, ("sd15",), ("sd15_fg",)),
        ({XL_QUERY: (64, 128)}, METHOD, ("demo",), ("demo_fg",)),
        ({WIDE: (64, 4, 3, 3)}, METHOD, ALL, ("sd15_fg", "xl_fg_attn", "xl_fg_conv", "demo_fg")),
        (decoder_layout(), DECODER, ALL, ()),
        (decoder_layout((16, 32, 32, 64, 64)), DECODER, ALL, ()),
        (decoder_layout(latent_channels=16), DECODER, ("flux",), ()),
        (decoder_layout(latent_channels=8), DECODER, (), ()),
        (encoder_layout(), ENCODER, ALL, ()),
        (encoder_layout((16, 32, 64)), ENCODER, (), ()),
        (encoder_layout(latent_channels=16), ENCODER, ("flux",), ()),
        (encoder_layout((16, 32, 64), latent_channels=16), ENCODER, (), ()),
        (FLUX_CODEC, CODEC, ("flux",), ()),
        ({**FLUX_CODEC, "sd_vae.encoder.conv_in.weight": (128, 3, 3, 3)}, CODEC, ("flux",), ()),
        (codec_layout(4), CODEC, ALL, ()),
        (PART[DECODER], DECODER, ("flux",), ()),
        (PART[ENCODER], ENCODER, ("flux",), ()),
        ({**PART[ENCODER], **codec_layout(4), **PART[DECODER]}, CODEC, (), ()),
    ],
)
def test_files_without_metadata_are_known_by_keys_and_shapes(layout, part, bases, methods):
    contents = recognise({}, layout, "own")
    assert (contents.part, contents.bases, contents.methods) == (part, bases, methods)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"lora_unet_down_blocks_0.lora_up.weight": (4, 4)},
        {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)},
        {WIDE: (320, 4, 3, 3), "another.weight": (1,)},
        {"conv_in.weight": (32, 3, 3, 3), "conv_out.weight": (4, 32, 3, 3)},
        {"blocks.0.weight": (32, 4, 3, 3), "blocks.x.weight": (1,)},
        {"blocks.0.weight": ()},
        {"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 16, 3, 3)},  # a VAE
    ],
)
def test_other_files_are_no_layer_files(layout):
    assert recognise({}, layout) is None


def parameters_of(widths: tuple[int, ...], context: int) -> dict[str, tuple[int, ...]]:
    """The projections of a UNet's attention layers."""
    shapes = {}
    for place, width in enumerate(widths):
        for attention, source in (("attn1", width), ("attn2", context)):
            head = f"input_blocks.{place}.1.transformer_blocks.0.{attention}"
            shapes |= {f"{head}.to_q.weight": (width, width), f"{head}.to_k.weight": (width, source)}
    return shapes


@pytest.mark.parametrize("widths", [(64,) * 7, (32, 64, 64)])
def test_units_fit_a_unet_with_as_many_layers_of_their_widths(widths):
    contents = recognise({}, sharing_layout(SharingShape(2, widths, 48, 4)), "own")
    assert contents.fits_unet(parameters_of(widths, 48)) and contents.fits_unet(parameters_of(widths[::-1], 48))
    others = (parameters_of(widths, 32), parameters_of(widths[1:], 48), parameters_of((*widths[1:], 96), 48), {})
    assert not any(map(contents.fits_unet, others))


def test_metadata_or_name_say_the_base_of_units():
    layout = sharing_layout(SharingShape(3, (64,) * 7, 128, 4))
    said = metadata_of(METHOD, BASES["demo"].latents, "demo_joint")
    assert recognise(said, layout, "own").methods == ("demo_joint",)
    assert recognise({}, layout, "layer_demo_joint").bases == ("demo",)
    assert recognise({}, layout, "layer_sd15_joint").methods == ("sd15_joint",)


@pytest.mark.parametrize("part", [DECODER, ENCODER, CODEC])
def test_who_holds_what(part):
    contents = recognise({}, FLUX_CODEC if part == CODEC else PART[part])
    held = {one for one in (DECODER, ENCODER, METHOD) if contents.holds(one)}
    assert held == ({DECODER, ENCODER} if part == CODEC else {part})


@pytest.mark.parametrize("base", ALL)
@pytest.mark.parametrize(("part", "layout"), [(DECODER, decoder_layout()), (ENCODER, encoder_layout())])
def test_metadata_say_the_base_that_shapes_leave_open(base, part, layout):
    said = metadata_of(part, BASES[base].latents)
    assert recognise(said, layout, "own").bases == (base,)
    assert recognise(said, layout, BASES["sdxl"].decoder).bases == (base,)


def test_metadata_say_which_of_two_alike_methods():
    layout = {WIDE: (320, 8, 3, 3), XL_QUERY: (640, 2048)}
    said = metadata_of(METHOD, BASES["sdxl"].latents, "xl_bg2blend")
    assert recognise(said, layout).methods == ("xl_bg2blend",)
    alike = metadata_of(METHOD, BASES["sdxl"].latents, "xl_fg_conv")
    assert recognise(alike, xl_attention_layout()).methods == ("xl_fg_attn", "xl_fg_conv")


@pytest.mark.parametrize(
    "space", [LatentSpace(0.18215, channels=16), LatentSpace(0.18215, factor=4), LatentSpace(0.5), LatentSpace(1.0)]
)
def test_a_latent_space_of_no_base_or_another_fits_none_of_the_others(space):
    found = recognise(metadata_of(DECODER, space), decoder_layout()).bases
    assert found == {1.0: ("demo",), 0.5: ALL}.get(space.scale_factor, ())


@pytest.mark.parametrize(
    "said", [{"layerdiffuse_base": "flux"}, {"layerdiffuse_base": 3}, {"layerdiffuse_latent_channels": "x"}]
)
def test_what_this_program_does_not_know_fits_nothing(said):
    assert recognise(said, decoder_layout()).bases == ()


def test_a_unet_is_told_from_another_by_a_sample():
    layout = xl_attention_layout()
    parameters = {
        key.split("::")[0].removeprefix("diffusion_model."): (shape[0], layout[key[:-1] + "1"][1])
        for key, shape in layout.items()
        if key.endswith("::0")
    }
    contents = recognise({}, layout)
    assert 8 < len(contents.sample) < 100 and contents.fits_unet(parameters)
    assert not contents.fits_unet(dict.fromkeys(parameters, (1, 1)))
    assert not contents.fits_unet({}) and not contents.fits_unet(dict.fromkeys(parameters, ()))


def test_a_wider_input_convolution_does_not_matter_to_the_unet():
    assert recognise({}, {WIDE: (320, 8, 3, 3)}).fits_unet({})


def test_sd15s_single_picture_may_be_made_by_offsets():
    contents = recognise({}, {XL_QUERY: (640, 768)})
    method = find_method("sd15_fg")
    assert method.kind == ATTENTION_SHARING and stands_for(method, contents) == replace(method, kind=OFFSETS)


def broken(path, kind: str) -> None:
    save_file({"conv_in.weight": torch.zeros(1)}, path)
    whole = path.read_bytes()
    header = {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    texts = {
        "deep": b"[" * 200_000,
        "list": b"[1]",
        "metadata": json.dumps({"__metadata__": [1], **header}).encode(),
        "no shape": b'{"x": {"dtype": "F32"}}',
        "huge": b'{"x": {"dtype": "F32", "shape": [1e99, "a"], "data_offsets": [0, 4]}}',
        "not utf-8": b"{\xff}",
    }
    data = {"empty": b"", "short": whole[:9], "truncated": whole[:-1], "long": whole + b"x", "zip": b"PK\x03\x04" * 9}
    text = texts.get(kind, b"")
    path.write_bytes(data.get(kind, struct.pack("<Q", len(text)) + text + b"\0" * 4))


@pytest.mark.parametrize(
    "kind",
    ["empty", "short", "truncated", "long", "zip", "deep", "list", "metadata", "no shape", "huge", "not utf-8"],
)
def test_broken_files_are_passed_over(tmp_path, kind):
    path = tmp_path / "broken.safetensors"
    broken(path, kind)
    assert read_contents(path) is None


def test_files_that_are_not_there_are_passed_over(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    assert read_contents(tmp_path / "none.safetensors") is None
    assert read_contents(tmp_path / "folder.safetensors") is None


def test_a_file_is_read_by_its_header_alone(tmp_path, monkeypatch):
    path = tmp_path / "own.safetensors"
    save_file(
        {key: torch.zeros(shape) for key, shape in encoder_layout((8, 8, 8, 8)).items()}, path, {"unit": "latent"}
    )
    monkeypatch.setattr("lib_layerdiffuse.core.files.weights.safe_open", None)
    assert read_contents(path).part == ENCODER
