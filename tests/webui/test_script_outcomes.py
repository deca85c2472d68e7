"""However a job ends, the model is what it was, bit by bit, and the next plain job gives what it gave before."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import pytest
import torch
from fakes.processing import process_images
from fakes.running import (
    Snapshot,
    job,
    layer_of,
    load,
    networks_of,
    picture,
    plainly,
    raising,
    run,
    same_pictures,
)
from fakes.scripts import ALWAYS_VISIBLE, Script
from fakes.webui import NansException
from PIL import Image

from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.webui.jobs.changes import Changes

BASES = ("sd15", "sdxl")
BOTH = pytest.mark.parametrize(("flavour", "base"), [("a1111", "sd15"), ("forge", "sdxl")])
SINGLE = {"sd15": "sd15_fg", "sdxl": "xl_fg_conv"}
FAULTS = {
    "exception": RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    "out of memory": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
}


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("sd15_joint", "exception"),
        ("sd15_fg2bg", "out of memory"),
        ("xl_fg_attn", "exception"),
        ("xl_fg2blend", "out of memory"),
    ],
)
def test_exception_in_the_unet(make_webui, flavour, method, fault) -> None:
    row = find_method(method)
    webui = make_webui(flavour, row.base)
    before, state = plainly(webui), Snapshot.of(webui)
    with raising(webui, FAULTS[fault], at_call=2), pytest.raises(type(FAULTS[fault])):
        run(webui, layer_of(row), batch_size=len(row.frames))
    state.check(webui)
    assert same_pictures(run(webui, steps=1), before) and not webui.errors


def test_memory_is_let_go_after_an_exception(sd15, monkeypatch) -> None:
    monkeypatch.setattr("lib_layerdiffuse.webui.jobs.networks.is_roomy", lambda device: False)
    with raising(sd15, RuntimeError("boom"), at_call=2), contextlib.suppress(RuntimeError):
        run(sd15, {"method": "sd15_joint"}, batch_size=3)
    gc.collect()
    assert not sd15.runners[False].ours.networks._kept["method"][1]._prepared


@BOTH
def test_nans_in_the_unet(make_webui, flavour, base) -> None:
    webui = make_webui(flavour, base)
    before, state = plainly(webui), Snapshot.of(webui)
    layer = networks_of(webui)["unet"].out[2]
    handle = layer.register_forward_hook(lambda _module, _inputs, output: output * float("nan"))
    with pytest.raises(NansException):
        run(webui, {"method": SINGLE[base]})
    handle.remove()
    state.check(webui)
    assert same_pictures(run(webui, steps=1), before)


@BOTH
def test_interrupt_gives_the_picture_so_far_with_its_alpha(make_webui, flavour, base) -> None:
    webui = make_webui(flavour, base)
    before, state = plainly(webui), Snapshot.of(webui)
    webui.engine.at_step[1] = lambda p: webui.state.interrupt()
    outcome = run(webui, {"method": SINGLE[base]}, steps=4, n_iter=2)
    webui.engine.at_step.clear()
    assert outcome.modes == ["RGBA"] and outcome.error is None and not webui.errors
    state.check(webui)
    assert same_pictures(run(webui, steps=1), before)


def test_interrupt_before_the_first_step(a1111) -> None:
    state = Snapshot.of(a1111)
    p = job(a1111, {"method": "sd15_fg"})
    p.init = lambda *_: a1111.state.interrupt()
    processed = process_images(p)
    p.close()
    assert processed.images == [] and not a1111.errors
    state.check(a1111)


@pytest.mark.parametrize("at_pass", [1, 2])
def test_interrupt_in_either_pass_of_hires(sd15, at_pass) -> None:
    state, passes = Snapshot.of(sd15), []

    def at_first_step(_p) -> None:
        passes.append(1)
        if len(passes) == at_pass:
            sd15.state.interrupt()

    sd15.engine.at_step[0] = at_first_step
    outcome = run(sd15, {"method": "sd15_fg"}, steps=3, enable_hr=True)
    size = 64 * at_pass
    assert [picture.size for picture in outcome.pictures] == [(size, size)]
    assert outcome.modes == ["RGBA"] and outcome.error is None and not sd15.errors
    state.check(sd15)


def test_issue_135_each_base_is_decoded_by_its_own_decoder(make_webui) -> None:
    check_switches(make_webui("a1111", "sd15"))


def test_forge_4_the_decoder_of_the_base_used_first(make_webui) -> None:
    check_switches(make_webui("forge", "sd15"))


def check_switches(webui) -> None:
    """Jobs on checkpoints of both bases, in turn, give what each gives alone."""
    alone, script = {}, webui.runners[False].ours
    for base in BASES:
        load(webui, f"{base}-one")
        script.networks = type(script.networks)()  # as after a start
        alone[base] = run(webui, {"method": SINGLE[base]}, steps=1)
    for base in ("sd15", "sdxl", "sd15"):
        load(webui, f"{base}-one")
        assert same_pictures(run(webui, {"method": SINGLE[base]}, steps=1), alone[base])
    assert not webui.errors


@pytest.mark.parametrize(
    ("flavour", "method"),
    [("forge", "sd15_fg"), ("a1111", "sd15_bg2fg"), ("a1111", "xl_fg_conv"), ("forge", "xl_bgblend2fg")],
)
def test_checkpoint_switch(make_webui, flavour, method) -> None:
    row = find_method(method)
    webui = make_webui(flavour, row.base)
    plain = {}
    for name in ("two", "one"):
        load(webui, f"{row.base}-{name}")
        plain[name] = plainly(webui)
    for name in ("one", "two"):
        load(webui, f"{row.base}-{name}")
        state = Snapshot.of(webui)
        assert run(webui, layer_of(row), batch_size=len(row.frames), steps=1).error is None
        state.check(webui)
        assert same_pictures(run(webui, steps=1), plain[name])
    assert not webui.errors


@BOTH
def test_reload_ui_twice(make_webui, flavour, base) -> None:
    webui = make_webui(flavour, base)
    state, layer = Snapshot.of(webui), {"method": SINGLE[base]}
    plain, transparent = plainly(webui), run(webui, layer, steps=1)
    registered = {name: len(callbacks) for name, callbacks in webui.callbacks.lists.items()}
    for _ in range(2):
        webui.reload_ui()
        assert {name: len(callbacks) for name, callbacks in webui.callbacks.lists.items()} == registered
        assert same_pictures(run(webui, layer, steps=1), transparent)
        assert same_pictures(run(webui, steps=1), plain)
        state.check(webui)
    assert not webui.errors


def test_a_box_that_is_not_ticked_changes_nothing(sd15) -> None:
    state = Snapshot.of(sd15)
    p = job(sd15)
    outcome = run(sd15)
    assert outcome.modes == ["RGB"] and not outcome.parameters and not outcome.p.comments
    assert not [name for name in vars(outcome.p) if "layerdiffuse" in name] and "close" not in vars(p)
    state.check(sd15)


def test_the_same_p_again(a1111) -> None:
    p = job(a1111, {"method": "sd15_fg"}, steps=1)
    first, second = process_images(p), process_images(p)
    p.close()
    assert first.infotexts == second.infotexts
    assert [image.mode for image in first.images] == [image.mode for image in second.images] == ["RGBA"]


def test_the_same_p_again_after_a_failure(forge) -> None:
    p = job(forge, {"method": "xl_fg_attn"}, n_iter=2, steps=1)
    assert process_images(p).images == []
    p.script_args = (False, *p.script_args[1:])
    outcome = process_images(p)
    p.close()
    assert len([image for image in outcome.images if image.mode == "RGB"]) >= 2


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "failed"])
def test_a_job_freed_while_a_webui_builds_its_next_model(sd15, monkeypatch, ended) -> None:
    """AUTOMATIC1111 lets `Module.to` do nothing and return nothing meanwhile, and the collector runs when it likes."""
    layer = {"method": "sd15_fg"}
    expected = run(sd15, layer, steps=1)
    p = job(sd15, layer, steps=1)
    with contextlib.nullcontext() if ended else raising(sd15, RuntimeError("boom")), contextlib.suppress(RuntimeError):
        process_images(p)
    with monkeypatch.context() as building:
        building.setattr(torch.nn.Module, "to", lambda *_arguments, **_named: None)
        del p
        gc.collect()
    assert same_pictures(run(sd15, layer, steps=1), expected) and not sd15.errors


def test_several_batches(forge) -> None:
    state = Snapshot.of(forge)
    outcome = run(forge, {"method": "sd15_fg"}, batch_size=2, n_iter=2, steps=1)
    assert outcome.modes == ["RGBA"] * 4 and not forge.errors
    single = run(forge, {"method": "sd15_fg"}, batch_size=2, seed=13, steps=1)
    assert all((one == other).all() for one, other in zip(outcome.arrays[2:], single.arrays, strict=True))
    state.check(forge)


def test_another_script_that_fails_or_adds_pictures(forge) -> None:
    class Adding(Script):
        def show(self, is_img2img):
            return ALWAYS_VISIBLE

        def postprocess_batch_list(self, p, batch, **named):
            batch.images.append(batch.images[0] * 0.5)
            for name in ("prompts", "negative_prompts", "seeds"):
                setattr(p, name, getattr(p, name) + getattr(p, name)[:1])

        def postprocess_image(self, p, picture):
            raise ZeroDivisionError

    forge.extra_scripts = [Adding]
    forge.reload_ui()
    outcome = run(forge, {"method": "sd15_fg"}, steps=1)
    assert outcome.modes == ["RGBA", "RGB"]
    assert {hook for hook, _ in forge.errors} == {"postprocess_image"}


@pytest.mark.parametrize(
    ("flavour", "method", "storage"),
    [
        ("a1111", "sd15_joint", torch.float8_e4m3fn),
        ("a1111", "xl_fg_conv", torch.bfloat16),
        ("a1111", "xl_fg2blend", torch.float8_e4m3fn),
        ("forge", "sd15_joint", torch.float16),
        ("forge", "sd15_joint", torch.float8_e4m3fn),
        ("forge", "xl_fg_attn", torch.float8_e4m3fn),
        ("forge", "xl_fg_conv", torch.bfloat16),
        ("forge", "xl_fg_conv", torch.float8_e4m3fn),
        ("forge", "xl_fg2blend", torch.float16),
        ("forge", "xl_fg2blend", torch.float8_e4m3fn),
    ],
    ids=str,
)
def test_half_and_fp8_weights(make_webui, flavour, method, storage) -> None:
    row = find_method(method)
    webui = make_webui(flavour, row.base, storage=storage)
    before, state = plainly(webui), Snapshot.of(webui)
    outcome = run(webui, layer_of(row), batch_size=len(row.frames), steps=1)
    assert outcome.error is None and not webui.errors
    assert not torch.equal(outcome.samples[:1], before.samples)
    state.check(webui)
    assert same_pictures(run(webui, steps=1), before)


def test_fp8_weights_give_nearly_the_same_as_whole_ones(make_webui) -> None:
    found = []
    for storage in (torch.float32, torch.float8_e4m3fn):
        with pytest.MonkeyPatch.context() as patch:
            webui = make_webui("forge", "sdxl", patch=patch, storage=storage)
            layer = layer_of(find_method("xl_fg_conv"))
            found.append(run(webui, layer, steps=1).samples - plainly(webui).samples)
    likeness = torch.cosine_similarity(*(change.flatten() for change in found), dim=0)
    assert likeness > 0.93


def test_token_merging_is_off_where_frames_share(sd15) -> None:
    layer = {"method": "sd15_joint"}
    without = run(sd15, layer, batch_size=3, steps=1).samples
    with sd15.settings(token_merging_ratio=0.5):
        outcome = run(sd15, layer, batch_size=3, steps=1)
        assert outcome.error is None and torch.equal(outcome.samples, without)
        if sd15.engine.name == "AUTOMATIC1111":
            assert sd15.engine.merged_at[-1] == 0
            run(sd15, steps=1)
            assert sd15.engine.merged_at[-1] == 0.5


def again(webui, p, enabled: bool) -> Any:
    """The same `p` processed once more, with the box as it is wanted."""
    p.script_args = (enabled, *p.script_args[1:])
    process_images(p)
    return webui.samples


def test_a_job_that_is_run_again_without_the_box_is_a_plain_one(sd15) -> None:
    """A script's `p`, which goes from job to job: token merging stayed off, and the batch stayed rounded up."""
    with sd15.settings(token_merging_ratio=0.5):
        p, plain_one = job(sd15, {"method": "sd15_joint"}, batch_size=2, steps=1), job(sd15, batch_size=2, steps=1)
        before = dict(vars(p))
        again(sd15, p, enabled=True)
        changed = {name for name, value in vars(p).items() if value is not before.get(name)}
        assert not {"batch_size", "n_iter", "get_token_merging_ratio", "do_not_save_grid"} & changed
        assert torch.equal(again(sd15, p, enabled=False), again(sd15, plain_one, enabled=False))


def test_a_start_picture_is_given_back(sd15) -> None:
    image, mask = picture(), Image.new("L", (64, 64))
    p = job(sd15, {"method": "sd15_fg"}, init_images=[image], image_mask=mask, steps=1)
    with sd15.settings(layerdiffuse_fill_transparent=True):
        process_images(p)
    assert p.init_images == [image] and p.init_images[0] is image and p.image_mask is mask


def test_what_others_set_in_the_meantime_stays(sd15) -> None:
    changes = Changes(p := job(sd15, batch_size=2))
    changes.set("batch_size", 3)
    changes.set("batch_size", 6)
    changes.set("n_iter", 0)
    changes.set("layerdiffuse_new", True)
    p.n_iter = 7
    changes.undo()
    assert (p.batch_size, p.n_iter) == (2, 7) and not hasattr(p, "layerdiffuse_new")
    p.batch_size = 5
    changes.undo()
    assert p.batch_size == 5
