"""LoRA of Flux: golden numbers of both layouts on both namings, quantised layers, and files that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from fakes.flux import FluxShape, Packed, flux_network, flux_state, inputs, kohya_state, peft_state
from safetensors.torch import load_file, save_file
from torch import nn

from lib_layerdiffuse.core.errors import WeightsError
from lib_layerdiffuse.core.files.flux_names import BFL, DIFFUSERS, TABLE, find_layer, renamed
from lib_layerdiffuse.core.files.lora_keys import is_lora
from lib_layerdiffuse.core.offsets.install import hook_offsets, merge_offsets, parameter_shapes
from lib_layerdiffuse.core.offsets.lora_files import adapter_factor, parse_lora, read_lora
from lib_layerdiffuse.core.offsets.offsets import LowRank, OffsetSet, Rows

DATA = Path(__file__).parents[2] / "data"
GOLDEN = load_file(DATA / "golden/flux_lora_tiny.safetensors")
SHAPE = FluxShape()


def as_diffusers(shape: FluxShape = SHAPE) -> FluxTransformer2DModel:
    """diffusers' own transformer with the same weights."""
    network = FluxTransformer2DModel(**shape.diffusers).eval().requires_grad_(False)
    network.load_state_dict(renamed(flux_state(shape=shape), DIFFUSERS))
    return network


@pytest.fixture(scope="module")
def bfl() -> nn.Module:
    return flux_network()


@pytest.fixture(scope="module")
def diffusers() -> nn.Module:
    return as_diffusers()


def run_bfl(network: nn.Module) -> torch.Tensor:
    return network(**inputs())


def run_diffusers(network: nn.Module) -> torch.Tensor:
    """The same call of diffusers' network, packed by hand."""
    given = inputs()
    x = given["x"]
    rows, columns = (side // 2 for side in x.shape[-2:])
    ids = nn.functional.pad(torch.cartesian_prod(torch.arange(rows), torch.arange(columns)), (1, 0)).float()
    tokens = network(
        hidden_states=nn.functional.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2),
        timestep=given["timestep"],
        guidance=given["guidance"],
        pooled_projections=given["y"],
        encoder_hidden_states=given["context"],
        txt_ids=torch.zeros(given["context"].shape[1], 3),
        img_ids=ids,
    ).sample
    return nn.functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (rows, columns)), 2)


RUNS: dict[str, Callable[[nn.Module], torch.Tensor]] = {"bfl": run_bfl, "diffusers": run_diffusers}


@pytest.fixture(params=RUNS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    return request.getfixturevalue(request.param), RUNS[request.param]


@pytest.fixture(scope="module")
def files(bfl, diffusers) -> dict[str, dict[str, torch.Tensor]]:
    return {"kohya": kohya_state(bfl), "peft": peft_state(diffusers)}


def test_the_stand_in_and_diffusers_give_the_golden_numbers(network):
    model, run = network
    assert (run(model) - GOLDEN["plain"]).abs().max() < 1e-4


@pytest.mark.parametrize("install", [hook_offsets, merge_offsets])
@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "plain"])
def test_golden_lora(network, files, name, install):
    model, run = network
    layout, strength = name.split("_")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    plain, modules = run(model), dict(model.named_modules())
    offsets = parse_lora(files[layout], parameter_shapes(modules))
    with install(offsets, modules, float(strength)):
        assert (run(model) - GOLDEN[name]).abs().max() < 1e-4
    assert torch.equal(run(model), plain)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in modules.values())


def test_the_table_of_names_goes_both_ways():
    state = flux_state(shape=FluxShape(doubles=2, singles=3))
    there = renamed(state, DIFFUSERS)
    assert there.keys() == FluxTransformer2DModel(**FluxShape(doubles=2, singles=3).diffusers).state_dict().keys()
    back = renamed(there, BFL)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


@pytest.mark.parametrize("naming", [BFL, DIFFUSERS])
def test_every_row_is_found_by_either_name_with_dots_or_underscores(naming):
    for row in TABLE:
        path = row.path(naming, "17")
        for written in (path, path.replace(".", "_")):
            layer = find_layer(written)
            assert layer.naming == naming and row in layer.rows
            assert path in [place.path for place in layer.places(naming)]


SPELLINGS = {
    "transformer.": lambda path: f"transformer.{path}",
    "diffusion_model.": lambda path: f"diffusion_model.{path}",
    "lora_transformer_": lambda path: f"lora_transformer_{path.replace('.', '_')}",
    "lycoris_": lambda path: f"lycoris_{path.replace('.', '_')}",
    "lora_unet_": lambda path: f"lora_unet_{path.replace('.', '_')}",
    "none": lambda path: path,
    "base_model.model.": lambda path: f"base_model.model.{path}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("halves", [("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up")])
def test_prefixes_and_halves_are_told_by_the_keys(bfl, files, spelling, halves):
    state = {}
    for key, tensor in files["peft"].items():
        path, _, half = key.removeprefix("transformer.").removesuffix(".weight").rpartition(".")
        state[f"{SPELLINGS[spelling](path)}.{halves[half == 'lora_B']}.weight"] = tensor
    assert is_lora(state)
    modules = dict(bfl.named_modules())
    with hook_offsets(parse_lora(state, parameter_shapes(modules)), modules, 1.0):
        assert (run_bfl(bfl) - GOLDEN["peft_1"]).abs().max() < 1e-4


def test_dotted_names_of_bfl_and_an_alpha_per_layer(bfl, files):
    names = {path.replace(".", "_"): path for path, _ in bfl.named_modules()}
    state = {}
    for key, tensor in files["kohya"].items():
        layer, _, half = key.removeprefix("lora_unet_").partition(".")
        state[f"diffusion_model.{names[layer]}.{half}"] = tensor
    modules = dict(bfl.named_modules())
    with hook_offsets(parse_lora(state, parameter_shapes(modules)), modules, 1.0):
        assert (run_bfl(bfl) - GOLDEN["kohya_1"]).abs().max() < 1e-4


def test_without_alpha_the_factor_is_one_or_what_diffusers_wrote_beside(bfl, files, tmp_path):
    state = {key: tensor for key, tensor in files["kohya"].items() if not key.endswith(".alpha")}
    modules = dict(bfl.named_modules())
    said = {"lora_adapter_metadata": json.dumps({"transformer.r": 4, "transformer.lora_alpha": 2})}
    for metadata, golden in (({}, None), (said, "kohya_1")):
        save_file(state, tmp_path / "one.safetensors", metadata)
        with hook_offsets(read_lora(tmp_path / "one.safetensors", parameter_shapes(modules)), modules, 0.5):
            strength_half = run_bfl(bfl)
        wanted = GOLDEN["kohya_0.5"] if golden else GOLDEN["kohya_1"]  # alpha 2 of rank 4 is a half
        assert (strength_half - wanted).abs().max() < 1e-4
    assert adapter_factor({"lora_adapter_metadata": "["}) is None


@pytest.mark.parametrize("naming", ["bfl", "diffusers"])
def test_the_last_layer_has_shift_and_scale_the_other_way_round(naming, bfl, diffusers):
    """A LoRA of BFL's last modulation on diffusers' network, and the other way round."""
    torch.manual_seed(0)
    up, down = torch.randn(64, 2), torch.randn(2, 32)
    state = {
        "bfl": {"lora_unet_final_layer_adaLN_modulation_1": up},
        "diffusers": {"transformer.norm_out.linear": torch.cat(up.chunk(2)[::-1])},
    }[naming]
    results = []
    for model, run in ((bfl, run_bfl), (diffusers, run_diffusers)):
        modules = dict(model.named_modules())
        pairs = {f"{layer}.lora_up.weight": rows for layer, rows in state.items()}
        pairs |= {f"{layer}.lora_down.weight": down for layer in state}
        with hook_offsets(parse_lora(pairs, parameter_shapes(modules)), modules, 1.0):
            results.append(run(model))
    assert (results[0] - results[1]).abs().max() < 1e-3
    assert (results[0] - GOLDEN["plain"]).abs().max() > 0.1


# --- layers as hosts store them


class Narrow(nn.Linear):
    """A linear layer stored in eight bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


def narrow(source: nn.Linear, dtype: torch.dtype) -> nn.Module:
    layer = Narrow(source.in_features, source.out_features)
    layer.weight = nn.Parameter(source.weight.detach().to(dtype), requires_grad=False)
    layer.bias = source.bias
    return layer


STORED = {
    "four-bit floats": lambda layer: Packed(layer, "quant_state"),
    "GGUF": lambda layer: Packed(layer, "real_shape"),
    "float8": lambda layer: narrow(layer, torch.float8_e4m3fn),
    "bfloat16": lambda layer: narrow(layer, torch.bfloat16),
    "float16": lambda layer: narrow(layer, torch.float16),
}


@pytest.mark.parametrize("layout", ["kohya", "peft"])
@pytest.mark.parametrize("kind", STORED)
def test_hooks_on_layers_as_hosts_store_them(files, kind, layout):
    """What is stored differs; what the LoRA adds to it is the same as it adds to the values that are stored."""
    network = flux_network()
    plain = flux_network()
    for path, module in list(network.named_modules()):
        if isinstance(module, nn.Linear):
            parent, _, name = path.rpartition(".")
            stored = STORED[kind](module)
            setattr(network.get_submodule(parent), name, stored)
            values = module.weight.half().float() if isinstance(stored, Packed) else stored.weight.float()
            plain.get_submodule(path).weight = nn.Parameter(values, requires_grad=False)
    before, bits = run_bfl(network), {name: tensor.clone() for name, tensor in network.named_parameters()}
    results = []
    for model in (network, plain):
        modules = dict(model.named_modules())
        with hook_offsets(parse_lora(files[layout], parameter_shapes(modules)), modules, 1.0) as installed:
            results.append(run_bfl(model))
            installed.set_active(False)
            off = run_bfl(model)
        assert torch.equal(off, run_bfl(model))
    assert (results[0] - results[1]).abs().max() < 1e-4
    assert (results[0] - before).abs().max() > 0.05
    assert torch.equal(run_bfl(network), before)
    assert all(
        torch.equal(bits[name].view(torch.uint8), now.view(torch.uint8)) for name, now in network.named_parameters()
    )


# --- files that do not fit


def without_ups(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if "lora_up" not in key or "single" in key}


def of_another_rank(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    key = next(key for key in state if key.endswith("linear1.lora_up.weight"))
    return {**state, key: state[key][:, :3].contiguous()}


def of_another_width(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return kohya_state(flux_network(shape=FluxShape(width=48, axes=(8, 8, 8))))


def of_more_blocks(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return kohya_state(flux_network(shape=FluxShape(doubles=2)))


def of_sdxl(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    layer = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    return {f"{layer}.lora_down.weight": torch.zeros(4, 640), f"{layer}.lora_up.weight": torch.zeros(640, 4)}


def of_loha(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"lycoris_transformer_blocks_0_attn_to_q.hada_w1_a": torch.zeros(4, 4)}


FAULTS = {
    without_ups: "only alpha and down of lora_unet_double_blocks_0_img_mod_lin and 9 more",
    of_another_rank: "of lora_unet_single_blocks_0_linear1",
    of_another_width: "an offset of double_blocks.0.img_mod.lin.weight",
    of_more_blocks: "which has no double_blocks.1.",
    of_sdxl: "the key lora_unet_input_blocks_4_1",
    of_loha: "hada_w1_a",
    lambda state: {}: "no key",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_does_not_fit_is_one_clear_error(bfl, files, fault):
    shapes = parameter_shapes(dict(bfl.named_modules()))
    with pytest.raises(WeightsError) as caught:
        parse_lora(fault(files["kohya"]), shapes)
    assert FAULTS[fault] in str(caught.value)
    assert "What to do" in str(caught.value)
    assert not any(module._forward_hooks for module in bfl.modules())


@pytest.mark.parametrize("install", [merge_offsets, hook_offsets])
def test_pairs_for_the_same_rows_of_a_fused_layer_add_up(install):
    """A user's file may have a layer under both names."""
    layer, sample = nn.Linear(3, 6, bias=False), torch.randn(2, 3)
    pairs = tuple(LowRank(torch.randn(2, 1), torch.randn(1, 3), rows=Rows(2, 4, 6)) for _ in range(2))
    expected = layer(sample)
    expected[:, 2:4] += sum(sample @ (pair.up @ pair.down).T for pair in pairs)
    installed = install(OffsetSet({"layer.weight": pairs}), {"layer": layer})
    torch.testing.assert_close(layer(sample), expected)
    installed.remove()
