"""Chains in one job, however it ends: interrupts, errors, another checkpoint, what cannot work, many of them."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fakes.chains import (
    EACH,
    FAULTS,
    JOINT,
    ONE_STEP,
    AlwaysOn,
    kept_layers,
    layer_of,
    parameters,
    with_script,
)
from fakes.processing import process_images
from fakes.running import Snapshot, job, networks_of, picture, plainly, raising, run, same_pictures
from fakes.webui import NansException

from lib_layerdiffuse.form.ways import CHAINS

# --- how it ends


def test_one_progress_bar_over_all_steps(sdxl) -> None:
    seen = []
    sdxl.engine.at_step[0] = lambda p: seen.append((sdxl.state.job_no, sdxl.state.job_count, sdxl.state.textinfo))
    run(sdxl, JOINT, n_iter=2, **ONE_STEP)
    sdxl.engine.at_step.clear()
    assert [number for number, _, _ in seen] == list(range(6)) and {count for _, count, _ in seen} == {6}
    assert [text for _, _, text in seen[::2]] == [
        f"Step {number} of 3 ({frame})" for number, frame in enumerate(("foreground", "blended", "background"), 1)
    ]


@pytest.mark.parametrize(
    ("name", "at", "left"),
    [
        ("interrupted", 1, ["foreground"]),
        ("interrupted", 2, ["foreground", "blended"]),
        ("stopping_generation", 2, ["foreground", "blended"]),
    ],
)
def test_an_interrupt_leaves_what_is_done(sdxl, name, at, left) -> None:
    before, state, calls = plainly(sdxl), Snapshot.of(sdxl), []

    def stop(_p: Any) -> None:
        calls.append(1)
        if len(calls) == at:
            setattr(sdxl.state, name, True)

    sdxl.engine.at_step[1] = stop
    outcome = run(sdxl, JOINT, steps=3)
    sdxl.engine.at_step.clear()
    assert outcome.parameters["layerdiffusion_layer"] == left and len(outcome.pictures) == len(left)
    assert outcome.error is None and not sdxl.errors
    missing = (
        f"step {len(left) + 1} of 3 ({('blended', 'background')[len(left) - 1]}) is missing (the user interrupted it)"
    )
    assert missing in outcome.note and f"made: {', '.join(left)}" in outcome.processed.comments
    assert len(kept_layers(sdxl)) == len(left)
    state.check(sdxl)
    assert same_pictures(run(sdxl, **ONE_STEP), before)


def test_an_interrupt_in_the_second_of_three_batches_leaves_whole_and_begun_sets(webui) -> None:
    calls = []

    def stop(_p: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            webui.state.interrupt()

    webui.engine.at_step[0] = stop
    outcome = run(webui, JOINT, n_iter=3, **ONE_STEP)
    webui.engine.at_step.clear()
    assert outcome.parameters["layerdiffusion_layer"] == ["foreground", "blended", "foreground", "foreground"]
    assert outcome.processed.all_seeds == [11, 11, 12, 13] and not webui.errors


@pytest.mark.parametrize(("fault", "at_call"), FAULTS)
def test_an_error_in_a_later_step_leaves_the_layers_before_it(sdxl, fault, at_call) -> None:
    before, state = plainly(sdxl), Snapshot.of(sdxl)
    with raising(sdxl, fault, at_call=at_call):
        outcome = run(sdxl, JOINT, **ONE_STEP)
    left = ["foreground", "blended"][: at_call - 1]
    assert outcome.parameters["layerdiffusion_layer"] == left and outcome.modes == ["RGBA", "RGB"][: at_call - 1]
    assert outcome.error.startswith(f"step {at_call} of 3 (") and str(fault) in outcome.error
    assert f"made: {', '.join(left)}" in outcome.processed.comments and len(kept_layers(sdxl)) == len(left)
    state.check(sdxl)
    assert same_pictures(run(sdxl, **ONE_STEP), before) and not sdxl.errors
    assert len(run(sdxl, JOINT, **ONE_STEP).pictures) == 3


def test_no_numbers_in_the_second_step(webui) -> None:
    before, state, calls = plainly(webui), Snapshot.of(webui), []

    def spoil(_module: Any, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return output * float("nan") if len(calls) == 2 else output

    handle = networks_of(webui)["unet"].out[2].register_forward_hook(spoil)
    outcome = run(webui, JOINT, **ONE_STEP)
    handle.remove()
    assert outcome.parameters["layerdiffusion_layer"] == ["foreground"]
    assert NansException("").__class__.__name__ in outcome.error or "no numbers" in outcome.error
    state.check(webui)
    assert same_pictures(run(webui, **ONE_STEP), before)


def test_an_error_in_the_first_step_is_as_in_any_job(webui) -> None:
    state = Snapshot.of(webui)
    with raising(webui, RuntimeError("boom")), pytest.raises(RuntimeError):
        run(webui, JOINT | {"fg_seed": 5}, **ONE_STEP)
    state.check(webui)


class Switching(AlwaysOn):
    """Chooses another checkpoint when a job is over, as a user may while it runs."""

    to: ClassVar[str]

    def postprocess(self, p: Any, processed: Any) -> None:
        p.webui.opts.set("sd_model_checkpoint", self.to)


@pytest.mark.parametrize("other", ["sdxl-two", "sd15-one", "flux-one"])
def test_another_checkpoint_between_the_steps_is_refused(sdxl, other) -> None:
    if other not in sdxl.engine.checkpoints:
        pytest.skip("this WebUI knows no such architecture")
    with_script(sdxl, type("Choosing", (Switching,), {"to": other}))
    outcome = run(sdxl, JOINT, **ONE_STEP)
    assert outcome.parameters["layerdiffusion_layer"] == ["foreground"] and not sdxl.errors
    told = f"got the checkpoint {other}, chosen while the set was being made (by sdxl-one: foreground)"
    for word in ("step 2 of 3 (blended): ", told, "expected sdxl-one for all 3 steps", "What to do"):
        assert word in outcome.error
    assert "made for" not in outcome.error, "the chain fits: it is the checkpoint that went away"
    sdxl.opts.set("sd_model_checkpoint", "sdxl-one")
    with_script(sdxl)
    assert len(run(sdxl, JOINT, **ONE_STEP).pictures) == 3


# --- what cannot work, before anything is made


def refused(outcome: Any) -> str:
    """The message of a job without pictures."""
    assert outcome.pictures == [] and "expected" in str(outcome.error) and "What to do" in str(outcome.error)
    return outcome.error


@EACH
def test_a_missing_file_of_any_step_is_named_before_the_first(sdxl, layers, chain) -> None:
    state = Snapshot.of(sdxl)
    path = layers / f"{chain.steps[-1].method_row().weights}.safetensors"
    away = path.rename(path.with_suffix(".away"))
    try:
        with sdxl.settings(layerdiffuse_offline=True):
            outcome = run(sdxl, layer_of(chain), **ONE_STEP)
    finally:
        away.rename(path)
    assert path.name in refused(outcome) and not kept_layers(sdxl)
    state.check(sdxl)


def test_a_chain_on_another_base(sd15) -> None:
    assert "SD1.5" in refused(run(sd15, JOINT, **ONE_STEP))


@pytest.mark.parametrize("chain", [chain for chain in CHAINS if chain.images], ids=lambda chain: chain.id)
def test_a_picture_that_is_not_given(webui, chain) -> None:
    assert chain.images[0] in refused(run(webui, {"method": chain.id}, **ONE_STEP))


def test_a_method_file_for_all_methods(webui) -> None:
    assert "method file" in refused(run(webui, JOINT | {"method_file": "own"}, **ONE_STEP))


def test_the_upscale_button(webui) -> None:
    fields = {"enable_hr": True, "firstpass_image": picture(), "steps": 1}
    assert "one picture to upscale" in refused(run(webui, JOINT, **fields))


# --- again and again


def test_many_sets_in_a_row_leave_nothing(sdxl) -> None:
    first, state = run(sdxl, JOINT, **ONE_STEP), Snapshot.of(sdxl)
    for _ in range(4):
        assert same_pictures(run(sdxl, JOINT, **ONE_STEP), first)
        state.check(sdxl)


def test_the_same_p_again_without_the_chain(webui) -> None:
    p = job(webui, JOINT | {"fg_seed": 5, "bg_additional_prompt": "a meadow"}, steps=1)
    process_images(p)
    webui.fresh_state()
    p.script_args = job(webui, None).script_args
    processed = process_images(p)
    assert not [key for key in p.extra_generation_params if key.startswith("layerdiffusion")]
    assert parameters(processed.infotexts[0])["Seed"] == "11" and "Seed" not in p.extra_generation_params
    assert np.array_equal(np.asarray(processed.images[0]), plainly(webui).arrays[0])
