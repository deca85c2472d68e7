"""Layer methods of SDXL: offsets with a wider input convolution, trained at toy size and loaded as the hosts do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from PIL import Image

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError
from lib_layerdiffuse.core.files.weights import read_header
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost
from lib_layerdiffuse.standalone.unet_method import method_on_unet
from lib_layerdiffuse.training.layers.layer_batches import FRAMES
from lib_layerdiffuse.training.layers.layers import LayerOptions, LayerRun, layer_method, train_layers
from lib_layerdiffuse.unet.images import on_grey, open_image
from lib_layerdiffuse.unet.ldm_keys import unet_modules
from lib_layerdiffuse.unet.method_kinds import Conditions, read_method

from .layer_toys import SIDE, layers_pipeline, lent, toy_layers
from .toys import short_run

OPTIONS = LayerOptions(rank=4, average=0.0, sample_steps=2, sample_sets=2)
METHODS = {"fg2blend": 8, "bg2blend": 8, "fgblend2bg": 12, "bgblend2fg": 12}
SDXL_SCALE = 0.13025


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    torch.manual_seed(0)
    pipeline = tiny.sdxl_pipeline(tmp_path_factory.mktemp("sdxl"))
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2):
        part.requires_grad_(False).eval()
    return pipeline


@pytest.fixture
def pipeline(shared):
    yield from lent(shared)


def sdxl_layers():
    return replace(toy_layers(), scale_factor=SDXL_SCALE)


@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("name", METHODS)
def test_inference_computes_what_was_trained(pipeline, tmp_path, name, mode):
    """The same UNet, given the same: once while it is trained, once with the hosts' code and the file."""
    method, out = layer_method(name, "sdxl"), tmp_path / "run"
    before = {key: tensor.clone() for key, tensor in pipeline.unet.state_dict().items()}
    options = replace(OPTIONS, method=name, mode=mode)
    for steps in (1, 2):
        train_layers(pipeline, sdxl_layers(), short_run(out, steps, learning_rate=0.01), options)
    assert all(torch.equal(tensor, before[key]) for key, tensor in pipeline.unet.state_dict().items())
    assert (out / "samples" / "step-000002.png").exists()
    (path,) = out.glob("*.safetensors")
    metadata, shapes = read_header(path)
    assert path.stem == method.weights and metadata["layerdiffuse_method"] == method.id
    assert shapes["diffusion_model.input_blocks.0.0.weight::diff::0"] == (32, METHODS[name], 3, 3)

    run = LayerRun(pipeline, sdxl_layers(), method, options)
    state = torch.load(out / "state" / "state.pt", weights_only=True)["modules"]["model"]
    run.trainer.load_state_dict(state)
    batch = run.batches.draw(3, 1000, torch.device("cpu"), torch.Generator().manual_seed(1))
    rows = batch.noise.flatten(0, 1)
    with torch.no_grad():
        run.units.see(batch.given)
        trained = pipeline.unet(rows, batch.steps, **batch.condition).sample
        run.units.remove()
        plain = pipeline.unet(rows, batch.steps, **batch.condition).sample
        weights = read_method(path, unet_modules(pipeline.unet), method)
        outputs = []
        for row in range(3):
            with method_on_unet(method, weights, pipeline.unet, (1, 1), given_at(batch, row)):
                condition = part_of(batch.condition, row)
                outputs.append(pipeline.unet(rows[row : row + 1], timestep=batch.steps[row], **condition).sample)
    change = (trained - plain).abs().max()
    assert change > 0.01
    assert (torch.cat(outputs) - trained).abs().max() < 0.02 * change  # the file holds half precision


def given_at(batch, row: int) -> Conditions:
    return Conditions(concat=batch.given["concat"][row : row + 1])


def part_of(condition: dict, row: int) -> dict:
    return {key: part_of(v, row) if isinstance(v, dict) else v[row : row + 1] for key, v in condition.items()}


@pytest.mark.parametrize("name", METHODS)
def test_given_latents_are_those_that_a_host_makes(pipeline, name):
    """A given foreground is seen on grey, not by its adjusted latent; the others as they are, in the method's order."""
    data, method = sdxl_layers(), find_method({"fg2blend": "xl_fg2blend"}.get(name, f"xl_{name}"))
    run = LayerRun(pipeline, data, method, replace(OPTIONS, method=name))
    run.units.remove()
    host = DiffusersHost(pipeline, "sdxl", None)
    rows = torch.tensor([3, 0])
    given = run.batches.given_to(rows, torch.device("cpu"))["concat"]
    for place, frame in enumerate(method.concat):
        part = given[:, 4 * place : 4 * place + 4] / SDXL_SCALE
        for row, latent in zip(rows.tolist(), part, strict=True):
            if frame == "foreground":
                image = Image.fromarray(data.pictures[row, :4].permute(1, 2, 0).numpy())
                seen = on_grey(open_image(image, "image"), SIDE, SIDE, "just-resize")
                expected = host.posterior(seen)[0][0].detach()
            else:
                expected = data.latents[row, FRAMES.index(frame)].float()
            assert torch.allclose(latent, expected, atol=2e-3, rtol=2e-3)


def test_rows_and_given_latents_must_agree(pipeline):
    run = LayerRun(pipeline, sdxl_layers(), find_method("xl_fg2blend"), replace(OPTIONS, method="fg2blend"))
    batch = run.batches.draw(2, 1000, torch.device("cpu"), torch.Generator().manual_seed(1))
    with pytest.raises(InputError, match="0 given latents for 2 rows"):
        pipeline.unet(batch.noise[:, 0], batch.steps, **batch.condition)
    run.units.see(batch.given)
    doubled = pipeline.unet.conv_in(torch.zeros(4, 4, 8, 8))
    assert torch.equal(doubled[:2], doubled[2:])
    with pytest.raises(InputError, match="2 given latents for 3 rows"):
        pipeline.unet.conv_in(torch.zeros(3, 4, 8, 8))
    run.units.remove()


@pytest.mark.parametrize("name", ["fg2blend", "bgblend2fg"])
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_every_part_learns(pipeline, name, mode):
    run = LayerRun(pipeline, sdxl_layers(), layer_method(name, "sdxl"), replace(OPTIONS, method=name, mode=mode))
    learnt = {key: p for key, p in run.units.named_parameters() if p.requires_grad}
    before = {key: parameter.detach().clone() for key, parameter in learnt.items()}
    optimizer, generator = torch.optim.Adam(learnt.values(), 0.01), torch.Generator().manual_seed(0)
    for _ in range(2):
        optimizer.zero_grad()
        run.trainer(run.batches.draw(4, 1000, torch.device("cpu"), generator))[0].backward()
        optimizer.step()
    still = [key for key, parameter in learnt.items() if torch.equal(parameter, before[key])]
    run.units.remove()
    assert not still and "wide.weight" in learnt


def test_a_method_that_a_base_does_not_have_is_refused(pipeline, tmp_path):
    run = short_run(tmp_path / "run")
    with pytest.raises(BaseMismatchError, match=r"joint for SDXL.*fg2blend, bg2blend"):
        train_layers(pipeline, sdxl_layers(), run, OPTIONS)
    with pytest.raises(BaseMismatchError, match=r"fg2blend for the demo model.*joint, fg2bg, bg2fg"):
        train_layers(layers_pipeline(), toy_layers(), run, replace(OPTIONS, method="fg2blend"))
    assert not (tmp_path / "run").exists()
