"""A codec for a VAE like Flux's: trained, and written in the layout and with the conventions of Flux's own file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lib_layerdiffuse.core.bases import BASES, CodecRule, LatentSpace
from lib_layerdiffuse.core.codec.codec import to_vae_space
from lib_layerdiffuse.core.codec.reading import read_codec
from lib_layerdiffuse.core.errors import InputError, WeightsError
from lib_layerdiffuse.core.files.codec_parts import DECODER, ENCODER
from lib_layerdiffuse.core.files.layer_files import CODEC as BOTH
from lib_layerdiffuse.core.files.layer_files import read_contents
from lib_layerdiffuse.training.codec.codec import Codec, build_codec, latent_space, latent_statistics, train_codec
from lib_layerdiffuse.training.codec.codec_files import LAYOUTS, layout_for
from lib_layerdiffuse.training.codec.harmlessness import evaluate_codec, load_codec
from lib_layerdiffuse.training.codec.vae import whiten

from .toys import CODEC, flux_vae, short_run, toy_set, toy_vae

FLUX = BASES["flux"]
OPTIONS = replace(CODEC, encoder_widths=(8, 8, 16, 16), decoder_channels=(8, 8, 16, 16), crop=16)
FILE = "TransparentVAE.safetensors"


@pytest.fixture(scope="module")
def data():
    return toy_set(6)


@pytest.fixture(scope="module")
def vae():
    return flux_vae()


def lively(vae, data, **options) -> Codec:
    torch.manual_seed(1)
    codec = build_codec(vae, latent_statistics(vae, data), replace(OPTIONS, **options))
    for parameter in codec.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return codec.requires_grad_(False)


def written(codec: Codec, vae, folder, wish: str = "auto"):
    space = latent_space(vae)
    codec.export(folder, space=space, layout=layout_for(space, wish))
    return folder


def test_the_layout_follows_from_the_latents_unless_it_is_wished_for():
    assert layout_for(FLUX.latents) == layout_for(LatentSpace(1.0, 16)) == LAYOUTS["combined"] == FLUX.codec
    for base in ("sd15", "sdxl", "demo"):
        assert layout_for(BASES[base].latents) == LAYOUTS["separate"]
    assert layout_for(LatentSpace(1.0, 3)) == layout_for(FLUX.latents, "separate") == LAYOUTS["separate"]
    assert layout_for(BASES["sdxl"].latents, "combined") == LAYOUTS["combined"]


def test_a_trained_codec_is_one_file_that_is_known_as_fluxs(tmp_path, data, vae):
    train_codec(vae, data, short_run(tmp_path / "run", 2), OPTIONS)
    names = {path.name for path in (tmp_path / "run").glob("*.safetensors")}
    contents = read_contents(tmp_path / "run" / FILE)
    assert names == {FILE} and (contents.part, contents.bases) == (BOTH, ("flux",))
    trained = load_codec(tmp_path / "run", vae, data)
    assert trained.rule == replace(FLUX.codec.rule, vae_input="padded")
    assert evaluate_codec(vae, trained, data.part(held_out=True))["images"] == 2


@pytest.mark.parametrize("wish", ["combined", "separate"])
@pytest.mark.parametrize("unit", ["posterior", "latent"])
def test_the_core_reads_the_same_numbers(tmp_path, data, vae, wish, unit):
    codec = lively(vae, data, layout=wish, unit=unit)
    written(codec, vae, tmp_path, wish)
    paths = [tmp_path / FILE] * 2
    if wish == "separate":
        paths = [tmp_path / f"vae_transparent_{part}.safetensors" for part in (DECODER, ENCODER)]
    reading = [read_codec(path, part, FLUX.codec.rule) for path, part in zip(paths, (DECODER, ENCODER), strict=True)]
    argb = data.rgba[:2, [3, 0, 1, 2]].float() / 255
    posterior = vae.encode(codec.seen(argb)).latent_dist
    expected = codec.encode(vae, argb)
    latent = reading[1].encode(data.rgba[:2].float() / 255, lambda image: (posterior.mean, posterior.std))
    # the core pads anew, within a rounding of 8 bits
    assert (latent.values - expected).abs().max() < 0.03 * expected.std()
    scales = FLUX.latents.scale_factor, FLUX.latents.shift_factor
    latent = to_vae_space(latent.to_sampler_space(*scales), *scales)
    decoded = vae.decode(latent.values).sample.clamp(-1.9, 1.9)
    ours = codec.decode(decoded, latent.values).clamp(0, 1)[:, [1, 2, 3, 0]]
    assert (reading[0].decode(decoded / 2 + 0.5, latent, passes=1) - ours).abs().max() < 1e-4


def test_a_file_trained_with_the_published_input_is_what_the_published_program_wants(tmp_path, data, vae):
    """That program knows no metadata: R,G,B,A in, z = mean + deviation * 300 * offset of what the VAE sees on grey."""
    codec = lively(vae, data, vae_input="grey")
    state = load_file(written(codec, vae, tmp_path) / FILE)
    rgba = data.rgba[:2].float() / 255
    blocks = codec.encoder.blocks
    plain = {key.removeprefix("encoder.blocks."): value for key, value in state.items() if key.startswith("encoder.")}
    offset = torch.func.functional_call(blocks, plain, rgba)
    posterior = vae.encode((rgba[:, :3] * 2 - 1) * rgba[:, 3:]).latent_dist
    expected = posterior.mean + posterior.std * 300 * offset
    found = codec.encode(vae, rgba[:, [3, 0, 1, 2]])
    torch.testing.assert_close(found, expected, atol=1e-3 * expected.std().item(), rtol=1e-4)


def test_what_was_written_is_gone_on_from_unchanged(tmp_path, data, vae):
    first = written(lively(vae, data), vae, tmp_path)
    before = load_file(first / FILE)
    (tmp_path / "again").mkdir()
    written(load_codec(first, vae, data), vae, tmp_path / "again")
    after = load_file(tmp_path / "again" / FILE)
    assert before.keys() == after.keys()
    assert all(torch.allclose(after[key], before[key], rtol=1e-5, atol=1e-9) for key in before)


def test_a_published_file_without_metadata_has_fluxs_rule(tmp_path, data, vae):
    from safetensors.torch import save_file

    written(lively(vae, data), vae, tmp_path)
    save_file({**load_file(tmp_path / FILE), "sd_vae.x": torch.zeros(1)}, tmp_path / FILE)
    assert load_codec(tmp_path, vae, data).rule == FLUX.codec.rule


def test_vaes_without_quant_convolutions_that_cannot_be_what_is_asked_for(tmp_path, data, vae):
    with pytest.raises(InputError, match="latent-noise"):
        train_codec(vae, data, short_run(tmp_path / "run"), replace(OPTIONS, free_channels_only=True))
    with pytest.raises(InputError, match="quant convolutions"):
        whiten(flux_vae(), torch.zeros(2, 3, 32, 32))


def test_a_codec_of_another_vae_is_refused(tmp_path, data, vae):
    written(lively(vae, data), vae, tmp_path)
    with pytest.raises(WeightsError, match="factor 4 and 4 channels"):
        load_codec(tmp_path, toy_vae(), data)


def test_rules_of_the_layouts():
    assert LAYOUTS["separate"].rule == CodecRule() and LAYOUTS["combined"].rule.channel_order == "rgba"
