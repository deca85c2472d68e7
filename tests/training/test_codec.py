"""The codec's trainer, its files, and the figures."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lib_layerdiffuse.core.codec.codec import TransparencyCodec
from lib_layerdiffuse.core.codec.decoding import ORIENTATIONS, TransparencyDecoder
from lib_layerdiffuse.core.errors import InputError, WeightsError
from lib_layerdiffuse.core.files.weights import read_header
from lib_layerdiffuse.training.codec.codec import (
    Codec,
    build_codec,
    draw_codec_batch,
    draw_orientation,
    latent_space,
    latent_statistics,
    spread_features,
    train_codec,
)
from lib_layerdiffuse.training.codec.harmlessness import evaluate_codec, load_codec
from lib_layerdiffuse.training.pictures.data import PreparedSet

from .toys import CODEC, SIDE, short_run, toy_set, toy_vae


@pytest.fixture
def data() -> PreparedSet:
    return toy_set()


def lively_codec(vae, data: PreparedSet, unit: str = "posterior") -> Codec:
    """A codec whose zero-initialised layers are not zero."""
    torch.manual_seed(1)
    codec = build_codec(vae, latent_statistics(vae, data), replace(CODEC, unit=unit))
    for parameter in codec.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return codec.requires_grad_(False)


@pytest.mark.parametrize(
    ("channels", "latent_channels"),
    [((32, 32), 3), ((32, 32, 32), 16), ((32, 32, 32, 32), 4)],
    ids="2x3 4x16 8x4".split(),
)
def test_any_factor_and_any_number_of_latent_channels(tmp_path, data, channels, latent_channels):
    vae = toy_vae(channels, latent_channels)
    options = replace(CODEC, encoder_widths=(8, 8, 16, 16)[: len(channels)], decoder_channels=(8, 8, 16, 16), crop=16)
    train_codec(vae, data, short_run(tmp_path / "run", 2), options)
    trained = load_codec(tmp_path / "run", vae, data)
    assert trained.encoder.factor == 2 ** (len(channels) - 1)
    assert trained.encoder.latent_channels == latent_channels
    assert evaluate_codec(vae, trained, data.part(held_out=True))["images"] == 2


def test_training_lowers_its_loss_and_leaves_the_vae_alone(tmp_path, data):
    vae = toy_vae()
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    train_codec(vae, data, short_run(tmp_path / "run", 24, learning_rate=1e-2), CODEC)
    assert all(torch.equal(value, before[key]) for key, value in vae.state_dict().items())
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["reconstruction"]) < 0.8 * float(rows[0]["reconstruction"])
    # the discriminator joins in the second half; its column is empty until then
    assert [bool(row["discriminator"]) for row in rows] == [False] * 12 + [True] * 12
    assert (tmp_path / "run" / "samples" / "step-000024.png").stat().st_size > 500


def test_an_untrained_encoder_is_harmless(data):
    vae = toy_vae()
    figures = evaluate_codec(vae, build_codec(vae, latent_statistics(vae, data), CODEC), data)
    assert figures["offset_rms_sigma"] == 0
    assert figures["harmlessness_loss_db"] == 0


def test_the_offset_is_reported_in_latent_deviations(data):
    vae = toy_vae()
    codec = lively_codec(vae, data)
    codec.encoder.blocks[-1].weight.zero_()
    codec.encoder.blocks[-1].bias.fill_(0.5)
    codec.rule = replace(codec.rule, unit="latent")
    codec.scale.copy_(codec.deviation)
    figures = evaluate_codec(vae, codec, data)
    assert figures["offset_rms_sigma"] == pytest.approx(0.5, rel=1e-4)
    assert figures["harmlessness_loss_db"] != 0


def test_figures_do_not_depend_on_the_batch(data):
    vae = toy_vae()
    codec = lively_codec(vae, data)
    one, all_at_once = (evaluate_codec(vae, codec, data, batch=size) for size in (5, 12))
    # the loss is the difference of two nearly equal PSNRs: float32 leaves it 1e-5 dB
    assert one == pytest.approx(all_at_once, rel=1e-4, abs=1e-5)


def test_orientations_vote_in_the_figures_as_in_inference(data):
    vae = toy_vae()
    codec = lively_codec(vae, data)
    one, eight = (evaluate_codec(vae, codec, data, passes=passes) for passes in (1, 8))
    assert eight["alpha_mae"] != one["alpha_mae"] and eight["vae_psnr"] == one["vae_psnr"]
    argb = data.rgba[:, [3, 0, 1, 2]].float() / 255
    posterior = vae.encode(argb[:, 1:] * 2 - 1).latent_dist
    latent = posterior.mean + codec.offset(argb, posterior.std)
    pixel = vae.decode(latent).sample.div(2).add(0.5).clamp(0, 1)
    rgba = TransparencyDecoder(codec.decoder).decode(pixel, latent, passes=8)
    assert (rgba[:, 3] - argb[:, 0]).abs().mean().item() == pytest.approx(eight["alpha_mae"], rel=1e-4)
    with pytest.raises(InputError, match="3 passes"):
        evaluate_codec(vae, codec, data, passes=3)


def test_training_turns_a_share_of_its_batches():
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_orientation(0.5, generator) for _ in range(400)]
    assert set(drawn) == set(ORIENTATIONS)
    assert 180 < drawn.count(ORIENTATIONS[0]) < 270
    assert {draw_orientation(0.0, generator) for _ in range(20)} == {ORIENTATIONS[0]}


def test_no_image_to_evaluate_is_an_error(data):
    vae = toy_vae()
    with pytest.raises(InputError, match="no image"):
        evaluate_codec(vae, lively_codec(vae, data), data.select([]))


def test_what_training_writes_says_what_it_is_for(tmp_path, data):
    vae = toy_vae()
    lively_codec(vae, data).export(tmp_path, "my_", replace(latent_space(vae), scale_factor=0.13025))
    found = {part: read_header(tmp_path / f"my_vae_transparent_{part}.safetensors") for part in ("encoder", "decoder")}
    factor = str(2 ** (len(vae.config.block_out_channels) - 1))
    for part, (metadata, _) in found.items():
        said = {"part": part, "latent_channels": "4", "latent_factor": factor, "scale_factor": "0.13025"}
        assert {f"layerdiffuse_{name}": value for name, value in said.items()}.items() <= metadata.items()
        assert metadata["unit"] == "posterior" and metadata["vae_input"] == "padded"


@pytest.mark.parametrize("unit", ["posterior", "latent"])
def test_what_training_writes_the_core_reads_with_the_same_numbers(tmp_path, data, unit):
    vae = toy_vae()
    codec = lively_codec(vae, data, unit)
    codec.export(tmp_path, "demo_")
    paths = [tmp_path / f"demo_vae_transparent_{part}.safetensors" for part in ("encoder", "decoder")]
    with safe_open(str(paths[0]), framework="pt") as file:
        metadata = file.metadata()
    read = TransparencyCodec.from_state_dicts(*map(load_file, paths), metadata)
    rgba = data.rgba[:2].float() / 255
    posterior = vae.encode(rgba[:, :3] * 2 - 1).latent_dist
    expected = posterior.mean + codec.offset(rgba[:, [3, 0, 1, 2]], posterior.std)

    def encode(image):
        # images of a prepared set are padded already; the core pads again, within a rounding of 8 bits
        assert (image - (rgba[:, :3] * 2 - 1)).abs().max() < 0.03
        return posterior.mean, posterior.std

    latent = read.encode(rgba, encode)
    assert (latent.values - expected).abs().max() < 0.02 * expected.std()
    pixel = (vae.decode(latent.values).sample / 2 + 0.5).clamp(0, 1)
    ours = codec.decode(pixel * 2 - 1, latent.values).clamp(0, 1)[:, [1, 2, 3, 0]]
    assert (read.decode(pixel, latent, passes=1) - ours).abs().max() < 1e-4


def test_a_run_resumes_where_it_stopped(tmp_path, data):
    vae = toy_vae()
    train_codec(vae, data, short_run(tmp_path / "run", 2), CODEC)
    train_codec(vae, data, short_run(tmp_path / "run", 5), CODEC)
    steps = [line.split(",")[0] for line in (tmp_path / "run" / "log.csv").read_text().splitlines()]
    assert steps == ["step", "1", "2", "3", "4", "5"]


def test_a_codec_is_trained_on_with_its_encoder_frozen(tmp_path, data):
    vae = toy_vae()
    lively_codec(vae, data).export(tmp_path)
    before = load_codec(tmp_path, vae, data)
    start = load_codec(tmp_path, vae, data)
    train_codec(vae, data, short_run(tmp_path / "run"), replace(CODEC, freeze_encoder=True), start)
    after = load_codec(tmp_path / "run", vae, data)
    rgba = data.rgba[:2, [3, 0, 1, 2]].float() / 255
    assert torch.equal(after.encoder(rgba), before.encoder(rgba))
    assert not torch.equal(after.decoder.conv_in.weight, before.decoder.conv_in.weight)


def test_offsets_can_be_kept_to_channels_that_the_vae_ignores(tmp_path, data):
    vae = toy_vae()
    options = replace(CODEC, free_channels_only=True)
    with pytest.raises(InputError, match="latent-noise"):
        train_codec(vae, data, short_run(tmp_path / "refused"), options)
    with torch.no_grad():
        vae.post_quant_conv.weight[:, 3] = 0
    train_codec(vae, data, short_run(tmp_path / "run"), options)
    codec = load_codec(tmp_path / "run", vae, data)
    figures = evaluate_codec(vae, codec, data)
    assert figures["harmlessness_loss_db"] == 0 and figures["offset_rms_sigma"] > 0.1
    offset = codec.offset(data.rgba[:2, [3, 0, 1, 2]].float() / 255, torch.ones(1))
    assert offset[:, :3].abs().max() == 0 and offset[:, 3].std() > 0


def test_fresh_encoders_pass_on_what_they_see(data):
    encoder = build_codec(toy_vae(), latent_statistics(toy_vae(), data), CODEC).encoder
    argb = data.rgba[:, [3, 0, 1, 2]].float() / 255
    spread_features(encoder, argb)
    assert encoder(argb).abs().max() == 0
    spread_features(encoder, argb, 0.5)
    torch.testing.assert_close(encoder(argb).std(dim=(0, 2, 3)), torch.full((4,), 0.5), rtol=1e-3, atol=0)


def test_batches_are_crops_first_and_whole_images_last(data):
    generator = torch.Generator().manual_seed(0)
    assert draw_codec_batch(data, 8, 0.1, CODEC, generator).shape == (8, 4, 16, 16)
    assert draw_codec_batch(data, 8, 0.9, CODEC, generator).shape == (2, 4, SIDE, SIDE)


@pytest.mark.parametrize(
    "change",
    [{"encoder_widths": (8, 8)}, {"decoder_channels": (8,) * 7}, {"crop": 10}, {"unit": "metre"}],
    ids=lambda change: next(iter(change)),
)
def test_shapes_that_do_not_fit_are_refused_before_training(tmp_path, data, change):
    with pytest.raises(InputError):
        train_codec(toy_vae(), data, short_run(tmp_path / "run"), replace(CODEC, **change))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, data):
    vae = toy_vae()
    with torch.no_grad():
        vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="learning-rate"):
        train_codec(vae, data, short_run(tmp_path / "run"), CODEC)


def test_a_codec_for_another_vae_is_refused(tmp_path, data):
    lively_codec(toy_vae(), data).export(tmp_path)
    with pytest.raises(WeightsError, match="factor"):
        load_codec(tmp_path, toy_vae((32, 32, 32, 32)), data)
    with pytest.raises(WeightsError, match="exactly one"):
        load_codec(tmp_path / "discs", toy_vae(), data)
    path = tmp_path / "vae_transparent_decoder.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(WeightsError, match="whole safetensors"):
        load_codec(tmp_path, toy_vae(), data)
