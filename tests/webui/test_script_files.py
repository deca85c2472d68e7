"""What leaves a WebUI: files with alpha and infotext under the WebUI's own names, grids, the API's answer."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from fakes.running import as_mapping, layer_of, picture, plain, positional, run
from PIL import Image

from lib_layerdiffuse.core.methods import METHODS, find_method
from lib_layerdiffuse.core.picture.alpha import checkerboard_preview
from lib_layerdiffuse.form.arguments import from_infotext

SINGLE, JOINT = {"method": "sd15_fg"}, {"method": "sd15_joint"}
USER_COMMENT, EXIF_FOLDER = 0x9286, 0x8769


def files(webui) -> list[Path]:
    """All files of pictures, by name."""
    return sorted(path for path in (webui.folder / "outputs").rglob("*") if path.is_file())


def samples(webui) -> list[str]:
    """Names of the samples' files."""
    return [path.name for path in files(webui) if "grids" not in path.parts]


def test_issue_9_the_file_is_rgba_with_the_webuis_name_and_infotext(sd15) -> None:
    outcome = run(sd15, SINGLE, steps=1)
    (path,) = files(sd15)
    assert path.parent == Path(outcome.p.outpath_samples) and path.name == "00000-11.png"
    with Image.open(path) as saved:
        assert saved.mode == "RGBA" and saved.info["parameters"] == outcome.processed.infotexts[0]
        assert np.array_equal(np.asarray(saved), outcome.arrays[0])


def test_issue_45_every_picture_of_every_batch_is_saved(a1111) -> None:
    outcome = run(a1111, SINGLE, batch_size=2, n_iter=2, steps=1)
    assert samples(a1111) == [f"0000{number}-{11 + number}.png" for number in range(4)]
    for path, values in zip(files(a1111)[1:], outcome.arrays, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), values)


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_issue_94_formats_without_alpha_become_png(a1111, kind) -> None:
    with a1111.settings(samples_format=kind):
        run(a1111, JOINT, batch_size=3, steps=1)
    assert samples(a1111) == [
        "00000-11-foreground.png",
        f"00001-11-background.{kind}",
        f"00002-11-blended.{kind}",
    ]
    assert Image.open(files(a1111)[-3]).mode == "RGBA"


def test_plain_pictures_keep_the_format_that_is_set(a1111) -> None:
    with a1111.settings(samples_format="jpg", layerdiffuse_subfolder="layers", layerdiffuse_file_format="webp"):
        run(a1111, steps=1)
    assert samples(a1111) == ["00000-11.jpg"]


def test_frames_are_in_the_names(a1111) -> None:
    run(a1111, layer_of(find_method("sd15_bg2fg")), batch_size=4, steps=1)
    frames = ["foreground", "blended"] * 2
    assert samples(a1111) == [f"0000{place}-{11 + place // 2 * 2}-{frame}.png" for place, frame in enumerate(frames)]


def test_webp_with_alpha_and_infotext(a1111) -> None:
    with a1111.settings(layerdiffuse_file_format="webp"):
        outcome = run(a1111, SINGLE, steps=1)
    (path,) = files(a1111)
    assert path.name == "00000-11.webp" and outcome.pictures[0].already_saved_as == str(path)
    with Image.open(path) as saved:
        visible = outcome.arrays[0][..., 3] > 0
        assert saved.mode == "RGBA" and np.array_equal(np.asarray(saved)[visible], outcome.arrays[0][visible])
        comment = saved.getexif().get_ifd(EXIF_FOLDER)[USER_COMMENT]
    assert comment[8:].decode("utf-16-be") == outcome.processed.infotexts[0]


@pytest.mark.parametrize("settings", [{}, {"layerdiffuse_file_format": "webp"}], ids=["png", "webp"])
def test_a_sub_folder_in_which_nothing_is_overwritten(sd15, settings) -> None:
    with sd15.settings(layerdiffuse_subfolder="layers", **settings):
        first = run(sd15, SINGLE, steps=1)
        second = run(sd15, {**SINGLE, "weight": 0.5}, steps=1)
    paths = files(sd15)
    assert len(paths) == 2 and {path.parent.name for path in paths} == {"layers"}
    kept = {Image.open(path).convert("RGBA").tobytes() for path in paths}
    assert len(kept) == 2 and not np.array_equal(first.arrays[0], second.arrays[0])


@pytest.mark.parametrize("folder", ["../outside", "/abroad", "C:\\abroad", "a/../../b"])
def test_a_sub_folder_stays_inside(a1111, folder) -> None:
    with a1111.settings(layerdiffuse_subfolder=folder):
        outcome = run(a1111, SINGLE, steps=1)
    (path,) = files(a1111)
    assert Path(outcome.p.outpath_samples) in path.parents and not Path("/abroad").exists()


def test_pictures_that_are_not_to_be_saved(a1111) -> None:
    outcome = run(a1111, {**SINGLE, "output_origin": True}, do_not_save_samples=True, steps=1)
    assert not files(a1111) and outcome.modes == ["RGBA", "RGB"]


def test_the_opaque_picture_too(sd15) -> None:
    outcome = run(sd15, {**SINGLE, "output_origin": True}, batch_size=2, steps=1)
    assert outcome.modes == ["RGBA", "RGBA", "RGB", "RGB"]
    assert not outcome.note
    assert samples(sd15) == ["00000-11.png", "00001-12.png", "00002-11-opaque.png", "00003-12-opaque.png"]
    texts = outcome.processed.infotexts
    assert len(texts) == len(outcome.processed.images) and "Seed: 12" in texts[-1] and "Seed: 11" in texts[-2]
    assert outcome.pictures[2].info["parameters"] == texts[-2]


def test_issue_28_grids_lie_on_a_checkerboard(sd15) -> None:
    outcome = run(sd15, JOINT, batch_size=3, steps=1)
    grid = outcome.processed.images[0]
    assert outcome.processed.index_of_first_image == 1 and grid.mode == "RGB"
    board = checkerboard_preview(outcome.pictures[0])
    assert np.array_equal(np.asarray(grid.crop((0, 0, 64, 64))), np.asarray(board))
    assert np.array_equal(np.asarray(grid.crop((64, 0, 128, 64))), outcome.arrays[1])
    assert not np.array_equal(np.asarray(board), outcome.arrays[0][..., :3])


def test_a_grid_of_other_pictures_is_left_alone(a1111) -> None:
    image = picture(seed=5)
    grid = a1111.images.image_grid([image, image], 2)
    assert np.array_equal(np.asarray(grid)[:64, :64], np.asarray(image)[..., :3])


def test_nothing_is_written_elsewhere(sd15, monkeypatch, tmp_path) -> None:
    """Nothing outside of the WebUI's own folders."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.chdir(home)
    models = sorted((path, path.stat().st_mtime_ns) for path in sd15.models.rglob("*"))
    run(sd15, JOINT, batch_size=3, steps=1)
    run(sd15, {"method": "xl_fg_attn"}, steps=1)
    assert not list(home.iterdir())
    assert sorted((path, path.stat().st_mtime_ns) for path in sd15.models.rglob("*")) == models
    assert [path.name for path in sd15.folder.iterdir()] == ["outputs"]


# --- the API


def answer(webui, outcome) -> list[Image.Image]:
    """The API's pictures."""
    texts = [webui.images.encode_pil_to_base64(image) for image in outcome.processed.images]
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in texts]


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_issue_110_the_api_gives_alpha_in_any_format(sd15, kind) -> None:
    with sd15.settings(samples_format=kind):
        outcome = run(sd15, JOINT, batch_size=3, steps=1, is_api=True, do_not_save_grid=True)
        images = answer(sd15, outcome)
    assert [image.mode for image in images] == ["RGBA", "RGB", "RGB"] and not sd15.errors
    assert np.ptp(np.asarray(images[0])[..., 3]) > 0
    assert images[0].info["parameters"] == outcome.processed.infotexts[0]
    assert json.loads(outcome.processed.js())["extra_generation_params"]["layerdiffusion_enabled"] is True


def test_issue_128_arguments_as_one_mapping(sd15) -> None:
    by_place = run(sd15, SINGLE, steps=1)
    by_name = run(sd15, as_mapping(method="sd15_fg"), steps=1)
    named = {"layerdiffusion_method": "sd15_fg", "layerdiffusion_enabled": True, "layerdiffusion_passes": 1}
    as_infotext = run(sd15, [named, *positional(enabled=False)[1:]], steps=1)
    assert np.array_equal(by_name.arrays[0], by_place.arrays[0])
    assert np.array_equal(as_infotext.arrays[0], by_place.arrays[0])


@pytest.mark.parametrize("mapping", [{"enabled": False}, {"enabled": 0, "method": "nonsense"}], ids=str)
def test_a_mapping_that_switches_it_off(forge, mapping) -> None:
    outcome = run(forge, [mapping, *positional()[1:]], steps=1)
    assert outcome.modes == ["RGB"] and not outcome.parameters and not forge.errors


def test_issue_63_positional_arguments_of_the_forge_extension(sd15) -> None:
    """Its twelve, in its order, with its labels; the WebUI fills up the rest."""
    label = "(SD1.5) From Background to Foreground (need batch size 2)"
    theirs = [True, label, 1.0, 1.0, None, np.array(picture(seed=1)), None, "Crop and Resize", False, "shiny", "", ""]
    outcome = run(sd15, theirs + plain(passes=1)[12:], batch_size=2, steps=1)
    assert outcome.modes == ["RGBA", "RGB"] and outcome.error is None and not sd15.errors
    assert "layerdiffusion_fg_additional_prompt: shiny" in outcome.processed.infotexts[-1]


def test_only_the_twelve_arguments(forge) -> None:
    theirs = [True, METHODS[0].label, 1, 1, None, None, None, "Just Resize", False, "", "", ""]
    outcome = run(forge, theirs, steps=1)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not forge.errors


def test_infotext_holds_what_the_method_uses_and_gives_it_back(a1111) -> None:
    layer = {**JOINT, "weight": 0.8, "ending_step": 0.9, "bg_additional_prompt": "a forest, at night: dark"}
    outcome = run(a1111, layer, batch_size=3, steps=1)
    read = from_infotext(outcome.parameters)
    assert (read.method, read.weight, read.ending_step) == ("sd15_joint", 0.8, 0.9)
    assert read.bg_additional_prompt == "a forest, at night: dark" and read.passes == 1
    assert not {"layerdiffusion_fg_image", "layerdiffusion_resize_mode", "layerdiffusion_checkerboard"} & {
        *outcome.parameters
    }


def test_a_second_job_does_not_speak_of_the_first(forge) -> None:
    run(forge, {**JOINT, "fg_additional_prompt": "shiny"}, batch_size=2, steps=1)
    outcome = run(forge, SINGLE, steps=1)
    assert not outcome.note and "layerdiffusion_fg_additional_prompt" not in outcome.parameters
    assert all("layerdiffusion" not in text for text in run(forge, steps=1).processed.infotexts)
