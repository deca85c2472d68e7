"""Training of layer methods: units that learn, their file, and what inference makes of it."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch

from lib_layerdiffuse.core.files.weights import read_header
from lib_layerdiffuse.core.sharing.attention_sharing import AttentionSharing
from lib_layerdiffuse.standalone.unet_method import method_on_unet
from lib_layerdiffuse.training.layers import LayerOptions, LayerRun, layer_method, train_layers
from lib_layerdiffuse.unet.ldm_keys import unet_modules
from lib_layerdiffuse.unet.method_kinds import Conditions, read_method

from .layer_toys import layers_pipeline, toy_layers
from .toys import short_run

OPTIONS = LayerOptions(rank=4, control_channels=16, average=0.0, sample_steps=2, sample_sets=2)
METHODS = ("joint", "fg2bg", "bg2fg")


@pytest.fixture
def pipeline(tmp_path):
    return layers_pipeline(tmp_path)


def trained(pipeline, method: str, steps: int = 3) -> LayerRun:
    """A run after a few steps, its units rounded to what a file holds."""
    run = LayerRun(pipeline, toy_layers(), layer_method(method, "demo"), replace(OPTIONS, method=method))
    optimizer, generator = torch.optim.Adam(run.units.parameters(), 0.02), torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        run.trainer(run.batches.draw(4, 1000, torch.device("cpu"), generator))[0].backward()
        optimizer.step()
    run.trainer.average.update()
    with torch.no_grad():
        for parameter in run.units.parameters():
            parameter.copy_(parameter.half())
    return run


@pytest.mark.parametrize("name", METHODS)
def test_inference_computes_what_was_trained(pipeline, name):
    """The same UNet, given the same: once with the units that train, once with core's code and the file's tensors."""
    run = trained(pipeline, name)
    batch = run.batches.draw(2, 1000, torch.device("cpu"), torch.Generator().manual_seed(1))
    rows, steps = batch.noise.flatten(0, 1), batch.steps.repeat_interleave(batch.latent.shape[1])
    with torch.no_grad():
        run.units.see(batch.control)
        trained_output = pipeline.unet(rows, steps, batch.context).sample
        run.units.remove()
        plain = pipeline.unet(rows, steps, batch.context).sample
        sharing = AttentionSharing.from_state_dict(run.units.published())
        method, conditions = layer_method(name, "demo"), Conditions(control=batch.control)
        with method_on_unet(method, sharing, pipeline.unet, (1.0, 1.0), conditions):
            output = pipeline.unet(rows, timestep=steps, encoder_hidden_states=batch.context).sample
    assert (plain - trained_output).abs().max() > 0.01
    assert (output - trained_output).abs().max() < 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_a_run_writes_a_file_that_loads_and_leaves_the_unet_as_it_was(pipeline, tmp_path, name):
    unet, out = pipeline.unet, tmp_path / "run"
    before = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    for steps in (2, 4):
        train_layers(pipeline, toy_layers(), short_run(out, steps), replace(OPTIONS, method=name))
    assert all(torch.equal(tensor, before[key]) for key, tensor in unet.state_dict().items())
    assert not any("forward" in module.__dict__ for module in unet.modules())
    with (out / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"] and all(float(row["loss"]) > 0 for row in rows)
    assert (out / "samples" / "step-000004.png").exists()
    (path,) = out.glob("*.safetensors")
    method = layer_method(name, "demo")
    sharing = read_method(path, unet_modules(unet), method)
    assert sharing.frames == len(method.frames) and (sharing.control_encoder is None) == (method.control is None)
    metadata, shapes = read_header(path)
    assert metadata["layerdiffuse_part"] == "method" and metadata["layerdiffuse_base"] == "demo"


def test_fresh_units_add_nothing(pipeline):
    run = LayerRun(pipeline, toy_layers(), layer_method("fg2bg", "demo"), replace(OPTIONS, method="fg2bg"))
    batch = run.batches.draw(2, 1000, torch.device("cpu"), torch.Generator().manual_seed(1))
    rows, steps = batch.noise.flatten(0, 1), batch.steps.repeat_interleave(2)
    run.units.see(batch.control)
    with torch.no_grad():
        fresh = pipeline.unet(rows, steps, batch.context).sample
        run.units.remove()
        assert torch.allclose(fresh, pipeline.unet(rows, steps, batch.context).sample, atol=1e-5)
