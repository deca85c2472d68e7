"""Notes on given pictures: painted checkerboards, and transparency that a tab of the page has dropped."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.running import picture, positional, run
from PIL import Image

from lib_layerdiffuse.core.picture.alpha import checkerboard_preview
from lib_layerdiffuse.core.picture.painted_board import has_painted_board

ONE = {"steps": 1, "batch_size": 1}


def preview() -> Image.Image:
    """What users take for the picture."""
    return checkerboard_preview(picture(192), square=8)


def on_white() -> Image.Image:
    """What a sketch tab makes of a cut-out."""
    cut_out = picture(64)
    return Image.alpha_composite(Image.new("RGBA", cut_out.size, "white"), cut_out).convert("RGB")


@pytest.mark.parametrize("flavour", ["a1111", "forge"])
def test_issue_28_a_preview_given_as_foreground_is_named(make_webui, flavour):
    webui = make_webui(flavour, "sd15")
    told = run(webui, {"method": "sd15_fg2bg", "fg_image": preview()}, steps=1, batch_size=2)
    assert "the foreground image has a checkerboard" in told.note and told.error is None and told.pictures
    silent = run(webui, {"method": "sd15_fg2bg", "fg_image": picture(192)}, steps=1, batch_size=2)
    assert "checkerboard" not in silent.note


def test_a_background_may_show_a_chessboard(make_webui):
    webui = make_webui("a1111", "sd15")
    told = run(webui, {"method": "sd15_bg2fg", "bg_image": preview()}, steps=1, batch_size=2)
    assert "checkerboard" not in told.note and told.error is None


def test_a_preview_as_start_picture_is_named_once(make_webui):
    webui = make_webui("a1111", "sd15")
    told = run(webui, {"method": "sd15_fg"}, init_images=[preview()], **ONE)
    assert told.note.count("the start picture has a checkerboard") == 1 and told.error is None
    assert "checkerboard" not in run(webui, {"method": "sd15_fg"}, init_images=[picture(64)], **ONE).note


def test_issue_12898_a_tab_that_drops_transparency_is_named(make_webui):
    webui = make_webui("a1111", "sd15")
    page = [*positional(method="sd15_fg"), "me"]
    assert "Sketch" in run(webui, page, init_images=[on_white()], **ONE).note
    for values, image in ((page, picture(64)), (page, picture(64, alpha=False)), (page[:-1], on_white())):
        assert "Sketch" not in run(webui, values, init_images=[image], **ONE).note


@pytest.mark.parametrize("denoising", [0.1, 0.45])
def test_issue_28_no_board_comes_back_from_a_transparent_start_picture(make_webui, denoising):
    """Neither in colours under little alpha nor in alpha: nothing is ever laid on a board on its way to a network."""
    webui = make_webui("a1111", "sd15")
    made = run(webui, {"method": "sd15_fg"}, init_images=[picture(128)], denoising_strength=denoising, **ONE)
    values = np.asarray(made.pictures[0])
    assert not has_painted_board(Image.fromarray(values[..., :3]))
    assert not has_painted_board(Image.fromarray(values[..., 3]))
