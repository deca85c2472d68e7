"""LDM <-> diffusers names: bijections for SD1.5, SDXL and small models; agreement with diffusers' own conversion."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from tiny import demo_unet, sd15_unet, sdxl_unet, text_model, vae_model

from lib_layerdiffuse.core.files.layouts import unit_paths
from lib_layerdiffuse.unet import ldm_keys

DATA = Path(__file__).parent.parent / "data"
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.fixture(scope="module")
def full_size() -> dict[str, UNet2DConditionModel]:
    with torch.device("meta"):
        return {"sd15": UNet2DConditionModel(cross_attention_dim=768), "sdxl": UNet2DConditionModel(**SDXL)}


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, list[int]]]:
    with gzip.open(DATA / "manifests.json.gz", "rt") as file:
        return json.load(file)


@pytest.mark.parametrize(("base", "count"), [("sd15", 686), ("sdxl", 1680)])
def test_full_size_unet_keys_are_a_bijection(full_size, base, count):
    unet = full_size[base]
    state = unet.state_dict()
    ldm = ldm_keys.unet_to_ldm(state, unet.config)
    assert len(ldm) == len(state) == count
    assert ldm.keys().isdisjoint(state.keys() - {"conv_in.weight"})
    back = ldm_keys.unet_to_diffusers(ldm, unet.config)
    assert all(back[name] is tensor for name, tensor in state.items()) and len(back) == count


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_full_size_unet_agrees_with_diffusers(full_size, base):
    unet = full_size[base]
    ldm = ldm_keys.unet_to_ldm(unet.state_dict(), unet.config)
    theirs = convert_ldm_unet_checkpoint({f"model.diffusion_model.{k}": v for k, v in ldm.items()}, unet.config)
    ours = ldm_keys.unet_to_diffusers(ldm, unet.config)
    assert theirs.keys() == ours.keys() and all(theirs[name] is ours[name] for name in ours)


def test_published_sdxl_files_name_parameters_of_the_unet(full_size, manifests):
    unet = full_size["sdxl"]
    ldm = ldm_keys.unet_to_ldm(unet.state_dict(), unet.config)
    shapes = {f"diffusion_model.{name}": list(tensor.shape) for name, tensor in ldm.items()}
    for stem in ("layer_xl_transparent_attn", "layer_xl_transparent_conv"):
        for key, shape in manifests[stem].items():
            name, kind, _ = key.split("::")
            assert name in shapes, key
            assert kind == "lora" or shapes[name] == shape, key
    conv = {key.split("::")[0] for key in manifests["layer_xl_transparent_conv"]}
    missing = {name for name in shapes.keys() - conv if not any(f".to_{p}." in name for p in "qkv")}
    assert {name.split(".")[1] for name in missing} == {"time_embed", "label_emb"}


def test_published_sd15_units_name_attention_layers(full_size):
    modules = ldm_keys.unet_modules(full_size["sd15"])
    assert len(unit_paths()) == 32
    assert all(type(modules[path]).__name__ == "Attention" for path in unit_paths())
    widths = [modules[path].to_q.in_features for path in unit_paths()]
    assert widths[0] == 320 and widths[10] == 1280 and widths[30:] == [1280, 1280]


@pytest.mark.parametrize("build", [demo_unet, sd15_unet, sdxl_unet])
def test_small_unets_survive_the_way_there_and_back(build):
    unet = build()
    state = unet.state_dict()
    back = ldm_keys.unet_to_diffusers(ldm_keys.unet_to_ldm(state, unet.config), unet.config)
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


def test_modules_and_parameters_go_by_the_same_paths():
    unet = demo_unet()
    modules = ldm_keys.unet_modules(unet)
    assert modules["input_blocks.1.0.in_layers.0"] is unet.down_blocks[0].resnets[0].norm1
    assert modules["output_blocks.1.2.conv"] is unet.up_blocks[0].upsamplers[0].conv
    for name in ldm_keys.unet_to_ldm(unet.state_dict(), unet.config):
        path, _, parameter = name.rpartition(".")
        assert parameter in modules[path]._parameters


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_vae_there_and_back_and_as_diffusers_does_it(blocks):
    config = {**vae_model().config, "layers_per_block": blocks, "block_out_channels": [32, 64, 64, 64]}
    if blocks == 0:
        config["block_out_channels"] = [32] * 4
    vae = AutoencoderKL(**{k: v for k, v in config.items() if not k.startswith("_")})
    state = vae.state_dict()
    ldm = ldm_keys.vae_to_ldm(state, vae.config)
    assert ldm["decoder.mid.attn_1.q.weight"].ndim == 4 and "encoder.down.2.downsample.conv.weight" in ldm
    back = ldm_keys.vae_to_diffusers(ldm, vae.config)
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
    if blocks:  # diffusers' own converter counts the blocks by their keys
        theirs = convert_ldm_vae_checkpoint({f"first_stage_model.{k}": v for k, v in ldm.items()}, vae.config)
        assert theirs.keys() == state.keys() and all(torch.equal(theirs[name], state[name]) for name in state)


def test_clip_there_and_back_with_either_naming():
    encoder = text_model(60)
    state = encoder.state_dict()
    ldm = ldm_keys.clip_to_ldm(state)
    assert ldm["text_model.embeddings.position_ids"].tolist() == [list(range(77))]
    back = ldm_keys.clip_to_transformers(ldm, state)
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
    headed = [f"text_model.{name.removeprefix('text_model.')}" for name in state]
    assert ldm_keys.clip_to_transformers(ldm, headed).keys() == set(headed)


def test_an_unknown_parameter_is_named():
    with pytest.raises(KeyError, match="no_such_block"):
        ldm_keys.unet_to_ldm({"no_such_block.weight": torch.zeros(1)}, demo_unet().config)
    assert ldm_keys.unet_table(demo_unet().config).to_diffusers("input_blocks.99.0.op.weight") is None
