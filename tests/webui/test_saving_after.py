"""What leaves a WebUI after the job: scripts that work on finished pictures, masks, the Extras tab."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakes.running import Outcome, picture, run
from fakes.saving import JOINT, ONE, SINGLE, files, hide_text, mask, pixels
from fakes.scripts import ALWAYS_VISIBLE, Script
from fakes.webui import make_module
from PIL import Image, ImageDraw

from lib_layerdiffuse.core.methods import find_method

# --- after the job


class AfterJob(Script):
    """Works on the finished pictures, and saves by itself, as face swappers do."""

    edit = staticmethod(lambda image: image)

    def show(self, is_img2img):
        return ALWAYS_VISIBLE

    def postprocess(self, p, processed):
        first = processed.index_of_first_image
        for place, image in enumerate(processed.images[first:]):
            made = self.edit(image.convert("RGB"))
            processed.images[first + place] = made
            text, seed = processed.infotexts[first + place], p.all_seeds[place]
            if p.save_samples():
                p.webui.images.save_image(made, p.outpath_samples, "", seed, "", "jpg", info=text, p=p, suffix="-new")


def swapped(image: Image.Image) -> Image.Image:
    """A part is new."""
    result = image.copy()
    ImageDraw.Draw(result).rectangle((20, 20, 30, 30), fill="red")
    return result


def enlarged(image: Image.Image) -> Image.Image:
    return image.resize((128, 128), Image.LANCZOS)


def after_job(webui, edit, is_saved: bool = True, layer=JOINT) -> Outcome:
    """A joint job with such a script."""
    webui.extra_scripts = [type("After", (AfterJob,), {"edit": staticmethod(edit)})]
    webui.reload_ui()
    count = len(find_method(layer["method"]).frames)
    return run(webui, layer, steps=1, batch_size=count, do_not_save_samples=not is_saved)


@pytest.mark.parametrize("is_saved", [True, False])
@pytest.mark.parametrize("edit", [swapped, enlarged])
def test_t_reactor_382_what_scripts_make_after_the_job_has_alpha(sd15, edit, is_saved) -> None:
    wanted = run(sd15, JOINT, steps=1, batch_size=3, do_not_save_samples=True, do_not_save_grid=True)
    outcome = after_job(sd15, edit, is_saved)
    assert outcome.modes == ["RGBA", "RGB", "RGB"] and not sd15.errors and not outcome.note
    values = outcome.arrays[0]
    if edit is swapped:
        assert np.array_equal(values[..., 3], wanted.arrays[0][..., 3])
        inside = values[20:31, 20:31]
        assert (inside[inside[..., 3] > 0][:, :3] == (255, 0, 0)).all()
    else:
        assert values.shape == (128, 128, 4) and np.ptp(values[..., 3]) > 100
    new = [path for name, path in files(sd15).items() if "-new" in name]
    assert len(new) == (3 if is_saved else 0)
    if is_saved:
        assert new[0].name.endswith("-new-foreground.png") and np.array_equal(pixels(new[0]), values)


def test_an_opaque_alpha_is_none(sd15) -> None:
    """Forge has made the script's picture RGBA by then, to hide a text in it."""
    wanted = run(sd15, SINGLE, steps=1, do_not_save_samples=True)
    outcome = after_job(sd15, lambda image: swapped(image).convert("RGBA"), layer=SINGLE)
    assert np.array_equal(outcome.arrays[0][..., 3], wanted.arrays[0][..., 3]) and not outcome.note
    (new,) = (path for name, path in files(sd15).items() if "-new" in name)
    assert np.array_equal(pixels(new), outcome.arrays[0])


def test_a_script_that_makes_finished_pictures_opaque_in_place(sd15) -> None:
    class InPlace(AfterJob):
        def postprocess(self, p, processed):
            for image in processed.images:
                image.putalpha(255)

    wanted = run(sd15, JOINT, steps=1, batch_size=3, do_not_save_samples=True, do_not_save_grid=True)
    sd15.extra_scripts = [InPlace]
    sd15.reload_ui()
    outcome = run(sd15, JOINT, steps=1, batch_size=3, do_not_save_samples=True, do_not_save_grid=True)
    assert np.array_equal(outcome.arrays[0], wanted.arrays[0]) and not sd15.errors


def test_a_webui_that_lacks_a_function(sd15, monkeypatch, caplog) -> None:
    monkeypatch.delattr(sys.modules["modules.script_callbacks"], "image_grid_callback")
    sd15.reload_ui()
    assert "image_grid_callback" in caplog.text
    assert run(sd15, SINGLE, steps=1).modes == ["RGBA"] and not sd15.errors


def test_what_is_made_from_no_layer_is_told(sd15) -> None:
    noise = np.random.default_rng(1).integers(0, 2, (64, 64, 3), dtype=np.uint8) * 255
    outcome = after_job(sd15, lambda _image: Image.fromarray(noise), layer=SINGLE)
    assert outcome.modes == ["RGB"] and "-11-new.jpg was saved by another script" in outcome.note
    assert "has no transparency" in outcome.processed.comments and not sd15.errors


def test_a_grid_of_a_script_is_no_layer(sd15) -> None:
    class Gridding(AfterJob):
        def postprocess(self, p, processed):
            grid = processed.images[0].convert("RGB").resize((128, 128))
            processed.images.insert(0, grid)
            processed.index_of_first_image = 1
            p.webui.images.save_image(grid, p.outpath_grids, "grid", 1, "", "png", info="text", p=p, grid=True)

    sd15.extra_scripts = [Gridding]
    sd15.reload_ui()
    outcome = run(sd15, SINGLE, steps=1)
    assert not outcome.note and not sd15.errors
    assert outcome.processed.images[0].mode == "RGB" and pixels(files(sd15)["grid-0000-1.png"]).shape[-1] == 3


# --- masks


class SoftMask(Script):
    """Gives each picture a mask of its own, as soft inpainting does."""

    level = 128

    def show(self, is_img2img):
        return ALWAYS_VISIBLE

    def postprocess_maskoverlay(self, p, told):
        told.mask_for_overlay = Image.new("L", p.mask_for_overlay.size, 255 * told.index)


def test_t_nai_launcher_176_the_mask_of_this_very_picture(sd15) -> None:
    sd15.extra_scripts = [SoftMask]
    sd15.reload_ui()
    start = picture(seed=5)
    outcome = run(sd15, SINGLE, init_images=[start], image_mask=mask(), batch_size=2, do_not_save_grid=True, **ONE)
    assert outcome.modes == ["RGBA"] * 2 and not sd15.errors
    visible = np.asarray(start)[..., 3] > 0
    assert np.array_equal(outcome.arrays[0][visible], np.asarray(start)[visible])  # nothing is painted into the first
    assert not np.array_equal(outcome.arrays[1][:16], np.asarray(start)[:16])  # and the second outside of the mask too


BLANK = [
    Image.new("L", (64, 64)),
    Image.new("RGB", (64, 64)),
    Image.new("RGBA", (64, 64)),
    Image.new("RGBA", (64, 64), (255, 255, 255, 0)),
]


@pytest.mark.parametrize("blank", BLANK, ids=["L", "RGB", "RGBA", "white"])
def test_t_a1111_12898_nothing_is_painted_into_the_mask(sd15, blank) -> None:
    outcome = run(sd15, SINGLE, init_images=[picture(seed=5)], image_mask=blank, **ONE)
    assert outcome.error is None and "nothing is painted into the mask" in outcome.note and not sd15.errors


def test_paint_where_it_is_transparent(sd15) -> None:
    start = picture(seed=5)
    with sd15.settings(layerdiffuse_fill_transparent=True):
        outcome = run(sd15, SINGLE, init_images=[start], image_mask=Image.new("L", (64, 64)), **ONE)
    assert not outcome.note and not sd15.errors
    before, after = np.asarray(start), outcome.arrays[0]
    solid = before[..., 3] == 255
    assert np.array_equal(after[solid], before[solid]) and after[~solid][:, 3].max() > 0


def test_a_painted_mask_goes_before_the_setting(sd15) -> None:
    fields = {"init_images": [picture(seed=5)], "image_mask": mask(), **ONE}
    wanted = run(sd15, SINGLE, **fields)
    with sd15.settings(layerdiffuse_fill_transparent=True):
        outcome = run(sd15, SINGLE, **fields)
    assert np.array_equal(outcome.arrays[0], wanted.arrays[0]) and not outcome.note


# --- the Extras tab, the gallery's buttons


def in_extras(webui, image: Image.Image, kind: str, section: str = "extras") -> Path:
    """Save a picture as the Extras tab does: its texts are one dictionary with those for the file."""
    texts = {key: text for key, text in image.info.items() if isinstance(text, str)}
    image.info = texts
    folder = str(webui.folder / "outputs" / "extras")
    more = {"info": "Upscale: 2", "pnginfo_section_name": section, "existing_info": texts}
    webui.images.save_image(image, folder, "", None, None, kind, **more)
    (path,) = Path(folder).iterdir()
    return path


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.parametrize("text", ["", "a cat\nlayerdiffusion_method: x"])
@pytest.mark.parametrize("section", ["extras", "postprocessing"])
def test_transparent_pictures_of_the_extras_tab(sd15, before_image_saved, kind, text, section) -> None:
    before_image_saved(hide_text)
    image = picture()
    if text:
        image.info["parameters"] = text
    path = in_extras(sd15, image, kind, section)
    assert path.suffix == ".png" and np.array_equal(pixels(path), np.asarray(picture()))
    with Image.open(path) as saved:
        assert set(saved.info) == ({section, "parameters"} if text else {section})


def test_opaque_pictures_of_the_extras_tab_are_not_ours(sd15) -> None:
    assert in_extras(sd15, picture(alpha=False).convert("RGBA"), "jpg").suffix == ".jpg"


def through_extras(webui, image: Image.Image) -> Image.Image:
    """What the script for the Extras tab makes of a picture that nobody changes; its texts are lost on Forge."""
    tab = SimpleNamespace(image=image)
    script = webui.entry.KeepTransparency()
    script.process_firstpass(tab)
    script.process(tab)
    tab.image.info = {}
    return tab.image


@pytest.fixture
def encode(sd15, monkeypatch):
    """The API's own function, after the page has started."""
    module = make_module("modules.api.api", encode_pil_to_base64=sd15.images.encode_pil_to_base64)
    monkeypatch.setitem(sys.modules, "modules.api.api", module)
    sd15.callbacks.fire("app_started", None, None)
    yield lambda image: Image.open(io.BytesIO(base64.b64decode(module.encode_pil_to_base64(image))))
    sd15.callbacks.fire("script_unloaded")
    assert module.encode_pil_to_base64 == sd15.images.encode_pil_to_base64


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_the_api_of_the_extras_tab(sd15, encode, kind) -> None:
    image = picture()
    with sd15.settings(samples_format=kind):
        foreign = encode(image)
        ours = encode(through_extras(sd15, image))
    assert (ours.format, ours.mode) == ("PNG", "RGBA") and np.array_equal(np.asarray(ours), np.asarray(image))
    assert foreign.mode == ("RGBA" if kind == "png" else "RGB")
