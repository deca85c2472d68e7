from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from rule import decoder_inputs, file_state, randn_for
from safetensors.torch import load_file

from lib_layerdiffuse.core.bases import CodecRule
from lib_layerdiffuse.core.codec.codec import TransparencyCodec, VaeLatent, padded_rgb, to_vae_space
from lib_layerdiffuse.core.codec.decoder import TransparencyUNet
from lib_layerdiffuse.core.codec.decoding import TransparencyDecoder
from lib_layerdiffuse.core.codec.encoder import OffsetEncoder
from lib_layerdiffuse.core.errors import InputError, WeightsError
from lib_layerdiffuse.core.picture.alpha import (
    checkerboard_previews,
    composite_on_grey,
    from_tensor,
    pad_rgb,
    to_tensor,
)

ENCODER_STEM = "layer_sd15_vae_transparent_encoder"


def published_encoder() -> OffsetEncoder:
    shapes = {key: value.shape for key, value in OffsetEncoder().state_dict().items()}
    return OffsetEncoder.from_state_dict(file_state(ENCODER_STEM, shapes))


def small_codec(rule: CodecRule | None = None) -> TransparencyCodec:
    """Random weights for a VAE of factor 4; the decoder wants multiples of 16."""
    torch.manual_seed(0)
    encoder = OffsetEncoder((8, 8, 8))
    torch.nn.init.normal_(encoder.blocks[-1].weight, std=0.1)
    network = TransparencyUNet((8, 8, 16, 16, 16), latent_level=2, attention_levels=1, layers=1)
    torch.nn.init.normal_(network.latent_conv_in.weight)
    torch.nn.init.constant_(network.conv_out.bias, 0.5)
    return TransparencyCodec(encoder, TransparencyDecoder(network), rule)


def posterior(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A frozen VAE in small: mean of 4x4 pixels and of the picture's brightness, deviation 0.5."""
    mean = torch.nn.functional.avg_pool2d(torch.cat([image, image.mean(1, keepdim=True)], dim=1), 4)
    return mean, torch.full_like(mean, 0.5)


def picture(height: int = 20, width: int = 28, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (batch, 4, height, width), generator=generator) / 255


def golden_256() -> tuple[Image.Image, torch.Tensor]:
    """Input of the golden decode: a PIL image of noise and a VAE-space latent."""
    values = (torch.sigmoid(randn_for("golden/decoder/pixel_u8/256x256", (256, 256, 3))) * 255).to(torch.uint8)
    return Image.fromarray(values.numpy()), randn_for("golden/decoder/latent/256x256", (4, 32, 32))[None]


def test_golden_offset_of_a_picture(golden):
    levels = (torch.sigmoid(randn_for("golden/encoder/rgba", (96, 128, 4))) * 255).to(torch.uint8)
    rgba = levels.permute(2, 0, 1)[None].float() / 255
    expected = load_file(golden / "encoder.safetensors")["encode_rgba_96x128"]
    torch.testing.assert_close(TransparencyCodec(published_encoder()).offset(rgba), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.long
def test_golden_png(golden, published_decoder):
    """Eight passes (test_decoding.py) and the preview of these very levels (test_alpha.py) are always compared."""
    image, latent = golden_256()
    codec = TransparencyCodec(decoder=TransparencyDecoder(published_decoder))
    rgba = codec.decode(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255, VaeLatent(latent))
    (preview,) = checkerboard_previews(rgba)
    levels = (rgba[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy()
    for found, name in ((levels, "rgba"), (np.array(preview), "vis")):
        difference = np.abs(found.astype(int) - np.array(Image.open(golden / f"decode_256x256_{name}.png")))
        # values that fall on the edge between two levels may round either way
        assert difference.max() <= 1 and (difference > 0).mean() < 2e-3


@pytest.mark.parametrize("scale_factor", [0.18215, 0.13025])
def test_golden_latents_are_vae_space(golden, published_decoder, scale_factor):
    """Fails if the sampler's latents reach the network undivided, at either base's scale."""
    pixel, vae_latent = decoder_inputs(128, 128)
    sampler_latent = vae_latent * scale_factor
    codec = TransparencyCodec(decoder=TransparencyDecoder(published_decoder))
    expected = load_file(golden / "decoder_128x128.safetensors")["single"].clamp(0, 1)

    def distance(latent: VaeLatent) -> float:
        return (codec.decode(pixel, latent, passes=1)[:, [3, 0, 1, 2]] - expected).abs().max().item()

    assert distance(to_vae_space(sampler_latent, scale_factor)) < 2e-4
    assert distance(VaeLatent(sampler_latent)) > 0.1
    with pytest.raises(InputError, match="to_vae_space"):
        codec.decode(pixel, sampler_latent)


def test_vae_space_and_back():
    sampler = torch.randn(1, 16, 4, 4)
    latent = to_vae_space(sampler, 0.3611, shift_factor=0.1159)
    torch.testing.assert_close(latent.values, sampler / 0.3611 + 0.1159)
    torch.testing.assert_close(latent.to_sampler_space(0.3611, 0.1159), sampler)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(InputError, match="scale factor"):
            to_vae_space(sampler, wrong)


def test_adjusted_latent_is_the_published_formula():
    rgba = picture()
    mean, deviation = posterior((rgba[:, :3] * 2 - 1) * rgba[:, 3:])
    for scale in (1.0, 300.0):
        codec = small_codec(CodecRule(offset_scale=scale))
        offset = codec.encoder(torch.cat([rgba[:, 3:], padded_rgb(rgba)], dim=1))
        torch.testing.assert_close(codec.encode(rgba, posterior).values, mean + deviation * offset * scale)


def test_rule_of_a_codec_trained_on_padded_pictures():
    rgba = picture()
    codec = small_codec(CodecRule.from_metadata({"vae_input": "padded", "unit": "latent"}))
    mean, _ = posterior(padded_rgb(rgba) * 2 - 1)
    torch.testing.assert_close(codec.encode(rgba, posterior).values, mean + codec.offset(rgba))


def test_rule_from_metadata():
    assert CodecRule.from_metadata(None) == CodecRule("grey", "posterior", 1.0)
    assert CodecRule.from_metadata({"offset_scale": "300", "format": "pt"}).offset_scale == 300
    for wrong in (
        {"unit": "furlong"},
        {"vae_input": "blue"},
        {"offset_scale": "much"},
        {"offset_scale": "nan"},
        {"offset_scale": "-inf"},
    ):
        with pytest.raises(WeightsError, match="does not know"):
            CodecRule.from_metadata(wrong)
    with pytest.raises(InputError, match="posterior, latent"):
        CodecRule(unit="furlong")


def test_padded_rgb_is_pad_rgb_of_each_picture():
    rgba = picture(batch=2)
    levels = (rgba[1] * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(padded_rgb(rgba)[1].permute(1, 2, 0).numpy(), pad_rgb(levels))


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (16, 16), (21, 30)], ids=str)
@pytest.mark.parametrize("vae_input", ["grey", "padded"])
def test_issue_54_odd_sizes_go_both_ways(size, vae_input):
    codec = small_codec(CodecRule(vae_input=vae_input))
    rgba = picture(*size)
    latent = codec.encode(rgba, posterior)
    assert latent.values.shape == (1, 4, -(-size[0] // 4), -(-size[1] // 4))
    decoded = codec.decode(rgba[:, :3], latent, passes=2)
    assert decoded.shape == rgba.shape and torch.isfinite(decoded).all()


@pytest.mark.parametrize("alpha", [0, 255])
def test_fully_transparent_and_fully_opaque_pictures(alpha):
    image = Image.fromarray((picture()[0].permute(1, 2, 0) * 255).byte().numpy())
    image.putalpha(alpha)
    codec = small_codec()
    latent = codec.encode(to_tensor(image), posterior)
    mean, _ = posterior(composite_on_grey(to_tensor(image)) * 2 - 1)
    assert (latent.values - mean).abs().max() > 0  # the offset tells even these
    assert torch.isfinite(latent.values).all() and (alpha > 0 or not mean.any())


def test_images_in_and_out():
    codec = small_codec()
    images = to_tensor([Image.new("L", (28, 20), 90), Image.new("RGBA", (28, 20), (1, 2, 3, 4))])
    latent = codec.encode(images, posterior)
    calls = []
    results = codec.decode(images[:, :3], latent, passes=4, chunk=2, progress=lambda *call: calls.append(call))
    assert [(result.mode, result.size) for result in from_tensor(results)] == [("RGBA", (28, 20))] * 2
    assert calls == [(2, 8), (4, 8), (6, 8), (8, 8)]


def test_from_state_dicts_reads_shapes_and_rule():
    source = small_codec()
    state, rgba = source.decoder.network.state_dict(), picture()
    copy = TransparencyCodec.from_state_dicts(source.encoder.state_dict(), state, {"unit": "latent"})
    # the encoder's factor settles where the latent joins, which equal widths leave open
    assert copy.decoder.network.latent_level == 2 and copy.rule == CodecRule(unit="latent")
    latent = source.encode(rgba, posterior)
    torch.testing.assert_close(copy.decode(rgba[:, :3], latent), source.decode(rgba[:, :3], latent))
    with pytest.raises(WeightsError, match="transparency decoder"):
        TransparencyCodec.from_state_dicts(decoder=source.encoder.state_dict())


def test_half_a_codec_says_what_is_missing():
    with pytest.raises(InputError, match="without encoder"):
        TransparencyCodec().encode(picture(), posterior)
    with pytest.raises(InputError, match="without decoder"):
        TransparencyCodec().decode(torch.rand(1, 3, 8, 8), VaeLatent(torch.zeros(1, 4, 1, 1)))


def test_wrong_pictures_and_foreign_vaes():
    codec = small_codec()
    with pytest.raises(InputError, match="RGBA"):
        codec.encode(torch.rand(1, 3, 8, 8), posterior)
    for wrong in (picture() * 255, picture() - 0.5, picture() * float("nan")):
        with pytest.raises(InputError, match=r"\[0,1\]"):
            codec.encode(wrong, posterior)
    with pytest.raises(InputError, match="made for this VAE"):
        codec.encode(picture(), lambda image: (torch.zeros(1, 16, 5, 7), torch.ones(1, 16, 5, 7)))
