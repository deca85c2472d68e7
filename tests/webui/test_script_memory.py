"""What a job made is freed when it ends, without waiting for Python's collector, which a WebUI seldom reaches."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from fakes.running import layer_of, load, picture, raising, run
from fakes.webui import WebUI
from PIL import Image

from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.webui.host.host import WebuiHost
from lib_layerdiffuse.webui.jobs.frame_prompts import FramePrompts
from lib_layerdiffuse.webui.jobs.init_images import InitImages
from lib_layerdiffuse.webui.jobs.job import Job
from lib_layerdiffuse.webui.jobs.outcome import Outcome
from lib_layerdiffuse.webui.jobs.pictures import Layer
from lib_layerdiffuse.webui.jobs.request import Request
from lib_layerdiffuse.webui.jobs.run import Run
from lib_layerdiffuse.webui.jobs.second_pass import SecondPass

OURS = (Job, Request, Run, Outcome, FramePrompts, InitImages, SecondPass, Layer, WebuiHost)
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Lanczos", "denoising_strength": 0.6}


def text(webui: WebUI) -> None:
    run(webui, {"method": "sd15_fg", "output_origin": True}, steps=2, n_iter=2)


def frames(webui: WebUI) -> None:
    run(webui, layer_of(find_method("sd15_bg2fg")), batch_size=2, steps=2)


def start_picture(webui: WebUI) -> None:
    run(webui, {"method": "sd15_fg"}, init_images=[picture()], steps=2)


def masked(webui: WebUI) -> None:
    run(webui, {"method": "sd15_fg"}, init_images=[picture()], image_mask=Image.new("L", (64, 64), 255), steps=2)


def second_pass(webui: WebUI) -> None:
    run(webui, {"method": "sd15_fg"}, **HIRES, steps=2)


def refused(webui: WebUI) -> None:
    run(webui, {"method": "sd15_fg", "weight": "heavy"}, init_images=[picture()], steps=2)


def refused_late(webui: WebUI) -> None:
    run(webui, {"method": "xl_fg_conv"}, init_images=[picture()], steps=2)


def broken(webui: WebUI) -> None:
    with raising(webui, RuntimeError("boom"), at_call=2), contextlib.suppress(RuntimeError):
        run(webui, {"method": "sd15_fg"}, init_images=[picture()], steps=2)


def broken_before(webui: WebUI) -> None:
    """The WebUI fails before it looks at the start picture."""
    with contextlib.suppress(KeyError):
        run(webui, {"method": "sd15_fg"}, init_images=[picture()], sampler_name="none such", steps=2)


KINDS = [text, frames, start_picture, masked, second_pass, refused, refused_late, broken, broken_before]


@pytest.fixture(scope="module")
def before_jobs() -> None:
    """What is there before these tests is no matter of the collector, which is the quicker for it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def uncollected(before_jobs) -> Iterator[None]:
    """Only the count of references frees anything."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def born(monkeypatch) -> list[weakref.ref]:
    """Weak references to all of ours that jobs make."""
    found: list[weakref.ref] = []

    def watch(kind: type) -> None:
        original = kind.__init__

        def noted(self: object, *values: object, **named: object) -> None:
            found.append(weakref.ref(self))
            original(self, *values, **named)

        monkeypatch.setattr(kind, "__init__", noted)

    for kind in OURS:
        watch(kind)
    return found


def after_the_first(webui: WebUI, kind: Callable[[WebUI], None], born: list[weakref.ref]) -> None:
    """Let libraries that are imported at their first use, and keep its frames, have it."""
    kind(webui)
    gc.collect()
    born.clear()


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_is_freed_when_it_ends(make_webui, flavour, kind: Callable[[WebUI], None], born, uncollected) -> None:
    webui = make_webui(flavour, "sd15")
    after_the_first(webui, kind, born)
    kind(webui)
    assert born and not [type(reference()).__name__ for reference in born if reference() is not None]


@pytest.mark.parametrize("kind", [text, start_picture, second_pass])
def test_a_job_leaves_no_picture_while_the_webui_still_has_it(sd15, kind, born, uncollected, monkeypatch) -> None:
    after_the_first(sd15, kind, born)
    jobs: list[Job] = []
    original = Job.finish
    monkeypatch.setattr(Job, "finish", lambda self: jobs.append(self) or original(self))
    kind(sd15)
    left = {type(reference()).__name__ for reference in born if reference() is not None}
    assert jobs and left == {"Job", "Request", "Outcome"}


def alive(kind: type) -> int:
    """How many objects of a class there are."""
    gc.collect()
    return sum(isinstance(found, kind) for found in gc.get_objects())


def test_many_jobs_leave_no_more_than_one(make_webui, flavour, monkeypatch, before_jobs) -> None:
    monkeypatch.setattr(
        "lib_layerdiffuse.webui.jobs.networks.is_roomy", lambda device: True
    )  # others use the machine too
    webui = make_webui(flavour, "sd15")
    kinds = [text, frames, start_picture, masked, second_pass, refused, broken]

    def round_of_jobs() -> tuple[int, int]:
        for kind in kinds:
            kind(webui)
        return alive(torch.Tensor), alive(Image.Image)

    round_of_jobs()
    before = round_of_jobs()
    after = round_of_jobs()
    assert all(now <= then for now, then in zip(after, before, strict=True)), (before, after)


def test_networks_of_another_base_are_forgotten(make_webui, flavour) -> None:
    webui = make_webui(flavour, "sd15")
    start_picture(webui)
    kept = webui.runners[False].ours.networks._kept
    assert set(kept) == {"method", "decoder", "encoder"}
    run(load(webui, "sdxl-one"), {"method": "xl_fg_conv"}, steps=2)
    assert set(kept) == {"method", "decoder"}
