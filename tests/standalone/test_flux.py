"""Flux on diffusers: from disk to transparent pictures, start pictures, schedules, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from fakes.flux import FluxShape, flux_state, kohya_state, peft_state
from fakes.flux import FluxTransformer as Bfl
from fakes.flux_pipeline import SCALE, SHAPE, SHIFT, flux_pipeline
from PIL import Image
from rule import file_state, randn_for
from safetensors.torch import load_file, save_file

from lib_layerdiffuse.api import generate, load
from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.errors import BaseMismatchError, InputError, LayerDiffuseError, WeightsError
from lib_layerdiffuse.core.files.layouts import decoder_layout, encoder_layout
from lib_layerdiffuse.standalone.families import FAMILIES, shifted
from lib_layerdiffuse.standalone.loading import base_of, choose_placement
from lib_layerdiffuse.standalone.settings import ModelSettings

WIDTHS = (8, 8, 16, 16, 16, 16, 16)
SCHEDULES = ({"shift": 3.0}, {"use_dynamic_shifting": True})
SMALL = {"width": 64, "height": 96, "steps": 2, "count": 1, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A FluxPipeline's folder, the transformer in BFL's naming as one file, and layer files, all in one place."""
    root = tmp_path_factory.mktemp("flux")
    flux_pipeline(root / "parts").save_pretrained(root / "pipeline")
    state = {f"model.diffusion_model.{key}": tensor for key, tensor in flux_state(shape=SHAPE).items()}
    save_file(state | {"vae.encoder.conv_in.bias": torch.zeros(4)}, root / "flux1.safetensors")
    (root / "layers").mkdir()
    write_layers(root / "layers")
    return root


def write_layers(folder: Path) -> None:
    save_file(kohya_state(Bfl(SHAPE)), folder / "layerlora.safetensors")
    layouts = {"encoder": encoder_layout(latent_channels=16), "decoder": decoder_layout(WIDTHS, 16)}
    codec = {
        f"{part}.{key}": tensor
        for part, layout in layouts.items()
        for key, tensor in file_state(f"flux_vae_transparent_{part}", layout).items()
    }
    save_file(codec, folder / "TransparentVAE.safetensors")


def settings(folder: Path, checkpoint: str = "pipeline", **more) -> ModelSettings:
    return ModelSettings(
        checkpoint=folder / checkpoint,
        models=folder / "layers",
        precision="float32",
        offline=True,
        device="cpu",
        **more,
    )


@pytest.fixture(scope="module")
def host(folder):
    return load(settings(folder))


def arrays(pictures) -> list[np.ndarray]:
    return [np.asarray(picture.image) for picture in pictures]


def state_of(host) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in host.pipeline.transformer.state_dict().items()}


def test_a_transparent_picture_and_the_model_as_it_was(host) -> None:
    before, bits = generate("a bottle", pipeline=host, transparent=False, **SMALL), state_of(host)
    made = generate("a bottle", pipeline=host, **SMALL)
    assert [picture.image.mode for picture in made] == ["RGBA"] and made[0].image.size == (64, 96)
    assert "layerdiffusion_method" in made[0].parameters
    after = generate("a bottle", pipeline=host, transparent=False, **SMALL)
    assert np.array_equal(*arrays([before[0], after[0]]))
    assert all(torch.equal(tensor, bits[name]) for name, tensor in host.pipeline.transformer.state_dict().items())
    weak = generate("a bottle", pipeline=host, weight=0.0, **SMALL)
    assert not np.array_equal(*arrays([weak[0], made[0]]))


def test_a_single_file_of_the_transformer_with_a_folder_for_the_rest(folder, host) -> None:
    single = load(settings(folder, "flux1.safetensors", config=folder / "pipeline"))
    first, second = arrays([generate("a bottle", pipeline=model, **SMALL)[0] for model in (host, single)])
    assert np.abs(first.astype(int) - second).max() <= 2


def test_a_single_file_in_diffusers_naming(folder, host) -> None:
    single = folder / "pipeline/transformer/diffusion_pytorch_model.safetensors"
    model = load(settings(folder, single, config=folder / "pipeline"))
    first, second = (generate("a bottle", pipeline=each, **SMALL) for each in (host, model))
    assert np.array_equal(*arrays([first[0], second[0]]))


def test_batches_are_pictures_one_by_one(host) -> None:
    together = generate("a bottle", pipeline=host, **SMALL | {"count": 2})
    alone = generate("a bottle", pipeline=host, **SMALL | {"count": 2, "batch": 1})
    assert all(np.abs(a.astype(int) - b).max() <= 2 for a, b in zip(arrays(together), arrays(alone), strict=True))
    assert together[1].seed == 4


def test_sizes_come_in_steps_of_16(host) -> None:
    made = generate("a bottle", pipeline=host, **SMALL | {"width": 72, "height": 80})
    assert made[0].image.size == (80, 80) and any("rounded up to 80" in note for note in made.notes)


def test_guidance_matters_and_a_negative_prompt_does_not(host) -> None:
    one, other = (generate("a bottle", pipeline=host, guidance=value, **SMALL) for value in (3.5, 9.0))
    assert not np.array_equal(*arrays([one[0], other[0]]))
    told = generate("a bottle", pipeline=host, negative_prompt="glass", **SMALL)
    assert np.array_equal(*arrays([one[0], told[0]])) and any("negative_prompt" in note for note in told.notes)


def cut_out() -> Image.Image:
    rows, columns = np.mgrid[:96, :64]
    rgba = np.full((96, 64, 4), (200, 60, 30, 0), np.uint8)
    rgba[..., 3] = ((rows - 48) ** 2 + (columns - 32) ** 2 < 500) * 255
    return Image.fromarray(rgba)


def test_a_start_picture_is_encoded_with_its_alpha(host, folder) -> None:
    """Without noise the codec's round trip; with some, noise is mixed in by the level that the steps begin at."""
    kept = generate("a bottle", pipeline=host, init=cut_out(), denoise=0.0, **SMALL)
    assert kept[0].image.mode == "RGBA"
    seen = []
    handle = host.pipeline.transformer.register_forward_pre_hook(
        lambda module, inputs, named: seen.append((named["hidden_states"], float(named["timestep"][0]))),
        with_kwargs=True,
    )
    generate("a bottle", pipeline=host, init=cut_out(), denoise=0.5, **SMALL | {"steps": 4})
    handle.remove()
    assert len(seen) == 2
    tokens, level = seen[0]
    assert level == pytest.approx(shifted(host.pipeline.scheduler, 0.5, 24), abs=1e-5)
    found = FAMILIES["transformer"].latents(host.pipeline, tokens, (96, 64))
    rgba = torch.from_numpy(np.array(cut_out())).permute(2, 0, 1)[None].float() / 255
    latent = host.encoder.encode(rgba, host.posterior).values
    noise = torch.randn(16, 12, 8, generator=torch.Generator().manual_seed(3))[None]
    wanted = (1 - level) * (latent - SHIFT) * SCALE + level * noise
    assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max()


def test_it_stops_at_a_share_of_the_steps(host) -> None:
    active, layer = [], host.pipeline.transformer.single_transformer_blocks[0].proj_out
    plain, sample = layer(torch.ones(1, 160)), torch.ones(1, 160)
    on = host.pipeline.transformer.norm_out.register_forward_pre_hook(
        lambda module, inputs: active.append(not torch.equal(layer(sample), plain))
    )
    generate("a bottle", pipeline=host, stop_at=0.5, **SMALL | {"steps": 4})
    on.remove()
    assert active == [True, True, False, False]
    stop = FAMILIES["transformer"].stop
    assert stop(host.pipeline, 1.0, (64, 64)) < 0 and stop(host.pipeline, 0.0, (64, 64)) > 1


def test_shifts_are_those_of_the_scheduler() -> None:
    static = FlowMatchEulerDiscreteScheduler(shift=3.0)
    static.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    assert [shifted(static, level, 256) for level in (1.0, 0.75, 0.5, 0.25)] == pytest.approx(
        static.sigmas[:4].tolist()
    )
    dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    dynamic.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=1.15)
    found = [shifted(dynamic, level, 4096) for level in (1.0, 0.75, 0.5, 0.25)]
    assert found == pytest.approx(dynamic.sigmas[:4].tolist()) and shifted(dynamic, 0.0, 4096) == 0


def test_tokens_are_unpacked_as_diffusers_does(host) -> None:
    tokens = randn_for("golden/flux/e2e/packed/64x64", (1, 16, 64))
    latents = FAMILIES["transformer"].latents(host.pipeline, tokens, (64, 64))
    assert torch.equal(latents, host.pipeline._unpack_latents(tokens, 64, 64, host.pipeline.vae_scale_factor))


def test_schnell_works_without_guidance(tmp_path_factory, folder) -> None:
    root = tmp_path_factory.mktemp("schnell")
    shape = FluxShape(pooled=SHAPE.pooled, guided=False)
    save_file(flux_state("schnell", shape), root / "schnell.safetensors")
    model = load(
        ModelSettings(root / "schnell.safetensors", folder / "pipeline", folder / "layers", precision="float32")
    )
    one, other = (generate("a bottle", pipeline=model, guidance=value, **SMALL) for value in (3.5, 9.0))
    assert np.array_equal(*arrays([one[0], other[0]])) and any("schnell" in note for note in one.notes)


# --- what is refused


def edited(folder: Path, target: Path, **changes) -> Path:
    """The single file with tensors replaced or, by None, left out."""
    state = {**load_file(folder / "flux1.safetensors"), **changes}
    save_file({key: tensor for key, tensor in state.items() if tensor is not None}, target)
    return target


NAME = "model.diffusion_model."
FAULTS = {
    "Chroma": {f"{NAME}vector_in.in_layer.weight": None},
    "inpainting, editing": {f"{NAME}img_in.weight": torch.zeros(32, 384)},
    "four bits": {f"{NAME}img_in.weight.absmax": torch.zeros(3)},
    "without single_transformer_blocks.0.proj_out.bias": {f"{NAME}single_blocks.0.linear2.bias": None},
}


@pytest.mark.parametrize("said", FAULTS)
def test_relatives_and_broken_files_are_refused(folder, tmp_path, said) -> None:
    path = edited(folder, tmp_path / "other.safetensors", **FAULTS[said])
    with pytest.raises((BaseMismatchError, WeightsError), match=said):
        load(settings(folder, path, config=folder / "pipeline"))


def test_a_folder_of_another_pipeline(tmp_path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxKontextPipeline"}))
    with pytest.raises(BaseMismatchError, match="FluxKontextPipeline"):
        base_of(ModelSettings(tmp_path))
    (tmp_path / "model_index.json").unlink()
    with pytest.raises(LayerDiffuseError):
        base_of(ModelSettings(tmp_path))


def test_a_folder_without_the_text_encoder_says_what_is_wanted(folder, tmp_path) -> None:
    shutil.copytree(folder / "pipeline", tmp_path / "pipeline")
    shutil.rmtree(tmp_path / "pipeline/text_encoder_2")
    with pytest.raises(WeightsError, match="text encoders and VAE"):
        load(settings(folder, "flux1.safetensors", config=tmp_path / "pipeline"))


@pytest.mark.parametrize(
    ("choice", "said"),
    [({"sampler": "ddim"}, "euler"), ({"method": "sd15_fg"}, "flux_fg"), ({"control_image": cut_out()}, "UNet")],
)
def test_settings_that_suit_other_bases(host, choice, said) -> None:
    with pytest.raises(LayerDiffuseError, match=said):
        generate("a bottle", pipeline=host, **SMALL, **choice)


def test_the_sampler_by_its_name(host) -> None:
    usual, named = (generate("a bottle", pipeline=host, sampler=name, **SMALL) for name in (None, "euler"))
    assert np.array_equal(*arrays([usual[0], named[0]])) and "Sampler: Euler," in named[0].parameters


@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_a_layer_file_of_ones_own(host, folder, tmp_path, layout) -> None:
    state = kohya_state(Bfl(SHAPE), "own") if layout == "kohya" else peft_state(host.pipeline.transformer, "own")
    save_file(state, tmp_path / "own.safetensors")
    usual = generate("a bottle", pipeline=host, **SMALL)
    made = generate("a bottle", pipeline=host, layer_file=tmp_path / "own.safetensors", **SMALL)
    assert not np.array_equal(*arrays([usual[0], made[0]])) and "own [" in made[0].parameters


def test_a_lora_of_another_model_is_refused(host, tmp_path) -> None:
    save_file(kohya_state(Bfl(FluxShape(doubles=2))), tmp_path / "own.safetensors")
    with pytest.raises(BaseMismatchError, match="another UNet"):
        generate("a bottle", pipeline=host, layer_file=tmp_path / "own.safetensors", **SMALL)


def test_the_precision_that_flux_was_trained_in() -> None:
    assert choose_placement(ModelSettings(device="cpu"), "flux").dtype == torch.bfloat16
    assert choose_placement(ModelSettings(device="cpu", precision="float32"), "flux").dtype == torch.float32
    with pytest.raises(InputError):
        choose_placement(ModelSettings(device="cpu", precision="float8"), "flux")


def test_the_command_line_takes_a_folder(folder, tmp_path, capsys) -> None:
    words = f"generate bottle --checkpoint {folder / 'pipeline'} --models {folder / 'layers'} --offline --device cpu"
    small = f"--precision float32 --size 64 --steps 1 --count 1 --passes 1 --seed 5 --out {tmp_path}"
    assert main([*words.split(), *small.split()]) == 0
    assert Image.open(tmp_path / "bottle-5.png").mode == "RGBA"
    assert main([*words.replace("/pipeline", "").split(), *small.split()]) == 3
    assert "model_index.json" in capsys.readouterr().err
