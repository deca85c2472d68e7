"""Every file that leaves a WebUI beside others: who else edits pixels, hidden colours, and what settings write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes.running import picture, run
from fakes.saving import HIRES, JOINT, ONE, SINGLE, files, hide_text, mask, pixels
from fakes.scripts import ALWAYS_VISIBLE, Script
from PIL import Image, ImageDraw

from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.core.picture.hidden import with_hidden_colours

# --- others edit pixels


def watermark(parameters) -> None:
    ImageDraw.Draw(parameters.image).rectangle((0, 0, 64, 8), fill="white")


def flatten(parameters) -> None:
    parameters.image = parameters.image.convert("RGB")


def as_jpeg(parameters) -> None:
    parameters.filename = parameters.filename.replace(".png", ".jpg")


def sort_into_folder(parameters) -> None:
    """Names and texts are theirs to change."""
    path = Path(parameters.filename)
    parameters.filename = str(path.with_name(f"sorted-{path.name}"))
    parameters.pnginfo["theirs"] = "a text"


EDITORS = [hide_text, watermark, flatten, as_jpeg]


@pytest.mark.parametrize("editor", EDITORS)
def test_t_diffusiontoolkit_274_nobody_edits_a_layer_before_it_is_saved(sd15, before_image_saved, editor) -> None:
    wanted = run(sd15, JOINT, batch_size=3, steps=1)
    before_image_saved(editor)
    outcome = run(sd15, JOINT, batch_size=3, steps=1)
    for values, expected, place in zip(outcome.arrays, wanted.arrays, range(3), strict=True):
        assert np.array_equal(values, expected)
        saved = Path(outcome.pictures[place].already_saved_as)
        if saved.suffix == ".png":  # an opaque layer may become a JPEG
            assert np.array_equal(pixels(saved), expected)
    assert Path(outcome.pictures[0].already_saved_as).suffix == ".png" and not sd15.errors


@pytest.mark.parametrize("event", ["image_saved", "image_grid"])
def test_nobody_edits_what_the_gallery_shows(sd15, event) -> None:
    wanted = run(sd15, JOINT, batch_size=3, steps=1)

    def edit(parameters) -> None:
        for image in getattr(parameters, "imgs", None) or [parameters.image]:
            if image.mode == "RGBA":
                image.putalpha(255)

    sd15.callbacks.lists[event].insert(0, edit)
    assert all(map(np.array_equal, run(sd15, JOINT, batch_size=3, steps=1).arrays, wanted.arrays))


def test_names_and_texts_of_others_stay(sd15, before_image_saved) -> None:
    before_image_saved(sort_into_folder)
    run(sd15, SINGLE, steps=1)
    (path,) = files(sd15).values()
    with Image.open(path) as saved:
        assert path.name.startswith("sorted-") and saved.mode == "RGBA" and saved.info["theirs"] == "a text"


def test_plain_pictures_are_theirs(sd15, before_image_saved) -> None:
    before_image_saved(hide_text)
    outcome = run(sd15, steps=1)
    assert outcome.modes == ["RGBA"] and (outcome.arrays[0][..., 3] == 255).all()


def test_a_layer_from_the_gallery_that_is_saved_again(sd15, before_image_saved) -> None:
    """The Save button reads the file; nothing marks it but its infotext."""
    before_image_saved(hide_text)
    outcome = run(sd15, SINGLE, steps=1)
    (first,) = files(sd15).values()
    again = Image.open(first)
    folder = str(sd15.folder / "outputs" / "again")
    sd15.images.save_image(again, folder, "", 1, "", "jpg", info=outcome.processed.infotexts[0])
    (second,) = Path(folder).iterdir()
    assert second.suffix == ".png" and np.array_equal(pixels(second), outcome.arrays[0])


def test_our_own_fault_keeps_no_picture_from_being_saved(sd15, monkeypatch) -> None:
    def broken(*_arguments) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("lib_layerdiffuse.webui.saving.saving.files.before_saving", broken)
    monkeypatch.setattr("lib_layerdiffuse.webui.saving.saving.files.on_checkerboard", broken)
    outcome = run(sd15, JOINT, batch_size=3, steps=1)
    assert outcome.modes == ["RGBA", "RGB", "RGB"] and len(files(sd15)) == 4


INPAINT = {"init_images": [picture(seed=5)], "image_mask": mask()}


class Stamp(Script):
    """Edits pictures in the WebUI's last hook for them, before or after ours."""

    def show(self, is_img2img):
        return ALWAYS_VISIBLE

    def postprocess_image_after_composite(self, p, told):
        told.image = told.image.convert("RGB")
        ImageDraw.Draw(told.image).rectangle((0, 0, 15, 15), fill="red")


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("start", [{}, INPAINT], ids=["txt", "inpaint"])
def test_edits_of_other_scripts_have_our_alpha(sd15, is_first, start) -> None:
    wanted = run(sd15, SINGLE, **ONE, **start).arrays[0]
    sd15.extra_scripts = [Stamp]
    sd15.reload_ui()
    if is_first:  # as a WebUI's settings may order its hooks
        runner = sd15.runners[bool(start)]
        ours = runner.scripts[0]
        runner.scripts.reverse()
        runner.__class__ = type("Reversed", (type(runner),), {"ours": property(lambda _self: ours)})
    outcome = run(sd15, SINGLE, **ONE, **start)
    assert outcome.modes == ["RGBA"] and not sd15.errors
    values = outcome.arrays[0]
    assert np.array_equal(values[..., 3], wanted[..., 3])
    seen = wanted[..., 3] > 0
    corner = np.zeros((64, 64), bool)
    corner[:16, :16] = True
    assert (values[corner & seen][:, :3] == (255, 0, 0)).all()
    assert np.array_equal(values[~corner & seen], wanted[~corner & seen])


# --- hidden colours


def test_t_transparent_background_69_what_was_erased_cannot_be_recovered(sd15, monkeypatch) -> None:
    erase(monkeypatch)
    start = Image.new("RGBA", (64, 64), (0, 255, 0, 255))
    painted = np.asarray(mask()) > 0
    for rule in ("padded", "as-decoded", "cleared"):
        with sd15.settings(layerdiffuse_hidden_colours=rule):
            outcome = run(sd15, SINGLE, init_images=[start], image_mask=mask(), **ONE)
        values = outcome.arrays[0]
        assert (values[painted][:, 3] == 0).all() and (values[~painted] == (0, 255, 0, 255)).all()
        green = (values[painted][:, :3] == (0, 255, 0)).all(axis=1).mean()
        assert green == {"padded": 1, "as-decoded": 0, "cleared": 0}[rule]  # padded: the surroundings are green


def erase(monkeypatch) -> None:
    """Let the decoder paint nothing: red under alpha 0."""
    from lib_layerdiffuse.core.codec.decoding import TransparencyDecoder

    def decode(self, pixels, *_arguments, **_named):
        result = pixels.new_zeros(1, 4, *pixels.shape[-2:])
        result[:, 0] = 1
        return result

    monkeypatch.setattr(TransparencyDecoder, "decode", decode)


@pytest.mark.parametrize("rule", ["padded", "as-decoded", "cleared"])
def test_the_setting_for_hidden_colours(sd15, rule) -> None:
    with sd15.settings(layerdiffuse_hidden_colours="As decoded"):
        decoded = run(sd15, SINGLE, steps=1).pictures[0]
    with sd15.settings(layerdiffuse_hidden_colours=rule):
        outcome = run(sd15, SINGLE, steps=1)
    assert np.array_equal(outcome.arrays[0], np.asarray(with_hidden_colours(decoded, rule)))
    assert np.array_equal(pixels(Path(outcome.pictures[0].already_saved_as)), outcome.arrays[0])


def test_webp_holds_the_very_pixels(sd15) -> None:
    with sd15.settings(layerdiffuse_file_format="webp"):
        outcome = run(sd15, SINGLE, steps=1)
    (path,) = files(sd15).values()
    assert path.suffix == ".webp" and np.array_equal(pixels(path), outcome.arrays[0])
    assert outcome.pictures[0].already_saved_as == str(path)


def test_no_empty_text_in_the_apis_png(sd15) -> None:
    outcome = run(sd15, JOINT, batch_size=3, steps=1, is_api=True, do_not_save_grid=True)
    for image in outcome.processed.images:
        assert [key for key, text in image.info.items() if isinstance(text, str)] == ["parameters"]


# --- the settings of a WebUI by which it saves more of a job


def test_a_jpeg_copy_of_a_large_picture_shows_what_is_visible(sd15) -> None:
    with sd15.settings(export_for_4chan=True, target_side_length=32):
        outcome = run(sd15, SINGLE, steps=1)
    saved = files(sd15)
    assert set(saved) == {"00000-11.png", "00000-11.jpg"}
    white = Image.new("RGBA", (64, 64), "white")
    white.alpha_composite(outcome.pictures[0])
    shown = pixels(saved["00000-11.jpg"]).astype(int)
    assert shown.shape == (32, 32, 3)
    assert np.abs(shown - np.asarray(white.convert("RGB").resize((32, 32), Image.LANCZOS)).astype(int)).mean() < 12


@pytest.mark.parametrize("settings", [{}, {"layerdiffuse_file_format": "webp"}, {"layerdiffuse_subfolder": "layers"}])
def test_the_text_lies_beside_its_picture(sd15, settings) -> None:
    with sd15.settings(save_txt=True, samples_format="jpg", **settings):
        outcome = run(sd15, JOINT, batch_size=3, steps=1, do_not_save_grid=True)
    saved = files(sd15)
    assert len(saved) == 6
    for image in outcome.pictures:
        assert Path(image.already_saved_as).with_suffix(".txt").read_text(encoding="utf-8").startswith("a red apple")


def test_before_face_restoration(sd15) -> None:
    wanted = run(sd15, SINGLE, steps=1)
    with sd15.settings(save_images_before_face_restoration=True, samples_format="jpg"):
        run(sd15, SINGLE, steps=1, restore_faces=True)
    assert np.array_equal(pixels(files(sd15)["00001-11-before-face-restoration.png"]), wanted.arrays[0])


class Before(Script):
    """Saves each picture before it goes on with it, as ADetailer does by its settings, and a preview."""

    def show(self, is_img2img):
        return ALWAYS_VISIBLE

    def postprocess_image(self, p, told):
        for suffix in ("-ad-before", "-ad-preview"):
            save = p.webui.images.save_image
            save(told.image, p.outpath_samples, "", p.seeds[0], "", "jpg", info="text", p=p, suffix=suffix)
        told.image = Image.new("RGB", told.image.size, "red")


def test_before_adetailer(sd15) -> None:
    wanted = run(sd15, SINGLE, steps=1)
    sd15.extra_scripts = [Before]
    sd15.reload_ui()
    run(sd15, SINGLE, steps=1)
    saved = files(sd15)
    assert np.array_equal(pixels(saved["00001-11-ad-before.png"]), wanted.arrays[0])
    assert pixels(saved["00002-11-ad-preview.jpg"]).shape[-1] == 3 and not sd15.errors


@pytest.mark.parametrize("more", [{}, {"image_mask": mask()}], ids=["whole", "inpaint"])
def test_before_colour_correction(sd15, more) -> None:
    fields = {"init_images": [picture(seed=5)], **ONE, **more}
    wanted = run(sd15, SINGLE, **fields)
    with sd15.settings(save_images_before_color_correction=True, img2img_color_correction=True):
        corrected = run(sd15, SINGLE, **fields)
    saved = pixels(files(sd15)["00001-11-before-color-correction.png"])
    assert np.array_equal(saved, wanted.arrays[0]) and not np.array_equal(saved, corrected.arrays[0])


@pytest.mark.parametrize("upscaler", ["Lanczos", "Latent"])
@pytest.mark.parametrize("layer", [SINGLE, JOINT], ids=["single", "joint"])
def test_before_hires_fix(sd15, upscaler, layer) -> None:
    count = len(find_method(layer["method"]).frames)
    wanted = run(sd15, layer, steps=1, batch_size=count, n_iter=2, do_not_save_samples=True, do_not_save_grid=True)
    fields = {"batch_size": count, "n_iter": 2, "do_not_save_grid": True, **HIRES}
    with sd15.settings(save_images_before_highres_fix=True):
        outcome = run(sd15, layer, hr_upscaler=upscaler, **fields)
    saved = [path for name, path in files(sd15).items() if "before-highres-fix" in name]
    assert outcome.error is None and not outcome.note and not sd15.errors and len(saved) == 2 * count
    for path, values in zip(saved, wanted.arrays, strict=True):
        found = pixels(path)
        if values.shape[-1] == 4:
            apart = np.abs(found.astype(int) - values)
            visible = np.minimum(found, values)[..., 3] > 0
            # what is hardly visible may be cleared as a haze or not, by a rounding
            assert found.shape[-1] == 4 and apart[..., 3].max() <= 3 and apart[visible].max() <= 2
        else:
            assert found.shape[-1] == 3


def test_the_first_passs_picture_is_that_of_the_upscale_button(sd15) -> None:
    given = picture(64)
    with sd15.settings(save_images_before_highres_fix=True):
        run(sd15, SINGLE, firstpass_image=given, hr_upscaler="Lanczos", **HIRES)
    (path,) = (path for name, path in files(sd15).items() if "before-highres-fix" in name)
    visible = np.asarray(given)[..., 3] > 0
    assert np.array_equal(pixels(path)[visible], np.asarray(given)[visible])


@pytest.mark.parametrize("only_masked", [False, True])
def test_mask_and_cut_out(sd15, only_masked) -> None:
    size = 128 if only_masked else 64
    fields = {"init_images": [picture(seed=5, size=size)], "image_mask": mask((40, 40, 80, 80), size), **ONE}
    settings = {"save_mask": True, "save_mask_composite": True, "return_mask": True, "return_mask_composite": True}
    with sd15.settings(**settings, samples_format="jpg"):
        outcome = run(sd15, SINGLE, inpaint_full_res=only_masked, do_not_save_grid=True, **fields)
    assert outcome.modes == ["RGBA", "RGB", "RGBA"] and not sd15.errors
    result, _, cut = outcome.arrays
    inside = np.asarray(outcome.p.mask_for_overlay.convert("L")) > 0
    assert (cut[~inside, 3] == 0).all() and np.array_equal(cut[inside, 3], result[inside, 3])
    saved = files(sd15)
    assert {Path(name).suffix for name in saved} == {".png", ".jpg"}
    assert np.array_equal(pixels(saved["00002-11-mask-composite.png"]), cut)
    assert pixels(saved["00001-11-mask.jpg"]).shape[-1] == 3


def test_cut_outs_of_opaque_frames_stay(sd15) -> None:
    fields = {"init_images": [picture(seed=5)], "image_mask": mask(), "batch_size": 3, **ONE}
    with sd15.settings(return_mask_composite=True):
        outcome = run(sd15, JOINT, do_not_save_grid=True, **fields)
    assert outcome.modes == ["RGBA", "RGBA", "RGB", "RGBA", "RGB", "RGBA"] and not sd15.errors
    alphas = [values[16:48, 16:48, 3] for values in outcome.arrays[1::2]]
    assert np.ptp(alphas[0]) > 0 and all((alpha == 255).all() for alpha in alphas[1:])


@pytest.mark.parametrize("alpha", [True, False])
def test_the_start_picture_is_saved_as_it_was_given(sd15, alpha) -> None:
    start = picture(seed=5, alpha=alpha)
    start.info["parameters"] = "where it came from"
    with sd15.settings(save_init_img=True):
        run(sd15, SINGLE, init_images=[start], **ONE)
    (path,) = (path for path in files(sd15).values() if path.parent.name == "init-images")
    found = pixels(path)
    assert found.shape[-1] == len(start.mode)
    assert np.abs(found.astype(int) - np.asarray(start)).max() <= (0 if alpha else 1)
    with Image.open(path) as saved:
        assert saved.info["parameters"] == "where it came from"
