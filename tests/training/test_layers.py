"""Training of layer methods: units that learn, their file, and what inference makes of it."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import tiny
import torch
from PIL import Image

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError, WeightsError
from lib_layerdiffuse.core.files.weights import read_header
from lib_layerdiffuse.core.offsets.offsets import make_lora, write_offsets
from lib_layerdiffuse.core.sharing.attention_sharing import AttentionSharing
from lib_layerdiffuse.files.whole_files import save_tensors
from lib_layerdiffuse.standalone.unet_method import method_on_unet
from lib_layerdiffuse.training.diffusion.diffusion import encode_captions
from lib_layerdiffuse.training.layers.layer_batches import FRAMES, Captions
from lib_layerdiffuse.training.layers.layers import LayerOptions, LayerRun, layer_method, train_layers
from lib_layerdiffuse.training.layers.sharing_units import attention_places
from lib_layerdiffuse.unet.images import on_grey, open_image
from lib_layerdiffuse.unet.ldm_keys import unet_modules
from lib_layerdiffuse.unet.method_kinds import Conditions, read_method

from .layer_toys import SIDE, layers_pipeline, layers_unet, lent, toy_layers
from .toys import short_run

OPTIONS = LayerOptions(rank=4, control_channels=16, average=0.0, sample_steps=2, sample_sets=2)
METHODS = ("joint", "fg2bg", "bg2fg")


@pytest.fixture(scope="module")
def shared():
    return layers_pipeline()


@pytest.fixture
def pipeline(shared):
    yield from lent(shared)


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
        run.units.see(batch.given)
        trained_output = pipeline.unet(rows, steps, **batch.condition).sample
        run.units.remove()
        plain = pipeline.unet(rows, steps, **batch.condition).sample
        sharing = AttentionSharing.from_state_dict(run.units.published())
        method, conditions = layer_method(name, "demo"), Conditions(control=batch.given["control"])
        with method_on_unet(method, sharing, pipeline.unet, (1.0, 1.0), conditions):
            output = pipeline.unet(rows, timestep=steps, **batch.condition).sample
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
    metadata, _ = read_header(path)
    assert metadata["layerdiffuse_part"] == "method" and metadata["layerdiffuse_base"] == "demo"


def test_fresh_units_add_nothing(pipeline):
    run = LayerRun(pipeline, toy_layers(), layer_method("fg2bg", "demo"), replace(OPTIONS, method="fg2bg"))
    batch = run.batches.draw(2, 1000, torch.device("cpu"), torch.Generator().manual_seed(1))
    rows, steps = batch.noise.flatten(0, 1), batch.steps.repeat_interleave(2)
    run.units.see(batch.given)
    with torch.no_grad():
        fresh = pipeline.unet(rows, steps, **batch.condition).sample
        run.units.remove()
        assert torch.allclose(fresh, pipeline.unet(rows, steps, **batch.condition).sample, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_frames_have_their_own_latents_captions_and_noise_and_one_step(pipeline, name):
    """Each frame's latents are marked; the pictures that are given are what inference makes of them."""
    data, method = toy_layers(), layer_method(name, "demo")
    for place in range(len(FRAMES)):
        data.latents[:, place] = place
    options = replace(OPTIONS, method=name, own_captions=1.0, caption_dropout=0.0)
    run = LayerRun(pipeline, data, method, options)
    run.units.remove()
    generator = torch.Generator().manual_seed(3)
    batch = run.batches.draw(64, 1000, torch.device("cpu"), generator)
    count = len(method.frames)
    assert batch.latent.shape == batch.noise.shape == (64, count, 4, 8, 8) and batch.steps.shape == (64,)
    for place, frame in enumerate(method.frames):
        assert (batch.latent[:, place] == FRAMES.index(frame)).all()
    assert not torch.equal(batch.noise[:, 0], batch.noise[:, 1])
    texts = {text: encode_captions(pipeline, [text], (0, 0))["encoder_hidden_states"] for text in asked_for(data)}
    for row, hidden in enumerate(batch.condition["encoder_hidden_states"]):
        said = min(texts, key=lambda text: (texts[text] - hidden).abs().max().item())
        frame = FRAMES.index(method.frames[row % count])
        assert said in {form for captions in data.captions for form in forms(captions, frame)}
    if method.control is not None:
        given = {on_grey_of(data, row, method.control).numpy().tobytes() for row in range(8)}
        assert {picture.numpy().tobytes() for picture in batch.given["control"]} <= given


def forms(captions: list, frame: int) -> list[str]:
    """How a frame may be asked for where frames are asked for by themselves."""
    own, whole = captions[frame], captions[2]
    return [*own, *(f"{text}, {whole[place % len(whole)]}" for place, text in enumerate(own))]


def asked_for(data) -> set[str]:
    return {
        text for captions in data.captions for frame in range(3) for text in (*forms(captions, frame), *captions[2])
    }


def on_grey_of(data, row: int, frame: str) -> torch.Tensor:
    """A user's picture by the code that pictures go through at inference."""
    pixels = data.pictures[row, :4] if frame == "foreground" else data.pictures[row, 4:]
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    return on_grey(open_image(image, "image"), SIDE, SIDE, "just-resize")[0]


def test_shares_of_captions(pipeline):
    data = toy_layers()
    captions = Captions(data, [0, 1, 2])
    rows = torch.zeros(4000, dtype=torch.long)
    drawn = captions.draw(rows, OPTIONS, torch.Generator().manual_seed(0))
    texts = list(captions.numbers)
    empty = (drawn == 0).all(1)
    assert 0.08 < empty.float().mean() < 0.12 and torch.equal(empty, (drawn == 0).any(1))
    said = [texts[number] for number in drawn[~empty][:, 0].tolist()]
    whole = said.count("a red apple on a beach") / len(said)
    assert 0.47 < whole < 0.53
    assert set(said) == {
        "a red apple on a beach", "a red apple", "red apple", "a red apple, a red apple on a beach",
        "red apple, a red apple on a beach",
    }  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_every_part_learns(pipeline, name):
    """But the keys' bias, which attention does not see. What starts at zero lets the parts before it wait a step."""
    run = LayerRun(pipeline, toy_layers(), layer_method(name, "demo"), replace(OPTIONS, method=name))
    before = {key: parameter.detach().clone() for key, parameter in run.units.named_parameters()}
    optimizer, generator = torch.optim.SGD(run.units.parameters(), 10.0), torch.Generator().manual_seed(0)
    for _ in range(3):
        optimizer.zero_grad()
        run.trainer(run.batches.draw(4, 1000, torch.device("cpu"), generator))[0].backward()
        optimizer.step()
    run.units.remove()
    still = [key for key, parameter in run.units.named_parameters() if torch.equal(parameter, before[key])]
    still = [key for key in still if not key.endswith("temporal.k.bias")]
    assert not still


def test_units_do_not_fit_another_unet(pipeline, tmp_path):
    train_layers(pipeline, toy_layers(), short_run(tmp_path / "run", 1), OPTIONS)
    (path,) = (tmp_path / "run").glob("*.safetensors")
    method = layer_method("joint", "demo")
    with pytest.raises(BaseMismatchError, match="32 attention layers; expected 20"):
        read_method(path, unet_modules(tiny.sd15_unet()), method)
    wider = layers_unet(context=2 * tiny.CONTEXT)
    with pytest.raises(BaseMismatchError, match=r"layer 1 of widths .*64.*32, 32"):
        read_method(path, unet_modules(wider), method)
    with pytest.raises(WeightsError, match=r"3 frames.*fg2bg"):
        read_method(path, unet_modules(pipeline.unet), layer_method("fg2bg", "demo"))


def low_rank_offsets(unet: torch.nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """(up, down) of rank 3 for each projection of a UNet's attention, by LDM names."""
    generator, pairs = torch.Generator().manual_seed(3), {}
    for place in attention_places(unet):
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            out, source = place.layer.get_submodule(name).weight.shape
            up, down = (torch.randn(*size, generator=generator) / 8 for size in ((out, 3), (3, source)))
            pairs[f"{place.path}.{name}.weight"] = (up.half().float(), down.half().float())
    return pairs


def test_the_foreground_begins_as_a_single_transparent_picture(tmp_path):
    pipeline = layers_pipeline()
    unet, path = pipeline.unet, tmp_path / "single.safetensors"
    pairs = low_rank_offsets(unet)
    write_offsets(path, make_lora(pairs))
    rows, text = torch.randn(3, 4, 8, 8), torch.randn(3, 77, tiny.CONTEXT)
    with torch.no_grad():
        plain = unet(rows, 500, text).sample
        options = replace(OPTIONS, method="joint", foreground=str(path))
        run = LayerRun(pipeline, toy_layers(), layer_method("joint", "demo"), options)
        begun = unet(rows, 500, text).sample
        run.units.remove()
        for place in attention_places(unet):
            for name in ("to_q", "to_k", "to_v", "to_out.0"):
                up, down = pairs[f"{place.path}.{name}.weight"]
                place.layer.get_submodule(name).weight += up @ down
        single = unet(rows, 500, text).sample
    torch.testing.assert_close(begun[0], single[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(begun[1:], plain[1:], atol=1e-5, rtol=1e-5)
    assert (single[0] - plain[0]).abs().max() > 0.01


def test_offsets_of_something_else_are_no_beginning(pipeline, tmp_path):
    path = tmp_path / "other.safetensors"
    write_offsets(path, make_lora({"input_blocks.0.0.weight": (torch.zeros(32, 2), torch.zeros(2, 4, 3, 3))}))
    with pytest.raises(InputError, match="without offsets of this model's attention"):
        LayerRun(pipeline, toy_layers(), layer_method("joint", "demo"), replace(OPTIONS, foreground=str(path)))


@pytest.mark.parametrize("name", METHODS)
def test_a_run_goes_on_from_a_methods_file(pipeline, tmp_path, name):
    run, path = trained(pipeline, name), tmp_path / "begun.safetensors"
    run.units.remove()
    state = run.units.published()
    save_tensors(state, path)
    again = LayerRun(pipeline, toy_layers(), layer_method(name, "demo"), replace(OPTIONS, method=name, begin=str(path)))
    again.units.remove()
    own = again.state()
    assert own.keys() == state.keys() and all(torch.equal(own[key], tensor) for key, tensor in state.items())
    for other in ({"rank": 8}, {"method": "joint" if name != "joint" else "fg2bg"}):
        options = replace(OPTIONS, **{"method": name, "begin": str(path), **other})
        with pytest.raises(InputError, match="other names or shapes"):
            LayerRun(pipeline, toy_layers(), layer_method(options.method, "demo"), options)
