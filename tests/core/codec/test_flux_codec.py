"""The codec's conventions as data: the golden numbers of Flux's networks, through the rule and latents of its row."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from rule import file_state, randn_for
from safetensors.torch import load_file, save_file

from lib_layerdiffuse.core.bases import BASES, CHOICES, CodecRule
from lib_layerdiffuse.core.codec.codec import UNITS, VAE_INPUTS, TransparencyCodec, padded_rgb, to_vae_space
from lib_layerdiffuse.core.codec.decoder import TransparencyUNet
from lib_layerdiffuse.core.codec.decoding import TransparencyDecoder
from lib_layerdiffuse.core.codec.encoder import OffsetEncoder
from lib_layerdiffuse.core.codec.reading import read_codec
from lib_layerdiffuse.core.errors import WeightsError
from lib_layerdiffuse.core.files.codec_parts import DECODER, ENCODER
from lib_layerdiffuse.core.files.layouts import codec_layout, decoder_layout, encoder_layout

FLUX = BASES["flux"]
CLOSE = {"atol": 2e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def expected(golden):
    return load_file(golden / "flux_codec.safetensors")


@pytest.fixture(scope="module")
def decoder() -> TransparencyDecoder:
    """Flux's decoder in its published size, 104 million made-up weights."""
    state = file_state("flux_vae_transparent_decoder", decoder_layout(latent_channels=16))
    return TransparencyDecoder(TransparencyUNet.from_state_dict(state), rule=FLUX.codec.rule)


@pytest.fixture(scope="module")
def encoder() -> OffsetEncoder:
    state = file_state("flux_vae_transparent_encoder", encoder_layout(latent_channels=16))
    return OffsetEncoder.from_state_dict(state)


def pixel_and_latent(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    pixel = torch.sigmoid(randn_for(f"golden/flux/decoder/pixel/{height}x{width}", (1, 3, height, width)))
    return pixel, randn_for(f"golden/flux/decoder/latent/{height}x{width}", (1, 16, height // 8, width // 8))


def test_golden_single_pass(expected, decoder):
    with torch.no_grad():
        raw = decoder.network(*pixel_and_latent(128, 128))
    torch.testing.assert_close(raw[:, :, ::3, ::3], expected["decoder_single_every_third"], **CLOSE)


def test_golden_eight_passes_come_out_as_rgba(expected, decoder):
    rgba = decoder.decode(*pixel_and_latent(192, 128))
    torch.testing.assert_close(rgba[:, :, ::3, ::3], expected["decoder_192x128_every_third"], **CLOSE)


def made_up_posterior(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    means = F.avg_pool2d(image, 8)

    def mixed(name: str) -> torch.Tensor:
        return torch.einsum("oc,bchw->bohw", randn_for(f"golden/flux/vae/{name}", (16, 3)), means)

    return mixed("mean"), torch.exp((0.5 * mixed("logvar") - 6) / 2)


def golden_picture(name: str) -> torch.Tensor:
    levels = (torch.sigmoid(randn_for("golden/flux/encoder/rgba/128x96", (128, 96, 4))) * 255).to(torch.uint8)
    if name == "disk":
        rows, columns = torch.arange(128)[:, None] - 64, torch.arange(96) - 48
        levels[..., 3] = torch.where(rows**2 + columns**2 <= 1600, 255, 0)
    return levels.permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("name", ["noise", "disk"])
def test_golden_encoding(expected, encoder, name):
    codec, rgba = TransparencyCodec(encoder, rule=FLUX.codec.rule), golden_picture(name)
    torch.testing.assert_close(codec.offset(rgba), expected[f"encoder_{name}_offset"], **CLOSE)
    latent = codec.encode(rgba, made_up_posterior)
    sampler = latent.to_sampler_space(FLUX.latents.scale_factor, FLUX.latents.shift_factor)
    for found, space in ((latent.values, "vae"), (sampler, "sampler")):
        wanted = expected[f"encoder_{name}_latent_{space}"]
        assert (found - wanted).abs().max() < 2e-4 * wanted.abs().max()


def test_golden_padded_colours(expected):
    padded = padded_rgb(golden_picture("disk"))[:, :, ::4, ::4]
    torch.testing.assert_close(padded, expected["encoder_disk_padded_every_4th"], **CLOSE)


@pytest.mark.parametrize(("clip", "name"), [(False, "e2e_rgba"), (True, "e2e_rgba_pixels_clipped")])
def test_golden_from_the_samplers_latent_to_rgba(expected, decoder, clip, name):
    latent = to_vae_space(expected["e2e_unpacked"], FLUX.latents.scale_factor, FLUX.latents.shift_factor)
    colours = torch.einsum("co,bohw->bchw", randn_for("golden/flux/vae/decode", (3, 16)), latent.values)
    pixel = F.interpolate(0.03 * colours, scale_factor=8) * 0.5 + 0.5
    torch.testing.assert_close(torch.stack(pixel.aminmax()), expected["e2e_pixel_minmax"])
    rule = replace(FLUX.codec.rule, clip_pixels=clip)
    codec = TransparencyCodec(decoder=TransparencyDecoder(decoder.network, rule=rule))
    torch.testing.assert_close(codec.decode(pixel, latent)[:, :, ::2, ::2], expected[name], **CLOSE)


@pytest.mark.parametrize(("clip", "limits"), [(True, (0, 1)), (False, (-0.5, 1.5))])
def test_whatever_a_vae_gives_can_be_decoded(decoder, clip, limits):
    codec = TransparencyCodec(decoder=decoder, rule=replace(FLUX.codec.rule, clip_pixels=clip))
    assert codec.seen_pixels(torch.tensor([-3.0, 0.5, 7.0])).tolist() == [limits[0], 0.5, limits[1]]


def test_the_order_of_sd_would_show(expected, encoder):
    """The golden numbers tell A,R,G,B from R,G,B,A."""
    rule = replace(FLUX.codec.rule, channel_order="argb")
    offset = TransparencyCodec(encoder, rule=rule).offset(golden_picture("noise"))
    assert (offset - expected["encoder_noise_offset"]).abs().max() > 0.1


# --- files


def write_combined(path, metadata: dict[str, str] | None = None):
    """A combined file with decoder and encoder of factor 4, and a VAE that nobody wants."""
    torch.manual_seed(0)
    decoder = TransparencyUNet((8, 8, 16), latent_channels=16, latent_level=2, attention_levels=0, layers=1)
    torch.nn.init.normal_(decoder.latent_conv_in.weight)
    parts = {"decoder": decoder, "encoder": OffsetEncoder((8, 8, 8), latent_channels=16)}
    state = {f"{part}.{key}": value for part, network in parts.items() for key, value in network.state_dict().items()}
    save_file({**state, "sd_vae.encoder.conv_in.weight": torch.zeros(1)}, path, metadata)
    return parts


@pytest.mark.parametrize("part", [DECODER, ENCODER])
def test_a_combined_file_gives_each_part(tmp_path, part):
    path = tmp_path / "TransparentVAE.safetensors"
    networks = write_combined(path)
    codec = read_codec(path, part, FLUX.codec.rule)
    read = codec.decoder.network if part == DECODER else codec.encoder
    assert read.state_dict().keys() == networks[part].state_dict().keys()
    assert all(torch.equal(value, networks[part].state_dict()[key]) for key, value in read.state_dict().items())
    assert codec.rule == FLUX.codec.rule
    rule = codec.decoder.rule if part == DECODER else codec.rule
    assert rule.channel_order == "rgba" and codec.to("cpu").rule == rule


def test_a_file_says_its_rule_before_its_base_does(tmp_path):
    rule = CodecRule("padded", "latent", 2.5, "argb", True)
    assert {field.name for field in fields(rule)} == set(rule.metadata())
    path = tmp_path / "own.safetensors"
    write_combined(path, rule.metadata())
    assert read_codec(path, DECODER, FLUX.codec.rule).rule == rule
    assert read_codec(path, DECODER, FLUX.codec.rule).decoder.rule == rule
    write_combined(path, {"offset_scale": "7"})
    assert read_codec(path, ENCODER, FLUX.codec.rule).rule == replace(FLUX.codec.rule, offset_scale=7.0)


@pytest.mark.parametrize("wrong", [{"channel_order": "bgra"}, {"clip_pixels": "perhaps"}, {"unit": "furlong"}])
def test_a_rule_that_nobody_knows_is_refused(wrong):
    with pytest.raises(WeightsError, match="does not know"):
        CodecRule.from_metadata(wrong, FLUX.codec.rule)


def test_every_choice_of_a_rule_has_its_function():
    assert (set(CHOICES["vae_input"]), set(CHOICES["unit"])) == (set(VAE_INPUTS), set(UNITS))


def test_the_published_layout_has_as_many_tensors_as_the_published_file():
    layout = codec_layout()
    assert sum(key.startswith("decoder.") for key in layout) == 538 and len(layout) == 538 + 18


@pytest.mark.parametrize("base", BASES)
def test_latents_are_those_of_one_base_alone(base):
    space = BASES[base].latents
    assert space.base == base and replace(space, shift_factor=0.5).base == "" and replace(space, channels=7).base == ""
