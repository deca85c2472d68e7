"""The standalone host on tiny random pipelines of the demo, SD1.5 and SDXL layouts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_hosts import demo_host, sd15_host, sdxl_host

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError, WeightsError
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.files.downloads import LayerFiles
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost
from lib_layerdiffuse.standalone.pictures import Watchers
from lib_layerdiffuse.standalone.settings import GenerateSettings

SHARING = ("sd15", "demo")  # bases whose layers are made by attention sharing
BASE = GenerateSettings("a red apple", seed=5, steps=2, count=1, passes=1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> DiffusersHost:
    return demo_host(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def sd15(tmp_path_factory) -> DiffusersHost:
    stems = {"layer_sd15_transparent_attn": 1, "layer_sd15_joint": 3, "layer_sd15_fg2bg": 2, "layer_sd15_bg2fg": 2}
    return sd15_host(tmp_path_factory.mktemp("sd15"), stems)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory) -> DiffusersHost:
    return sdxl_host(tmp_path_factory.mktemp("sdxl"), {"layer_xl_fg2ble": 1, "layer_xl_bgble2fg": 2})


@pytest.fixture(scope="module")
def cut_out() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 70, 4), dtype=np.uint8))


def run(host: DiffusersHost, watchers: Watchers | None = None, **changes):
    settings, _ = replace(BASE, **changes).validated()
    return host.run(settings, watchers)


def arrays(pictures) -> list[np.ndarray]:
    return [np.asarray(picture.image).astype(int) for picture in pictures]


def difference(first, second) -> int:
    return max(np.abs(a - b).max() for a, b in zip(arrays(first), arrays(second), strict=True))


def unet_identity(host: DiffusersHost) -> dict:
    """Parameter objects with their values, forwards on instances and hooks: all that a run could leave behind."""
    unet = host.pipeline.unet
    parameters = {name: (id(p), p.detach().clone()) for name, p in unet.named_parameters()}
    forwards = [name for name, module in unet.named_modules() if "forward" in module.__dict__]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules())
    return {"parameters": parameters, "forwards": forwards, "hooks": hooks, "scheduler": host.pipeline.scheduler}


def assert_untouched(host: DiffusersHost, before: dict) -> None:
    after = unet_identity(host)
    assert after["forwards"] == before["forwards"] and after["hooks"] == before["hooks"]
    assert after["scheduler"] is before["scheduler"]
    for name, (identity, values) in before["parameters"].items():
        assert after["parameters"][name][0] == identity and torch.equal(after["parameters"][name][1], values)


def test_demo_gives_rgba_and_plain_gives_rgb(demo):
    transparent, plain = run(demo), run(demo, transparent=False)
    assert transparent[0].image.mode == "RGBA" and transparent[0].image.size == (64, 64)
    assert plain[0].image.mode == "RGB"
    alpha = np.asarray(transparent[0].image)[..., 3]
    assert alpha.min() < alpha.max()


def test_weight_zero_is_the_plain_model(demo, monkeypatch):
    captured, pixels = [], demo.pixels
    monkeypatch.setattr(demo, "pixels", lambda latent: captured.append(latent.values) or pixels(latent))
    for changes in ({"transparent": False}, {"weight": 0.0}, {}):
        run(demo, **changes)
    plain, zero, one = captured
    assert torch.equal(plain, zero)
    assert not torch.allclose(plain, one, atol=1e-2)


@pytest.mark.parametrize("stop_at", [0.0, 0.5, 1.0])
def test_stop_at_switches_to_the_plain_unet(demo, stop_at):
    seen = []
    plain = demo.pipeline.unet.conv_in.weight

    def spy(module, inputs):
        seen.append(demo.pipeline.unet.conv_in.weight is plain)

    handle = demo.pipeline.unet.down_blocks[0].register_forward_pre_hook(spy)
    try:
        run(demo, steps=10, stop_at=stop_at, guidance=1.0)
    finally:
        handle.remove()
    steps_with_method = seen.count(False)
    assert len(seen) == 10 and steps_with_method == round(10 * stop_at)
    assert seen == sorted(seen)  # once off, it stays off


def test_vae_space_latents_reach_vae_and_decoder(sdxl, monkeypatch):
    """Sampler latents are divided by the scale factor exactly once, for the VAE and the transparency decoder alike."""
    seen = {}
    decode, pixels = sdxl.decoder.decode, sdxl.pixels
    monkeypatch.setattr(sdxl.decoder, "decode", lambda p, z, **o: seen.update(decoder=z.values) or decode(p, z, **o))
    monkeypatch.setattr(sdxl, "pixels", lambda latent: seen.update(vae=latent.values) or pixels(latent))
    run(sdxl, weight=0.0)
    sampler = sdxl.pipeline(
        "a red apple",
        num_inference_steps=2,
        guidance_scale=7.0,
        output_type="latent",
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(5),
    ).images
    assert torch.equal(seen["vae"], sampler / 0.13025)
    assert torch.equal(seen["decoder"], seen["vae"])


def test_same_seed_gives_the_same_picture_whatever_the_batch(demo):
    together = run(demo, count=3, batch=3)
    one_by_one = run(demo, count=3, batch=1)
    last = run(demo, count=1, seed=7)
    assert [picture.seed for picture in together] == [5, 6, 7]
    assert difference(together, one_by_one) <= 1
    assert difference(together[2:], last) <= 1
    assert difference(together[:1], together[1:2]) > 10


def test_prompts_each_start_at_the_seed(demo):
    pictures = run(demo, prompt=("a red apple", "a banana"), count=2, batch=1)
    assert [(p.prompt, p.seed, p.group) for p in pictures] == [
        ("a red apple", 5, 0),
        ("a red apple", 6, 1),
        ("a banana", 5, 0),
        ("a banana", 6, 1),
    ]
    assert difference(pictures[2:3], run(demo, prompt="a banana")) <= 1


@pytest.mark.parametrize("name", ["demo", "sd15", "sdxl"])
def test_issue_133_the_model_is_untouched_after_a_run(name, request):
    host = request.getfixturevalue(name)
    plain = run(host, transparent=False)
    before = unet_identity(host)
    run(host, sampler="euler")
    assert_untouched(host, before)
    assert difference(plain, run(host, transparent=False)) == 0


@pytest.mark.parametrize("name", ["demo", "sd15"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_issue_70_the_model_is_untouched_after_an_exception(name, failure, request):
    host = request.getfixturevalue(name)
    before = unet_identity(host)

    def fail(fraction, text):
        if text == "sampling":
            raise failure("in the middle")

    with pytest.raises(failure, match="in the middle"):
        run(host, Watchers(progress=fail))
    assert_untouched(host, before)


def test_stop_returns_what_is_finished(demo):
    delivered = []
    watchers = Watchers(should_stop=lambda: len(delivered) >= 2, on_picture=delivered.append)
    before = unet_identity(demo)
    pictures = run(demo, watchers, count=4, batch=1)
    assert pictures.stopped and len(pictures) == 2 and list(pictures) == delivered
    assert any("stopped after 2 of 4" in note for note in pictures.notes)
    assert_untouched(demo, before)
    assert len(run(demo, Watchers(should_stop=lambda: True))) == 0


def test_progress_rises_to_one(demo):
    reports = []
    run(demo, Watchers(progress=lambda fraction, text: reports.append(fraction)), count=2, batch=1)
    assert reports == sorted(reports) and reports[0] == 0 and reports[-1] == 1 and len(set(reports)) > 5


@pytest.mark.parametrize("size", [(72, 64), (104, 136)])
def test_issue_54_size_not_a_multiple_of_64(demo, size):
    (picture,) = run(demo, width=size[0], height=size[1])
    assert picture.image.size == size and picture.image.mode == "RGBA"


@pytest.mark.parametrize("name", SHARING)
def test_issue_3_groups_are_whole_whatever_the_count(name, request):
    host = request.getfixturevalue(name)
    pictures = run(host, mode="joint", count=2, background_prompt="in a wood")
    assert [(p.frame, p.group, p.image.mode, p.seed) for p in pictures] == [
        ("foreground", 0, "RGBA", 5),  # the seed that makes the set again
        ("background", 0, "RGB", 5),
        ("blended", 0, "RGB", 5),
        ("foreground", 1, "RGBA", 8),
        ("background", 1, "RGB", 8),
        ("blended", 1, "RGB", 8),
    ]
    without = run(host, mode="joint", count=2)
    assert difference(without[1:2], pictures[1:2]) > 0
    one = run(host, mode="joint", count=1, seed=8, background_prompt="in a wood")
    assert difference(pictures[3:], one) <= 1


@pytest.mark.parametrize("name", SHARING)
def test_the_weight_of_attention_sharing_is_a_strength(name, request):
    host = request.getfixturevalue(name)
    zero = run(host, mode="joint", weight=0.0)[1:2]
    assert difference(zero, run(host, transparent=False, seed=6)) <= 1
    assert difference(zero, run(host, mode="joint")[1:2]) > 5


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("given", ["foreground", "background"])
def test_a_control_image_matters(name, given, request, cut_out):
    host, mode = request.getfixturevalue(name), f"from-{given}"
    first = run(host, mode=mode, **{given: cut_out}, count=2)
    other = {"foreground": ("background", "RGB"), "background": ("foreground", "RGBA")}[given]
    assert [(p.frame, p.image.mode) for p in first] == [other, ("blended", "RGB")] * 2
    red = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    assert difference(first, run(host, mode=mode, **{given: red}, count=2)) > 0
    with pytest.raises(InputError, match=f"no {given} image"):
        run(host, mode=mode)


def test_layers_that_the_demo_model_does_not_have_are_named(demo, tmp_path):
    for path in demo.files.folders[0].glob("*.safetensors"):
        if path.stem != "layer_demo_joint":
            (tmp_path / path.name).symlink_to(path)
    files, joint = LayerFiles([tmp_path], offline=True), find_method("demo_joint")
    assert not files.offers(joint) and files.offers(find_method("demo_bg2fg")) and demo.files.offers(joint)
    assert files.offers(find_method("sd15_joint")), "the hub has it"
    host = DiffusersHost(demo.pipeline, "demo", files)
    with pytest.raises(WeightsError, match=r"layer_demo_joint.safetensors.*part of the demo model"):
        run(host, mode="joint")


def test_layers_of_another_model_are_refused(demo, sd15, tmp_path):
    for path in demo.files.folders[0].glob("*.safetensors"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "layer_demo_joint.safetensors").unlink()
    (tmp_path / "layer_demo_joint.safetensors").symlink_to(sd15.files.find("layer_sd15_joint"))
    with pytest.raises(BaseMismatchError, match="attention layer"):
        run(DiffusersHost(demo.pipeline, "demo", LayerFiles([tmp_path], offline=True)), mode="joint")


@pytest.mark.parametrize("count", [1, 3])
def test_issue_123_sdxl_conditioned_methods_with_any_batch(sdxl, cut_out, count):
    pictures = run(sdxl, mode="from-foreground", foreground=cut_out, count=count)
    assert len(pictures) == count and pictures[0].image.mode == "RGB"
    assert difference(pictures[-1:], run(sdxl, mode="from-foreground", foreground=cut_out, seed=4 + count)) <= 1
    plain = run(sdxl, mode="from-foreground", foreground=Image.new("RGB", (64, 64)), count=count)
    assert difference(pictures, plain) > 0


def test_sdxl_two_conditions_are_in_the_order_of_the_row(sdxl, cut_out):
    dark = Image.new("RGB", (64, 64))
    method = {"method": "xl_bgblend2fg"}
    first = run(sdxl, **method, background=cut_out, blended=dark)
    swapped = run(sdxl, **method, background=dark, blended=cut_out)
    assert first[0].image.mode == "RGBA" and difference(first, swapped) > 0
    with pytest.raises(InputError, match="blended"):
        run(sdxl, **method, background=cut_out)


@pytest.mark.parametrize("name", ["demo", "sd15", "sdxl"])
@pytest.mark.parametrize("transparent", [True, False])
def test_issue_84_image_to_image(name, transparent, request, cut_out):
    host = request.getfixturevalue(name)
    pictures = run(host, init=cut_out, count=2, denoise=0.5, transparent=transparent, steps=4)
    assert [p.image.mode for p in pictures] == ["RGBA" if transparent else "RGB"] * 2
    assert difference(pictures[:1], pictures[1:]) > 0
    assert "Denoising strength: 0.5" in pictures[0].parameters


def test_image_to_image_without_denoising_is_the_codecs_round_trip(demo, cut_out):
    still = run(demo, init=cut_out, denoise=0.0, count=2)
    assert difference(still[:1], still[1:]) == 0
    opaque = Image.fromarray(np.asarray(cut_out)[..., :3])
    assert difference(still[:1], run(demo, init=opaque, denoise=0.0)) > 0  # the alpha went in


@pytest.mark.parametrize("mode", ["just-resize", "crop-and-resize", "resize-and-fill"])
def test_resize_modes_differ(demo, cut_out, mode):
    wide = cut_out.resize((160, 64))
    picture = run(demo, init=wide, denoise=0.0, resize_mode=mode)
    assert picture[0].image.size == (64, 64)
    if mode != "just-resize":
        assert difference(picture, run(demo, init=wide, denoise=0.0, resize_mode="just-resize")) > 0


def test_transparent_and_broken_inputs(demo, tmp_path):
    empty = run(demo, init=Image.new("RGBA", (64, 64)), denoise=0.5)
    assert any("init" in note and "transparent everywhere" in note for note in empty.notes)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="no image"):
        run(demo, init=tmp_path / "text.png")
    with pytest.raises(InputError, match="no file"):
        run(demo, init=tmp_path / "missing.png")


@pytest.mark.parametrize("changes", [{"method": "xl_fg_attn"}, {"method": "sd15_joint"}])
def test_issue_133_wrong_base_is_told_before_any_work(demo, changes):
    with pytest.raises(BaseMismatchError):
        run(demo, **changes)


def test_wrong_and_missing_files_are_told_before_sampling(sdxl, sd15):
    reports = []
    with pytest.raises(WeightsError, match=r"layer_xl_transparent_conv.safetensors"):
        run(sdxl, Watchers(progress=lambda fraction, text: reports.append(text)), method="xl_fg_conv")
    assert "sampling" not in reports
    foreign = DiffusersHost(sdxl.pipeline, "sd15", sd15.files)
    with pytest.raises(BaseMismatchError, match="32, as many as the file has"):
        run(foreign)


def test_a_size_beyond_the_memory_is_refused(demo):
    with pytest.raises(InputError, match="GiB"):
        run(demo, width=16_384, height=16_384)


def test_settings_are_in_the_text(demo):
    (picture,) = run(demo, negative_prompt="blue, green", weight=0.5, sampler="euler")
    lines = picture.parameters.splitlines()
    assert lines[:2] == ["a red apple", "Negative prompt: blue, green"]
    for part in ("Steps: 2", "Sampler: Euler", "Seed: 5", "Size: 64x64", "layerdiffusion_weight: 0.5"):
        assert part in lines[2]
    plain = run(demo, transparent=False)
    assert "layerdiffusion" not in plain[0].parameters and "Sampler: DDIM" in plain[0].parameters


def test_unknown_words_give_hints(demo):
    assert any("'zebra'" in note for note in run(demo, prompt="a zebra").notes)
    assert not any("know" in note for note in run(demo).notes)
    own = {"foreground_prompt": "a zebra", "background_prompt": "a banana", "blended_prompt": "a banana"}
    (note,) = (note for note in run(demo, chain="joint", prompt="", **own).notes if "know" in note)
    assert "'zebra'" in note


@pytest.mark.parametrize("sampler", ["ddim", "euler", "euler-a", "heun", "dpm++-2m-karras", "dpm++-2m-sde", "unipc"])
def test_samplers_run_and_unknown_ones_are_refused(demo, sampler):
    assert run(demo, sampler=sampler)[0].image.mode == "RGBA"
    with pytest.raises(InputError, match="euler-a"):
        run(demo, sampler="magic")
