"""Errors in the middle of a job: what is made stays, all is told once, and the next plain job is as before."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from fakes.running import run
from fakes.usable import Usable

from lib_layerdiffuse.core.codec import decoding
from lib_layerdiffuse.core.codec.decoding import TransparencyDecoder
from lib_layerdiffuse.webui.jobs.networks import Networks


def starving(monkeypatch, number: int) -> None:
    """The allocator of the transparency decoder fails for one picture of a batch."""
    original, count = TransparencyDecoder.decode, iter(range(100))

    def decode(self, *arguments, **named):
        if next(count) == number:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.")
        return original(self, *arguments, **named)

    monkeypatch.setattr(TransparencyDecoder, "decode", decode)


def test_out_of_memory_in_the_decoder_keeps_the_opaque_picture(sd15, monkeypatch) -> None:
    usable = Usable(sd15)
    starving(monkeypatch, 1)
    outcome = run(sd15, {"method": "sd15_fg"}, batch_size=3, steps=1)
    assert outcome.modes == ["RGBA", "RGB", "RGBA"] and outcome.error is None and not sd15.errors
    assert "opaque" in outcome.note and "opaque" in outcome.processed.comments
    assert len([path for path in sd15.images.saved if path.endswith(("11.png", "12.png", "13.png"))]) >= 3
    usable.check_webui()


def test_out_of_memory_within_the_decoder_is_met_by_smaller_chunks(sd15, monkeypatch) -> None:
    original, sizes = decoding._Job._decode, []

    def decode(self, pairs):
        sizes.append(len(pairs))
        if len(pairs) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return original(self, pairs)

    monkeypatch.setattr(decoding._Job, "_decode", decode)
    outcome = run(sd15, {"method": "sd15_fg", "passes": 4}, steps=1)
    assert outcome.modes == ["RGBA"] and not outcome.note and max(sizes) > 1 and sizes.count(1) == 4


def test_an_error_that_nobody_foresaw_keeps_the_opaque_pictures(forge, monkeypatch) -> None:
    usable = Usable(forge)

    def decode(self, *arguments, **named):
        raise IndexError("index 7 is out of bounds")

    monkeypatch.setattr(TransparencyDecoder, "decode", decode)
    outcome = run(forge, {"method": "sd15_fg"}, batch_size=2, steps=1)
    assert outcome.modes == ["RGB"] * 2 and "opaque" in outcome.note and not forge.errors
    assert "opaque" in outcome.processed.comments and "layerdiffusion_note" in outcome.processed.infotexts[-1]
    usable.check_webui()


@pytest.mark.parametrize("where", ["prepare_pass", "round_batch", "prepare"])
def test_an_error_that_nobody_foresaw_before_the_sampling(usable, monkeypatch, where) -> None:
    job = type(next(script for script in usable.webui.runners[False].scripts)).before_process.__globals__["Job"]

    def fail(self, *arguments, **named):
        raise IndexError("index 7 is out of bounds")

    monkeypatch.setattr(job, where, fail)
    outcome = run(usable.webui, {"method": "sd15_fg"}, steps=1)
    assert outcome.pictures == [] and "report it" in outcome.error and not usable.webui.errors
    usable.check_webui()


def wrong_base(usable):
    """A method that rounds the batch up, for another base: refused before the sampling."""
    return run(usable.webui, {"method": "sd15_joint"}, n_iter=2, steps=1)


def torn_apart(usable):
    """Refused while sampling."""
    with usable.webui.settings(batch_cond_uncond=False):
        return run(usable.webui, {"method": "sd15_joint"}, prompt='an "apple" AND a pear', n_iter=2, steps=1)


def unforeseen(usable):
    """An error inside the preparation, behind the note."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Networks, "method", lambda *_arguments: {}["weights"])
        return run(usable.webui, {"method": "sd15_joint"}, steps=1)


@pytest.mark.parametrize(("base", "refuse"), [("sdxl", wrong_base), ("sd15", torn_apart), ("sd15", unforeseen)])
def test_a_refusal_is_told_once(make_webui, caplog, base, refuse) -> None:
    """The batch was to be rounded up: no word of it where nothing was made."""
    usable = Usable(make_webui("a1111", base))
    with caplog.at_level(logging.INFO, "lib_layerdiffuse"):
        outcome = refuse(usable)
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(records) == 1 and "rounded" not in caplog.text + outcome.processed.comments + outcome.processed.js()
    usable.check_told(outcome)
    usable.check_webui()


def test_a_refusal_after_pictures_leaves_their_notes(usable) -> None:
    webui = usable.webui
    prompts = ["a pear"] * 3 + ["an apple AND a pear"] * 3
    with webui.settings(batch_cond_uncond=False):
        outcome = run(webui, {"method": "sd15_joint"}, prompt=prompts, batch_size=2, n_iter=2, steps=1)
    assert outcome.modes == ["RGBA", "RGB", "RGB"] and "AND" in outcome.error and "rounded" in outcome.note
    assert "layerdiffusion_error" not in str(outcome.processed.infotexts)
    assert outcome.processed.comments.count("LayerDiffuse: ") == 2
    usable.check_webui()


def test_notes_in_infotexts_have_no_escaped_quotes(usable) -> None:
    outcome = run(usable.webui, {"method": "sd15_fg", "fg_additional_prompt": "shiny"}, steps=1)
    told = json.loads(outcome.processed.js())["extra_generation_params"]["layerdiffusion_note"]
    assert "fg_additional_prompt" in told and told in outcome.processed.comments
    assert "\\" not in outcome.processed.infotexts[0] and "layerdiffusion_note" not in outcome.processed.infotexts[0]


def test_a_grid_of_no_pictures(usable) -> None:
    """With this setting WebUIs would divide by the number of pictures."""
    with usable.webui.settings(grid_only_if_multiple=False):
        outcome = run(usable.webui, {"method": "xl_fg_attn"}, steps=1)
    usable.check(outcome)


def test_issue_62_no_sort_of_five_dimensions(sd15, monkeypatch) -> None:
    """On a Mac: 'MPSNDArraySort ... axis = 0, 1, 2, 3'."""
    for name in ("median", "sort", "quantile", "kthvalue"):
        original = getattr(torch, name)

        def checked(values, *others, original=original, **named):
            assert values.ndim < 5
            return original(values, *others, **named)

        monkeypatch.setattr(torch, name, checked)
        monkeypatch.setattr(torch.Tensor, name, checked)
    assert run(sd15, {"method": "sd15_fg", "passes": 8}, steps=1).modes == ["RGBA"] and not sd15.errors
