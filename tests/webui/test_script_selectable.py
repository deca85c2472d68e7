"""Scripts chosen from the WebUI's list, which cut the picture into tiles and join them: alpha goes in and comes out."""

from __future__ import annotations

import base64
import functools
import importlib
import inspect
import io
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes.grids import combine_grid, split_grid
from fakes.running import Snapshot, job, layer_of, picture, plain, positional, run, same_pictures
from fakes.scripts import SCRIPTS
from fakes.selectable import (
    KINDS,
    Flattening,
    Loop,
    OutpaintingMk2,
    PoorMansOutpainting,
    SDUpscale,
    UltimateUpscale,
    run_script,
)
from PIL import Image

from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.webui.jobs import init_images

SINGLE = {"method": "sd15_fg"}
ONE = {"steps": 2, "denoising_strength": 0.5}  # one step is made
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
UPSCALE, POOR = (16, 1.5), (32, ["left", "down"])
ULTIMATE = (64, 1.5, 1)
SCRIPTS_AND_ARGUMENTS = [
    (SDUpscale, UPSCALE),
    (PoorMansOutpainting, POOR),
    (OutpaintingMk2, POOR),
    (UltimateUpscale, ULTIMATE),
]
ENLARGING = (SDUpscale, UltimateUpscale)
for_scripts = pytest.mark.parametrize(
    ("kind", "values"), SCRIPTS_AND_ARGUMENTS, ids=["upscale", "poor", "mk2", "ultimate"]
)


def runner():
    """The module around the WebUI's function; it can be imported in a WebUI only."""
    return importlib.import_module("lib_layerdiffuse.webui.tile_scripts.runner")


def selected():
    """The module of scripts at work; likewise."""
    return importlib.import_module("lib_layerdiffuse.webui.tile_scripts.selected")


def seen(rgba: np.ndarray) -> np.ndarray:
    """A picture without its hidden colours."""
    return rgba * (rgba[..., 3:] > 0)


def with_scripts(webui):
    """The WebUI with the scripts on its list."""
    webui.extra_scripts = list(KINDS)
    return webui.reload_ui()


@pytest.fixture
def listed(sd15):
    """A WebUI with the scripts on its list."""
    return with_scripts(sd15)


@pytest.fixture
def tiles(monkeypatch) -> list[Image.Image]:
    """All start pictures that jobs had, as the transparency encoder gets them."""
    seen = []
    original = init_images.InitImages.install

    def install(self) -> None:
        seen.extend(self.pictures)
        original(self)

    monkeypatch.setattr(init_images.InitImages, "install", install)
    return seen


def files(webui) -> list[Path]:
    """The files that are no grids."""
    return sorted(path for path in (webui.folder / "outputs").rglob("*.*") if "grids" not in path.parts)


# --- the scripts


def test_what_another_extension_put_around_the_webuis_function_stays(listed, monkeypatch) -> None:
    """And the function of ours beneath it has nothing to do with pictures any more."""
    images, p = sys.modules["modules.images"], job(listed, SINGLE, init_images=[picture(seed=5)])
    monkeypatch.setattr(images, "split_grid", images.split_grid)  # give it back in the end
    with selected().Selected(p, "SD upscale", {}):
        ours = images.split_grid
        images.split_grid = theirs = functools.partial(ours)
        assert images.split_grid(p.init_images[0], 32, 32, 8).tiles[0][2][0][2].mode == "RGBA"
    assert images.split_grid is theirs and images.combine_grid is combine_grid
    assert images.split_grid(p.init_images[0].convert("RGB"), 32, 32, 8).tiles[0][2][0][2].mode == "RGB"


@for_scripts
def test_the_joined_picture_is_rgba_in_the_gallery_and_the_file(listed, kind, values) -> None:
    state = Snapshot.of(listed)
    layer = [*positional(**SINGLE), "me"]
    outcome = run_script(listed, kind, layer, *values, init_images=[picture(seed=5)], **ONE)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not listed.errors
    assert outcome.pictures[0].size == ((96, 96) if kind in ENLARGING else outcome.pictures[0].size)
    (path,) = files(listed)
    with Image.open(path) as saved:
        assert saved.format == "PNG" and np.array_equal(np.asarray(saved), outcome.arrays[0])
        assert saved.info["parameters"] == outcome.processed.infotexts[0]
        assert "layerdiffusion_method" in saved.info["parameters"]
    assert np.ptp(outcome.arrays[0][..., 3]) > 0
    assert np.array_equal(np.asarray(listed.runners[True].ours.last.get("me", "foreground")), outcome.arrays[0])
    state.check(listed)


@for_scripts
def test_without_the_box_nothing_is_touched(listed, kind, values) -> None:
    fields = {"init_images": [picture(seed=5)], **ONE}
    with_ours = run_script(listed, kind, plain(), *values, **fields)
    runner().remove()
    assert not hasattr(SCRIPTS.ScriptRunner, "layerdiffuse_run")
    alone = run_script(listed, kind, plain(), *values, **fields)
    runner().install()
    assert with_ours.modes == ["RGB"] and same_pictures(with_ours, alone)


@for_scripts
def test_a_format_without_alpha_becomes_png_in_file_and_api(listed, kind, values) -> None:
    with listed.settings(samples_format="jpg"):
        outcome = run_script(listed, kind, SINGLE, *values, init_images=[picture(seed=5)], is_api=True, **ONE)
    (path,) = files(listed)
    assert path.suffix == ".png" and not listed.errors
    with Image.open(io.BytesIO(base64.b64decode(outcome.pictures[0]))) as sent, Image.open(path) as saved:
        assert sent.mode == saved.mode == "RGBA" and np.array_equal(np.asarray(sent), np.asarray(saved))


@for_scripts
@pytest.mark.parametrize("method", ["sd15_joint", "sd15_fg2bg"])
def test_methods_of_layers_are_refused_with_the_reason(listed, kind, values, method) -> None:
    layer = layer_of(find_method(method))
    outcome = run_script(listed, kind, layer, *values, init_images=[picture(seed=5)], **ONE)
    assert outcome.pictures == [] and files(listed) == [] and not listed.errors
    assert all(word in outcome.error for word in ("got ", "expected ", "What to do: ", kind().title()))
    fine = run(listed, SINGLE, init_images=[picture(seed=5)], **ONE)
    assert fine.modes == ["RGBA"] and fine.error is None


@for_scripts
def test_a_job_that_fails_ends_the_script_without_a_picture(listed, kind, values, monkeypatch) -> None:
    def missing(*_arguments, **_named):
        raise RuntimeError("got nothing")

    monkeypatch.setattr(init_images.InitImages, "install", missing)
    outcome = run_script(listed, kind, SINGLE, *values, init_images=[picture(seed=5)], **ONE)
    assert outcome.pictures == [] and files(listed) == [] and "got nothing" in outcome.error


def test_other_errors_of_a_script_stay_its_own(listed) -> None:
    with pytest.raises(TypeError):
        run_script(listed, SDUpscale, SINGLE, "no number", 1.5, init_images=[picture(seed=5)], **ONE)
    images = sys.modules["modules.images"]
    assert images.split_grid is split_grid and images.combine_grid is combine_grid


@for_scripts
def test_a_start_picture_without_alpha(listed, kind, values) -> None:
    outcome = run_script(listed, kind, SINGLE, *values, init_images=[picture(seed=5, alpha=False)], **ONE)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not listed.errors


def test_sd_upscale_gives_tiles_the_alpha_at_their_place(listed, tiles) -> None:
    image = picture(96, seed=5)
    outcome = run_script(listed, SDUpscale, SINGLE, 16, 1, init_images=[image], batch_size=3, **ONE)
    assert outcome.modes == ["RGBA"] and len(tiles) == 4
    whole = np.asarray(image)
    for tile, (y, x) in zip(tiles, ((0, 0), (0, 32), (32, 0), (32, 32)), strict=True):
        assert np.array_equal(np.asarray(tile), whole[y : y + 64, x : x + 64])


def test_sd_upscale_enlarges_alpha_and_keeps_colours(listed, tiles) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((200, 40, 30, 255), (16, 16, 48, 48))
    run_script(listed, SDUpscale, SINGLE, 16, 2, init_images=[image], **ONE)
    assert len(tiles) == 9
    for tile in map(np.asarray, tiles):
        visible = tile[tile[..., 3] > 0].astype(int)
        assert np.abs(visible[:, :3] - (200, 40, 30)).max(initial=0) <= 2  # nothing of a background at the edges
    middle = np.asarray(tiles[4])[..., 3]
    assert (middle > 240).mean() > 0.9


def test_sd_upscale_several_times(listed) -> None:
    outcome = run_script(listed, SDUpscale, SINGLE, *UPSCALE, init_images=[picture(seed=5)], n_iter=2, **ONE)
    assert outcome.modes == ["RGBA"] * 2 and len(files(listed)) == 2
    assert not np.array_equal(*outcome.arrays)


@pytest.mark.parametrize("directions", [["left"], ["right", "up"], ["left", "right", "up", "down"]])
@pytest.mark.parametrize("kind", [PoorMansOutpainting, OutpaintingMk2])
def test_outpainting_leaves_the_picture_at_its_place(listed, kind, directions) -> None:
    image = picture(64, seed=5)
    fields = {"width": 64, "height": 64} if kind is PoorMansOutpainting else {"width": 128, "height": 128}
    outcome = run_script(listed, kind, SINGLE, 32, directions, init_images=[image], **fields, **ONE)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not outcome.note and not listed.errors
    sides = dict.fromkeys(directions, 32)
    if kind is OutpaintingMk2:  # it rounds up to multiples of 64
        sides |= {one: 64 for one, other in OPPOSITE.items() if one in sides and other not in sides}
    left, up = sides.get("left", 0), sides.get("up", 0)
    values, before = outcome.arrays[0], np.asarray(image)
    kept = values[up : up + 64, left : left + 64]
    assert values.shape[:2] == (64 + up + sides.get("down", 0), 64 + left + sides.get("right", 0))
    assert np.array_equal(kept[..., 3], before[..., 3])
    assert np.array_equal(kept[before[..., 3] > 0], before[before[..., 3] > 0])
    if directions:
        outside = np.ones(values.shape[:2], bool)
        outside[up : up + 64, left : left + 64] = False
        assert np.ptp(values[outside, 3]) > 0


def test_poor_mans_outpainting_gives_nothing_around_the_picture(listed, tiles) -> None:
    run_script(listed, PoorMansOutpainting, SINGLE, 32, ["right"], init_images=[picture(64, seed=5)], **ONE)
    (tile,) = tiles
    assert np.array_equal(np.asarray(tile)[:, :32], np.asarray(picture(64, seed=5))[:, 32:])
    assert (np.asarray(tile)[:, 32:] == 0).all()


def test_mk2_goes_on_with_the_alpha_at_the_edge(listed, tiles) -> None:
    image = picture(64, seed=5)
    image.paste((9, 99, 199, 255), (40, 20, 64, 30))  # it is cut off at the right
    run_script(listed, OutpaintingMk2, SINGLE, 32, ["right"], init_images=[image], width=128, height=64, **ONE)
    (tile,) = map(np.asarray, tiles)
    assert np.array_equal(tile[:, :64], np.asarray(image))
    assert (tile[20:30, 64:, 3] == 255).all() and (tile[30:, 64:, 3] == 0).all()
    assert np.ptp(tile[20:30, 64:, 0]) > 0  # the script's noise


def test_mk2_in_batches_with_a_grid(listed) -> None:
    fields = {"init_images": [picture(seed=5)], "batch_size": 2, "n_iter": 2, "width": 96, "height": 96}
    outcome = run_script(listed, OutpaintingMk2, SINGLE, 32, ["left", "down"], **fields, **ONE)
    assert outcome.modes == ["RGBA"] * 4 and outcome.processed.images[0].mode == "RGB" and not listed.errors
    assert len(files(listed)) == 4 and not outcome.note
    assert len({values.tobytes() for values in outcome.arrays}) == 2  # the script's batches have the same seeds


def test_mk2_only_part_of_the_canvas_is_the_tile(listed) -> None:
    image = picture(128, seed=5)
    fields = {"init_images": [image], "width": 96, "height": 96}
    outcome = run_script(listed, OutpaintingMk2, SINGLE, 64, ["left", "right", "down"], **fields, **ONE)
    assert outcome.modes == ["RGBA"] and outcome.pictures[0].size == (256, 192) and not outcome.note
    assert np.array_equal(outcome.arrays[0][:128, 64:192, 3], np.asarray(image)[..., 3])


def test_a_version_of_mk2_that_cuts_elsewhere_is_told(listed, monkeypatch) -> None:
    monkeypatch.setattr(OutpaintingMk2, "shift", 3)
    fields = {"init_images": [picture(seed=5)], "width": 128, "height": 128}
    outcome = run_script(listed, OutpaintingMk2, SINGLE, *POOR, **fields, **ONE)
    assert outcome.modes == ["RGB"] and "the transparency is lost" in outcome.note and "expected" in outcome.note


def test_a_version_of_mk2_with_other_arguments_is_told(listed, monkeypatch) -> None:
    original = OutpaintingMk2.run

    def run(self, p, amount, where):
        return original(self, p, amount, where)

    monkeypatch.setattr(OutpaintingMk2, "run", run)
    outcome = run_script(listed, OutpaintingMk2, SINGLE, *POOR, init_images=[picture(seed=5)], **ONE)
    assert outcome.modes == ["RGB"] and "another version" in outcome.note


def test_ultimate_upscale_starts_with_the_alpha_and_goes_on_with_what_jobs_gave(listed, tiles) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((200, 40, 30, 255), (16, 16, 48, 48))
    outcome = run_script(listed, UltimateUpscale, SINGLE, 64, 2, 1, init_images=[image], **ONE)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not outcome.note and len(tiles) == 4
    first = np.asarray(tiles[0])
    visible = first[first[..., 3] > 0].astype(int)
    assert np.abs(visible[:, :3] - (200, 40, 30)).max() <= 2 and 0.2 < (first[..., 3] > 128).mean() < 0.3
    for before, after in itertools.pairwise([*map(np.asarray, tiles), outcome.arrays[0]]):
        changed = seen(before) != seen(after)
        assert changed.any() and changed.any(axis=2).mean() <= 0.25  # only its own rectangle


def test_ultimate_upscale_with_several_passes_or_none(listed) -> None:
    image = picture(seed=5)
    twice = run_script(listed, UltimateUpscale, SINGLE, 64, 1, 2, init_images=[image], **ONE)
    assert twice.modes == ["RGBA"] * 2 and not np.array_equal(*twice.arrays) and len(files(listed)) == 2
    never = run_script(listed, UltimateUpscale, SINGLE, 64, 1, 0, init_images=[image], **ONE)
    assert never.modes == ["RGBA"] and len(files(listed)) == 3
    assert np.array_equal(seen(never.arrays[0]), seen(np.asarray(image)))


@pytest.mark.parametrize(("kind", "values"), SCRIPTS_AND_ARGUMENTS, ids=["upscale", "poor", "mk2", "ultimate"])
def test_hidden_colours_of_joined_pictures(listed, kind, values) -> None:
    with listed.settings(layerdiffuse_hidden_colours="cleared"):
        outcome = run_script(listed, kind, SINGLE, *values, init_images=[picture(seed=5)], **ONE)
    found = outcome.arrays[0]
    assert outcome.modes == ["RGBA"] and (found[..., 3] == 0).any() and not found[found[..., 3] == 0].any()


def test_a_version_of_ultimate_upscale_that_gives_jobs_a_part_is_told(listed, monkeypatch) -> None:
    monkeypatch.setattr(UltimateUpscale, "cuts", True)
    image = Image.new("RGBA", (64, 64), (255, 255, 255, 255))
    image.paste((0, 0, 0, 0), (0, 0, 32, 64))
    image.putpixel((0, 0), (9, 9, 9, 255))
    outcome = run_script(listed, UltimateUpscale, SINGLE, 32, 2, 1, init_images=[image], **ONE)
    assert "the transparency is lost" in outcome.note and "Ultimate SD upscale" in outcome.note
    assert "a part of the picture" in outcome.note and not listed.errors


# --- other scripts


def test_loopback_by_api_in_a_format_without_alpha(listed) -> None:
    with listed.settings(samples_format="jpg"):
        outcome = run_script(listed, Loop, SINGLE, 2, init_images=[picture(seed=5)], is_api=True, **ONE)
    assert not listed.errors and outcome.error is None
    assert Image.open(io.BytesIO(base64.b64decode(outcome.pictures[0]))).mode == "RGBA"


def test_a_script_that_joins_without_alpha_is_told(listed) -> None:
    outcome = run_script(listed, Flattening, SINGLE, init_images=[picture(seed=5)], **ONE)
    assert outcome.modes == ["RGB"] and "without alpha" in outcome.note and "Other upscale" in outcome.note
    assert "without alpha" in outcome.processed.comments


@for_scripts
def test_the_opaque_pictures_of_tiles_are_left_out(listed, kind, values) -> None:
    layer = SINGLE | {"output_origin": True}
    outcome = run_script(listed, kind, layer, *values, init_images=[picture(seed=5)], **ONE)
    assert outcome.modes == ["RGBA"] and not listed.errors and "left out" in outcome.note
    without = run_script(listed, kind, SINGLE, *values, init_images=[picture(seed=5)], **ONE)
    assert same_pictures(outcome, without)


# --- around the WebUI's function


def test_it_is_wrapped_once_however_often_the_page_is_reloaded(listed) -> None:
    ours, original = SCRIPTS.ScriptRunner.layerdiffuse_run
    assert SCRIPTS.ScriptRunner.run is ours and not hasattr(original, "__wrapped__")
    listed.reload_ui().reload_ui()
    assert SCRIPTS.ScriptRunner.layerdiffuse_run[1] is original
    assert inspect.unwrap(SCRIPTS.ScriptRunner.run) is original


def test_another_extension_around_it_stays(listed) -> None:
    ours = SCRIPTS.ScriptRunner.run
    calls = []

    def theirs(self, p, *arguments):
        calls.append(p)
        return ours(self, p, *arguments)

    SCRIPTS.ScriptRunner.run = theirs
    try:
        listed.reload_ui()
        assert SCRIPTS.ScriptRunner.run is theirs
        outcome = run_script(listed, SDUpscale, SINGLE, *UPSCALE, init_images=[picture(seed=5)], **ONE)
        assert outcome.modes == ["RGBA"] and calls == [outcome.p]
    finally:
        SCRIPTS.ScriptRunner.run = ours
