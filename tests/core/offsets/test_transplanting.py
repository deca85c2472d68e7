"""A checkpoint's difference from its base goes where the method's file changes nothing, and nowhere else."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.errors import BaseMismatchError, WeightsError
from lib_layerdiffuse.core.files.layouts import SharingShape, sharing_layout
from lib_layerdiffuse.core.offsets.transplanting import touches, transplant

ATTENTION = "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
CONVOLUTION = "input_blocks.0.0.weight"
FUSED = "double_blocks.0.img_attn.qkv.weight"
NAMES = [f"model.diffusion_model.{name}" for name in (ATTENTION, CONVOLUTION, FUSED, "out.2.bias")]
NAMES += ["first_stage_model.decoder.conv_in.weight", "cond_stage_model.x.weight"]
OFFSETS = {f"diffusion_model.{ATTENTION}::lora::0": (4, 2), f"diffusion_model.{ATTENTION}::lora::1": (2, 4)}
SHARING = sharing_layout(SharingShape(1, (4,), 4, 2))
KOHYA = {f"lora_unet_double_blocks_0_img_attn_qkv.lora_{half}.weight": (4, 4) for half in ("up", "down")}
TOUCHED = {"offsets": (OFFSETS, ATTENTION), "sharing": (SHARING, ATTENTION), "lora": (KOHYA, FUSED)}


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(4, 4, generator=generator).half() for name in NAMES}
    return state | {"cond_stage_model.position_ids": torch.arange(4)}


@pytest.fixture
def files(tmp_path):
    for seed, name in enumerate(("base", "other")):
        save_file(weights(seed), tmp_path / f"{name}.safetensors")
    for name, (layout, _) in TOUCHED.items():
        save_file({key: torch.zeros(shape) for key, shape in layout.items()}, tmp_path / f"{name}.safetensors")
    return tmp_path


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", TOUCHED)
def test_layers_of_the_method_and_the_vae_stay_the_bases(files, kind, share) -> None:
    base, other = weights(0), weights(1)
    result = transplant(
        files / "base.safetensors", files / "other.safetensors", touches(files / f"{kind}.safetensors"), share
    )
    kept = {f"model.diffusion_model.{TOUCHED[kind][1]}", "first_stage_model.decoder.conv_in.weight"}
    assert result.tensors.keys() == base.keys()
    for name, tensor in result.tensors.items():
        assert tensor.dtype == base[name].dtype
        if name in kept or name.endswith("position_ids"):
            assert torch.equal(tensor, base[name])
        else:
            wanted = base[name].float() + share * (other[name].float() - base[name].float())
            torch.testing.assert_close(tensor.float(), wanted, atol=2e-3, rtol=2e-3)
    assert (result.merged.tensors, result.touched.tensors) == (4, 1)
    assert 1 < result.merged.relative < 2 and transplant_of_itself(files).merged.relative == 0


def transplant_of_itself(files):
    return transplant(files / "base.safetensors", files / "base.safetensors", touches(files / "offsets.safetensors"))


def test_what_is_not_of_one_kind_is_refused(files) -> None:
    save_file({"x": torch.zeros(1)}, files / "foreign.safetensors")
    with pytest.raises(WeightsError, match="changes no layer"):
        touches(files / "foreign.safetensors")
    for first, second in (("base", "foreign"), ("base", "offsets")):
        with pytest.raises(BaseMismatchError, match="made from this base"):
            transplant(files / f"{first}.safetensors", files / f"{second}.safetensors", lambda name: False)
    (files / "broken.safetensors").write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match="safetensors format"):
        transplant(files / "base.safetensors", files / "broken.safetensors", lambda name: False)


def test_the_command_writes_a_checkpoint_and_says_how_far_it_is(files, capsys, monkeypatch) -> None:
    monkeypatch.chdir(files)
    words = "transplant base.safetensors other.safetensors --layer-file offsets.safetensors"
    words += " --share 0.5 --out own.safetensors"
    assert main(words.split()) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["merged"]["tensors"] == 4 and shown["kept_for_the_method"]["drift"] > 0.5
    state, base = load_file("own.safetensors"), weights(0)
    assert torch.equal(state[NAMES[0]], base[NAMES[0]]) and not torch.equal(state[NAMES[1]], base[NAMES[1]])
    assert main(["transplant", "base.safetensors", "none.safetensors", *words.split()[3:]]) == 3
    with pytest.raises(SystemExit):
        main([*words.split()[:5], "--share", "2", "--out", "x"])
