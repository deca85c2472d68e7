"""Chains of methods on small random pipelines of the SDXL and demo layouts: whole sets by one call."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError, OutputError, WeightsError
from lib_layerdiffuse.core.offsets import merging
from lib_layerdiffuse.files.downloads import LayerFiles
from lib_layerdiffuse.form.arguments import from_infotext
from lib_layerdiffuse.standalone import unet_method
from lib_layerdiffuse.standalone.demo import load_demo
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost
from lib_layerdiffuse.standalone.outputs import PictureFolder
from lib_layerdiffuse.standalone.pictures import Pictures, Watchers
from lib_layerdiffuse.standalone.settings import GenerateSettings

BASE = GenerateSettings("a cat", seed=5, steps=2, count=1, passes=1, width=64, height=64, guidance=2.0)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory) -> DiffusersHost:
    folder = tmp_path_factory.mktemp("sdxl")
    return DiffusersHost(tiny.write_sdxl_folder(folder), "sdxl", LayerFiles([folder], offline=True))


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> DiffusersHost:
    folder = tiny.write_demo_folder(tmp_path_factory.mktemp("demo"))
    return DiffusersHost(load_demo(folder), "demo", LayerFiles([folder], offline=True))


@pytest.fixture(scope="module")
def given() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 70, 4), dtype=np.uint8))


@pytest.fixture
def untouched(sdxl):
    """The model's parameters, hooks and scheduler are the same ones, bit by bit, after the test."""
    before = state_of(sdxl)
    yield
    after = state_of(sdxl)
    assert after[:3] == before[:3]
    assert all(torch.equal(after[3][name], values) for name, values in before[3].items())


def state_of(host: DiffusersHost) -> tuple:
    unet = host.pipeline.unet
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules())
    identities = {name: id(parameter) for name, parameter in unet.named_parameters()}
    values = {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}
    return hooks, identities, id(host.pipeline.scheduler), values


def run(host: DiffusersHost, watchers: Watchers | None = None, **changes) -> Pictures:
    settings, _ = replace(BASE, **changes).validated()
    return host.run(settings, watchers)


def of_frame(pictures: Pictures, frame: str) -> list[np.ndarray]:
    return [np.asarray(picture.image).astype(int) for picture in pictures if picture.frame == frame]


def far(first: list[np.ndarray], second: list[np.ndarray]) -> int:
    return max(int(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


def by_hand(host: DiffusersHost, method: str, **changes) -> Image.Image:
    return run(host, method=method, **changes)[0].image


def test_joint_is_what_its_methods_give_one_after_the_other(sdxl, untouched):
    chain = run(sdxl, chain="joint", background_prompt="a wood")
    foreground = by_hand(sdxl, "xl_fg_attn")
    blended = by_hand(sdxl, "xl_fg2blend", foreground=foreground)
    seen = {"foreground": foreground, "blended": blended}
    background = by_hand(sdxl, "xl_fgblend2bg", prompt="a wood, a cat", **seen)
    assert [(p.frame, p.image.mode, p.seed, p.layer_prompt) for p in chain] == [
        ("foreground", "RGBA", 5, "a cat"),
        ("background", "RGB", 5, "a wood, a cat"),
        ("blended", "RGB", 5, "a cat"),
    ]
    for picture, image in zip(chain, (foreground, background, blended), strict=True):
        assert np.array_equal(np.asarray(picture.image), np.asarray(image)), picture.frame


FROM_GIVEN = {  # the methods one after the other, and what the last one makes
    "foreground": ("xl_fg2blend", "xl_fgblend2bg", "background"),
    "background": ("xl_bg2blend", "xl_bgblend2fg", "foreground"),
}


@pytest.mark.parametrize("frame", FROM_GIVEN)
def test_from_a_given_layer(sdxl, untouched, given, frame):
    first, second, made = FROM_GIVEN[frame]
    pictures = run(sdxl, chain=f"from-{frame}", **{frame: given})
    blended = by_hand(sdxl, first, **{frame: given})
    other = by_hand(sdxl, second, blended=blended, **{frame: given})
    assert [picture.frame for picture in pictures] == [made, "blended"]
    assert np.array_equal(np.asarray(pictures[0].image), np.asarray(other))
    assert np.array_equal(np.asarray(pictures[1].image), np.asarray(blended))
    (layers,) = pictures.layer_sets()
    assert [layer.role for layer in layers] == ["background", "foreground"] and layers.blended is not None
    assert layers.of_role(frame).picture.size == (64, 64) and layers.of_role(frame).seed is None
    assert layers.of_role(made).seed == 5 and layers.of_role(made).prompt == "a cat"


def test_each_set_sees_its_own_layers_whatever_the_batch(sdxl):
    sets = run(sdxl, chain="joint", prompt=("a cat", "a cat"), count=3, batch=2)
    assert [(p.set_number, p.group, p.frame) for p in sets] == [
        (number, number % 3, frame) for number in range(6) for frame in ("foreground", "background", "blended")
    ]
    alone = [run(sdxl, chain="joint", seed=seed) for seed in (5, 6, 7)]
    for frame in ("foreground", "background", "blended"):
        expected = [of_frame(one, frame)[0] for one in alone] * 2
        assert far(of_frame(sets, frame), expected) <= 1
        assert far(expected[:1], expected[1:2]) > 10
    assert len(sets.layer_sets()) == 6


def test_a_layers_seed_and_prompt_reach_what_follows_from_it_alone(sdxl):
    usual = run(sdxl, chain="joint")
    for change in ({"background_seed": 70}, {"background_prompt": "a wood"}):
        other = run(sdxl, chain="joint", **change)
        assert far(of_frame(usual, "background"), of_frame(other, "background")) > 0
        assert far(usual_of(usual), usual_of(other)) == 0
    own = run(sdxl, chain="joint", blended_seed=70, count=2)
    assert [(p.seed, p.layer_seed) for p in own if p.frame == "blended"] == [(5, 70), (6, 71)]
    assert [(p.seed, p.layer_seed) for p in own if p.frame == "background"] == [(5, None), (6, None)]


def usual_of(pictures: Pictures) -> list[np.ndarray]:
    return of_frame(pictures, "foreground") + of_frame(pictures, "blended")


def test_layers_with_prompts_of_their_own_need_no_common_one(sdxl):
    own = {"foreground_prompt": "a cat", "background_prompt": "a wood", "blended_prompt": "a cat in a wood"}
    pictures = run(sdxl, chain="joint", prompt="", **own)
    assert [p.layer_prompt for p in pictures] == ["a cat", "a wood", "a cat in a wood"]
    assert pictures[1].prompt == "a wood"
    with pytest.raises(InputError, match="no prompt for the blended"):
        run(sdxl, chain="joint", prompt="", foreground_prompt="a cat", background_prompt="a wood")
    with pytest.raises(InputError, match="an empty prompt"):
        run(sdxl, prompt="", foreground_prompt="a cat")


def test_named_as_a_method_or_by_a_mode_that_has_no_other_way(sdxl):
    usual = run(sdxl, chain="joint")
    for names in ({"method": "xl_joint"}, {"mode": "joint"}, {"chain": "XL_JOINT"}):
        assert far(usual_of(usual), usual_of(run(sdxl, **names))) == 0
    single = run(sdxl, mode="from-foreground", foreground=Image.new("RGB", (64, 64)))
    assert [picture.frame for picture in single] == [""], "single steps stay what they are"


def test_another_method_of_the_first_step(sdxl):
    other = run(sdxl, chain="joint", method="xl_fg_conv")
    expected = by_hand(sdxl, "xl_fg_conv")
    assert np.array_equal(np.asarray(other[0].image), np.asarray(expected))
    with pytest.raises(InputError, match="method 'xl_fg2blend' in chain xl_bg2fg"):
        run(sdxl, chain="from-background", background=Image.new("RGB", (64, 64)), method="xl_fg2blend")


def test_the_text_of_every_layer_brings_back_the_set(sdxl):
    pictures = run(sdxl, chain="joint", count=2, background_seed=70, foreground_prompt="a red one", negative_prompt="x")
    assert [p.seed for p in pictures] == [5, 5, 5, 6, 6, 6]
    assert [p.caption for p in pictures][:2] == ["foreground, seed 5", "background, seed 5, own seed 70"]
    assert [layer.seed for layer in pictures.layer_sets()[1]] == [71, 6]
    for place, picture in enumerate(pictures):
        prompt, negative, line = picture.parameters.splitlines()
        assert (prompt, negative) == ("a cat", "Negative prompt: x")
        told = dict(part.split(": ", 1) for part in line.split(", ") if ": " in part)
        assert told["Seed"] == str(5 + place // 3)
        pasted = from_infotext(told)
        assert (pasted.method, pasted.bg_seed, pasted.fg_seed) == ("xl_joint", 70 + place // 3, -1)
        assert pasted.fg_additional_prompt == "a red one"


@pytest.mark.parametrize("roomy", [True, False])
def test_weights_are_put_on_once_a_step(sdxl, monkeypatch, roomy):
    monkeypatch.setattr(unet_method, "is_roomy", lambda device: roomy)
    merges, merge = [], merging._merged_parameter
    monkeypatch.setattr(merging, "_merged_parameter", lambda *inputs: merges.append(1) or merge(*inputs))
    run(sdxl, chain="joint")
    once = len(merges)
    run(sdxl, chain="joint", count=3, batch=1)
    assert once and len(merges) == 2 * once


def test_progress_goes_over_all_steps_and_names_them(sdxl):
    reports = []
    run(sdxl, Watchers(progress=lambda fraction, text: reports.append((fraction, text))), chain="joint", count=2)
    fractions = [fraction for fraction, _ in reports]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    for step, frame in enumerate(("foreground", "blended", "background")):
        of_step = [fraction for fraction, text in reports if text.startswith(f"{frame}, step {step + 1} of 3: ")]
        assert min(of_step) == pytest.approx(step / 3) and max(of_step) <= (step + 1) / 3 + 1e-9 and len(of_step) > 3


@pytest.mark.parametrize(("after", "left"), [(2, ["foreground"] * 2), (3, ["foreground", "blended", "foreground"])])
def test_stopped_between_and_inside_steps_leaves_what_is_done(sdxl, untouched, after, left):
    delivered = []
    watchers = Watchers(should_stop=lambda: len(delivered) >= after, on_picture=delivered.append)
    pictures = run(sdxl, watchers, chain="joint", count=2, batch=1)
    assert (
        pictures.stopped and [p.frame for p in pictures] == left and set(map(id, pictures)) == set(map(id, delivered))
    )
    assert f"stopped after {after} of 6 pictures" in pictures.notes
    first = pictures.layer_sets()[0]
    assert [layer.role for layer in first] == ["foreground"] and (first.blended is not None) == (after == 3)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_an_error_in_the_second_step_leaves_the_model_untouched(sdxl, untouched, failure):
    delivered = []

    def fail(fraction, text):
        if text == "blended, step 2 of 3: sampling":
            raise failure("in the middle")

    with pytest.raises(failure, match="in the middle"):
        run(sdxl, Watchers(progress=fail, on_picture=delivered.append), chain="joint")
    assert [picture.frame for picture in delivered] == ["foreground"]
    assert len(run(sdxl, chain="joint")) == 3


def test_a_full_disk_in_the_middle(sdxl, untouched, tmp_path, monkeypatch):
    folder, save = PictureFolder(tmp_path / "out"), Image.Image.save

    def full(image, target, *arguments, **options):
        if len(folder.paths) == 1:
            Path(target).write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        save(image, target, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        run(sdxl, Watchers(on_picture=folder.save), chain="joint")
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "a-cat-5-foreground.png" and Image.open(path).mode == "RGBA"


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-8])])
def test_files_of_later_steps_are_checked_before_the_first(sdxl, tmp_path, spoil):
    for path in sdxl.files.folders[0].glob("*.safetensors"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoil(tmp_path / "layer_xl_fgble2bg.safetensors")
    reports = []
    host = DiffusersHost(sdxl.pipeline, "sdxl", LayerFiles([tmp_path], offline=True))
    with pytest.raises(WeightsError, match="layer_xl_fgble2bg"):
        run(host, Watchers(progress=lambda fraction, text: reports.append(text)), chain="joint")
    assert not any("sampling" in text for text in reports)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"chain": "from-foreground"}, InputError, "no foreground image for chain xl_fg2bg"),
        ({"chain": "all"}, InputError, "chain 'all'.*one of joint, from-foreground, from-background"),
        ({"chain": "sd15_joint"}, BaseMismatchError, "SDXL with chain sd15_joint"),
        ({"chain": 3}, InputError, "chain 3"),
        ({"chain": "joint", "background_seed": 1.5}, InputError, "background_seed 1.5"),
        ({"chain": "joint", "layer_file": "mine"}, InputError, "one layer file for the 3 methods of chain xl_joint"),
        ({"chain": "joint", "method": "demo_fg"}, InputError, "method 'demo_fg' in chain xl_joint"),
    ],
)
def test_wrong_input(sdxl, changes, error, message):
    with pytest.raises(error, match=message):
        run(sdxl, **changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"chain": "joint", "mode": "from-background"}, "mode"),
        ({"chain": "joint", "background": Image.new("RGB", (64, 64))}, "background"),
        ({"foreground_seed": 3}, "foreground_seed"),
        ({"transparent": False, "chain": "joint"}, "chain"),
    ],
)
def test_a_setting_that_changes_nothing_is_named(sdxl, changes, name):
    notes = run(sdxl, **{"passes": 8, **changes}).notes
    assert [note for note in notes if note.startswith(f"{name} is not used: ")]


def test_a_picture_to_start_from_goes_into_the_first_step(sdxl, given):
    chain = run(sdxl, chain="joint", init=given, denoise=0.5, steps=4)
    foreground = by_hand(sdxl, "xl_fg_attn", init=given, denoise=0.5, steps=4)
    assert np.array_equal(np.asarray(chain[0].image), np.asarray(foreground))
    blended = by_hand(sdxl, "xl_fg2blend", foreground=foreground, steps=4)
    assert np.array_equal(np.asarray(chain[2].image), np.asarray(blended))
    assert ["Denoising strength" in picture.parameters for picture in chain] == [True, False, False]


@pytest.mark.parametrize(
    ("chain", "frames"),
    [
        ("joint", ["foreground", "background", "blended"]),
        ("from-foreground", ["background", "blended"]),
        ("from-background", ["foreground", "blended"]),
    ],
)
def test_chains_of_the_demo_model_are_its_methods(demo, given, chain, frames):
    images = {"joint": {}, "from-foreground": {"foreground": given}, "from-background": {"background": given}}[chain]
    pictures, single = run(demo, chain=chain, count=2, **images), run(demo, mode=chain, count=2, **images)
    assert [picture.frame for picture in pictures] == 2 * frames
    for one, other in zip(pictures, single, strict=True):
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
        assert (one.seed, one.parameters) == (other.seed, other.parameters)
    assert all(layers.blended is not None and len(layers) == 2 for layers in pictures.layer_sets())


def test_seeds_of_layers_that_are_made_together(demo):
    pictures = run(demo, chain="joint", count=2, background_seed=70)
    assert [picture.seed for picture in pictures] == [5, 5, 5, 8, 8, 8]
    for picture in pictures:
        seed, own = (8, 73) if picture.group else (5, 70)
        assert f"Seed: {seed}, " in picture.parameters and f"layerdiffusion_bg_seed: {own}" in picture.parameters
    typed = run(demo, chain="joint", seed=8, background_seed=73)
    assert far(images_of(typed), images_of(pictures)[3:]) <= 1, "the second set, by what it tells"
    same = run(demo, chain="joint", seed=5, background_seed=5)
    assert far(images_of(same), images_of(run(demo, chain="joint", seed=5))) == 0, "a layer's seed acts as the set's"


def images_of(pictures: Pictures) -> list[np.ndarray]:
    return [np.asarray(picture.image).astype(int) for picture in pictures]


def test_many_sets_in_a_row_leave_nothing(sdxl, untouched):
    def tensors() -> int:
        gc.collect()
        return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())

    counts = []
    for number in range(6):
        assert len(run(sdxl, chain="joint", seed=number, steps=1, count=3)) == 9
        if number in (1, 5):
            counts.append(tensors())
    assert counts[0] == counts[1]
