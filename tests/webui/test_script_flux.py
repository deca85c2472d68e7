"""Flux in Forge: transparent pictures beside the user's LoRAs, as weights are stored; start pictures; refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from fakes.flux import FluxTransformer, Packed, kohya_state
from fakes.forge_layers import ForgeLinear
from fakes.running import Outcome, Snapshot, networks_of, picture, run, same_pictures
from fakes.webui import WebUI
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from lib_layerdiffuse.core.bases import BASES
from lib_layerdiffuse.core.codec.reading import read_codec
from lib_layerdiffuse.core.files.codec_parts import ENCODER
from lib_layerdiffuse.core.methods import METHODS
from lib_layerdiffuse.core.picture.alpha import to_tensor
from lib_layerdiffuse.files.downloads import LayerFiles
from lib_layerdiffuse.files.layer_choice import OwnFiles
from lib_layerdiffuse.webui.host.host import host_of, loaded_base, loaded_base_note
from lib_layerdiffuse.webui.jobs.networks import Networks
from lib_layerdiffuse.webui.layer_files.downloads import HostLayerFiles
from lib_layerdiffuse.webui.page.options import read_options
from lib_layerdiffuse.webui.rest import pixels as pixels_of_routes

STORAGES = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn)
LORA = "a bottle <lora:style:1>"
OPAQUE = {"output_origin": True}


@pytest.fixture
def flux(make_webui) -> WebUI:
    return make_webui("forge", "flux")


def job(webui: WebUI, layer: dict | None = None, **fields) -> Outcome:
    """A job of one step as Flux is used."""
    return run(webui, layer, **{"cfg_scale": 1.0, "sampler_name": "Euler", "steps": 1, **fields})


def pixels(outcome: Outcome) -> np.ndarray:
    """The last picture as the VAE decoded it."""
    return np.asarray(outcome.pictures[-1].convert("RGB")).astype(int)


def differ(one: Outcome, other: Outcome) -> bool:
    return bool(np.abs(pixels(one) - pixels(other)).max() > 2)


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_a_transparent_picture_and_the_plain_one_after_it(make_webui, storage) -> None:
    webui = make_webui("forge", "flux", storage=storage)
    before, state = job(webui), Snapshot.of(webui)
    outcome = job(webui, OPAQUE)
    assert outcome.modes == ["RGBA", "RGB"] and outcome.error is None and not webui.errors
    assert outcome.parameters["layerdiffusion_method"] == "(Flux) Only Generate Transparent Image"
    assert differ(outcome, before)
    state.check(webui)
    assert same_pictures(before, job(webui))


@contextmanager
def stored_as(webui: WebUI, told: str) -> Iterator[nn.Module]:
    """The transformer's linear layers packed, as GGUF or four-bit floats."""
    network = networks_of(webui)["unet"]
    layers = {path: module for path, module in network.named_modules() if isinstance(module, ForgeLinear)}
    for path, module in layers.items():
        put(network, path, Packed(module, told))
    yield network
    for path, module in layers.items():
        put(network, path, module)


def put(network: nn.Module, path: str, module: nn.Module) -> None:
    """Another module in this place; torch itself can since 2.5."""
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


@pytest.mark.parametrize("told", ["quant_state", "real_shape"])
def test_packed_weights(flux, told) -> None:
    unpacked = job(flux, OPAQUE)
    with stored_as(flux, told):
        before, state = job(flux), Snapshot.of(flux)
        outcome = job(flux, OPAQUE)
        assert outcome.modes == ["RGBA", "RGB"] and outcome.error is None
        assert differ(outcome, before)
        assert np.abs(pixels(outcome) - pixels(unpacked)).max() <= 3  # half precision
        state.check(flux)
        assert same_pictures(before, job(flux))


def test_the_users_own_lora_before_beside_and_after(flux) -> None:
    plain, layer, lora = job(flux), job(flux, OPAQUE), job(flux, prompt=LORA)
    assert differ(plain, lora)
    both = job(flux, OPAQUE, prompt=LORA)
    assert both.modes == ["RGBA", "RGB"] and both.error is None
    assert differ(both, lora) and differ(both, layer)
    assert same_pictures(lora, job(flux, prompt=LORA)) and same_pictures(plain, job(flux))
    assert same_pictures(both, job(flux, OPAQUE, prompt=LORA)) and same_pictures(layer, job(flux, OPAQUE))


@pytest.mark.parametrize("layer", [{"weight": 0.0}, {"ending_step": 0.0}])
def test_nothing_of_it_is_the_plain_picture(flux, layer) -> None:
    assert not differ(job(flux, {**OPAQUE, **layer}), job(flux))


def test_it_stops_at_a_share_of_the_levels_of_noise(flux) -> None:
    """Forge says that the share 0.3 of the schedule ends where noise is 0.7; three steps have 1, 0.86 and 0.61."""
    inputs = torch.ones(1, 5 * 32)
    layer = networks_of(flux)["unet"].single_blocks[0].linear2
    plain, given = layer(inputs), []

    def watch(module: nn.Module, _inputs: tuple) -> None:
        handle.remove()
        given.append(torch.equal(module(inputs), plain))
        rearm()

    def rearm() -> None:
        nonlocal handle
        handle = layer.register_forward_pre_hook(watch)

    handle = layer.register_forward_pre_hook(watch)
    job(flux, {"ending_step": 0.3}, steps=3)
    handle.remove()
    assert given == [False, False, True]
    stop = host_of(flux.sd_model).stop_time
    assert stop(0.3) == pytest.approx(0.7) and stop(1.0) < 0 and stop(0.0) > 1


def test_a_schedule_that_ends_at_no_noise_too_early_is_refused_before_sampling(flux) -> None:
    """Forge's and Neo's Automatic, an API's default: the plain picture is no picture there either."""
    assert job(flux, {}, steps=2, scheduler="Simple").modes == ["RGBA"]
    outcome = job(flux, {}, steps=2, scheduler="Automatic")
    assert outcome.pictures == [] and outcome.error.count("\n") == 0
    assert "Automatic" in outcome.error and '"scheduler": "Simple"' in outcome.error
    assert job(flux, {}, steps=2).modes == ["RGBA"] and not flux.errors


def test_a_weaker_and_a_shorter_one_lie_between(flux) -> None:
    plain, whole = pixels(job(flux, steps=3)), pixels(job(flux, OPAQUE, steps=3))
    for layer in ({"weight": 0.3}, {"ending_step": 0.3}):
        found = pixels(job(flux, {**OPAQUE, **layer}, steps=3))
        assert np.abs(found - plain).max() > 1 and np.abs(found - whole).max() > 1


def test_the_other_layout_chosen_by_name(flux) -> None:
    usual, other = job(flux, OPAQUE), job(flux, {**OPAQUE, "method_file": "flux_peft"})
    assert other.error is None and other.modes == ["RGBA", "RGB"] and differ(usual, other)


def adjusted(webui: WebUI, layers, image: Image.Image) -> torch.Tensor:
    """The latent of an RGBA picture in the sampler's scale, computed apart from the WebUI."""
    vae = networks_of(webui)["vae"]
    codec = read_codec(layers / "TransparentVAE.safetensors", ENCODER, BASES["flux"].codec.rule)

    def posterior(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moments = vae.encode(seen)
        return moments.mean, moments.std

    with torch.no_grad():
        return (codec.encode(to_tensor(image), posterior).values - 0.1159) * 0.3611


def test_a_start_picture_is_encoded_with_its_alpha(flux, layers) -> None:
    state, image = Snapshot.of(flux), picture(seed=5)
    outcome = job(flux, init_images=[image], denoising_strength=0.5, steps=2, layer={})
    assert outcome.modes == ["RGBA"] and outcome.error is None and not flux.errors
    wanted, found = adjusted(flux, layers, image), outcome.p.init_latent
    assert torch.cosine_similarity(wanted.flatten(), found.flatten(), dim=0) > 0.9999
    assert (wanted - found).abs().max() < 0.01 * wanted.abs().max()
    state.check(flux)
    plain = job(flux, init_images=[image], denoising_strength=0.5, steps=2)
    assert torch.cosine_similarity(wanted.flatten(), plain.p.init_latent.flatten(), dim=0) < 0.99


WAYS = {
    "a batch": {"batch_size": 2},
    "two batches": {"n_iter": 2},
    "odd sides": {"width": 72, "height": 88},
    "hires fix": {"enable_hr": True, "hr_upscaler": "Latent"},
    "hires fix by pixels": {"enable_hr": True},
    "guidance with a negative prompt": {"cfg_scale": 3.0, "negative_prompt": "a glass"},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_painting(flux, way) -> None:
    state = Snapshot.of(flux)
    outcome = job(flux, {}, **WAYS[way])
    assert outcome.error is None and not flux.errors and set(outcome.modes) == {"RGBA"}
    state.check(flux)


@pytest.mark.parametrize("only_masked", [False, True])
def test_inpainting(flux, only_masked) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    fields = {"init_images": [picture()], "image_mask": mask, "inpaint_full_res": only_masked}
    outcome = job(flux, {}, **fields, denoising_strength=0.9, steps=2)
    assert outcome.error is None and not flux.errors and outcome.modes == ["RGBA"]


def test_schnell_has_no_guidance_and_says_whose_files_these_are(make_webui) -> None:
    webui = make_webui("forge", "schnell")
    before, outcome = job(webui), job(webui, OPAQUE)
    assert outcome.modes == ["RGBA", "RGB"] and outcome.error is None and "Flux.1 dev" in outcome.note
    assert differ(before, outcome) and same_pictures(before, job(webui))


def without_vectors(patch: pytest.MonkeyPatch, network: nn.Module) -> None:
    patch.delitem(network._modules, "vector_in")


def with_more_tokens(patch: pytest.MonkeyPatch, network: nn.Module) -> None:
    patch.setattr(network.img_in, "in_features", 384)


def fused(patch: pytest.MonkeyPatch, network: nn.Module) -> None:
    patch.setattr(network, "__class__", type("SVDQFluxTransformer2DModel", (type(network),), {}))


def lacking(patch: pytest.MonkeyPatch, network: nn.Module) -> None:
    """As Forge loads a file without some keys."""
    for layer in (network.vector_in.in_layer, network.img_in):
        for name in ("weight", "bias"):
            patch.setitem(layer._parameters, name, None)


def left_packed(patch: pytest.MonkeyPatch, network: nn.Module) -> None:
    """As Forge without bitsandbytes loads a file of four-bit floats."""
    layer = network.double_blocks[0].img_mlp[0]
    packed = nn.Parameter(torch.zeros(layer.weight.numel() // 2, 1))
    patch.setitem(layer._parameters, "weight", packed)


FOREIGN: dict[Callable[[pytest.MonkeyPatch, nn.Module], None], str] = {
    without_vectors: "Chroma or another relative",
    with_more_tokens: "an inpainting, editing or newer checkpoint",
    fused: "a Nunchaku (SVDQuant) checkpoint",
    left_packed: "a checkpoint of four-bit floats that this WebUI has not read",
    lacking: "a checkpoint that lacks 2 of Flux.1's layers (img_in, vector_in.in_layer)",
}


@pytest.mark.parametrize("change", FOREIGN, ids=lambda change: change.__name__)
def test_relatives_are_refused_in_one_line(flux, change) -> None:
    with pytest.MonkeyPatch.context() as patch:
        change(patch, networks_of(flux)["unet"])
        outcome = job(flux, {})
        assert outcome.pictures == [] and FOREIGN[change] in outcome.error and outcome.error.count("\n") == 0
        assert loaded_base() is None and FOREIGN[change] in loaded_base_note()
    assert job(flux, {}).modes == ["RGBA"]


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if "lora_up" not in key}


def wider(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    key = "lora_unet_single_blocks_0_linear2.lora_down.weight"
    return {**state, key: torch.cat([state[key]] * 2, 1)}


def of_sdxl(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace("double_blocks_0", "input_blocks_4_1"): tensor for key, tensor in state.items()}


@pytest.mark.parametrize("fault", [half, wider, of_sdxl], ids=lambda fault: fault.__name__)
def test_a_file_that_does_not_fit_is_told_and_the_next_job_is_clean(flux, tmp_path, fault) -> None:
    before, state = job(flux), Snapshot.of(flux)
    folder = tmp_path / "own"
    folder.mkdir()
    save_file(fault(kohya_state(FluxTransformer())), folder / "layerlora.safetensors")
    flux.opts.set("layerdiffuse_models_folder", str(folder))
    outcome = job(flux, {})
    assert outcome.pictures == [] and "layerlora" in outcome.error and "What to do" in outcome.error
    state.check(flux)
    assert same_pictures(before, job(flux))


def test_a_method_of_another_base_is_refused(flux) -> None:
    outcome = job(flux, {"method": "sd15_fg"})
    assert outcome.pictures == [] and "flux_fg" in outcome.error
    assert loaded_base() == "flux" and loaded_base_note() == ""


def test_the_routes_encode_and_decode(flux, layers) -> None:
    image, host, networks = picture(seed=5), host_of(flux.sd_model), Networks()
    files = OwnFiles(LayerFiles([layers], offline=True))
    latent, _seen = pixels_of_routes.encode(host, networks.encoder(files, "flux"), image)
    wanted = adjusted(flux, layers, image)
    assert (latent - wanted).abs().max() < 1e-3 * wanted.abs().max()
    made = pixels_of_routes.decode(host, networks.decoder(files, "flux"), latent, 1)
    assert [picture.mode for picture in made] == ["RGBA"] and made[0].size == image.size


def test_a_method_with_a_vae_of_its_own_is_not_offered_and_refused_in_one_line(flux, tmp_path) -> None:
    before = job(flux)
    outcome = job(flux, {"method": "flux_alphavae"})
    assert outcome.pictures == [] and "a VAE of its own" in outcome.error and outcome.error.count("\n") == 0
    assert np.array_equal(pixels(job(flux)), pixels(before))
    files = HostLayerFiles(read_options(), tmp_path)
    assert [row.id for row in METHODS if row.base == "flux" and files.offers(row)] == ["flux_fg"]
