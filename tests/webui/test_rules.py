"""Rules of a WebUI's job that show in values alone: another value, and nothing else, would tell that one is broken."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes.running import picture, run
from PIL import Image

from lib_layerdiffuse.core.codec.codec import TransparencyCodec
from lib_layerdiffuse.core.picture.resize_modes import ResizeMode

GREEN, RED = (0, 255, 0, 255), (255, 0, 0, 255)


def wide() -> Image.Image:
    """Green, twice as wide as high, with red ends that lie outside of its middle square."""
    image = Image.new("RGBA", (128, 64), GREEN)
    for left in (0, 104):
        image.paste(RED, (left, 0, left + 24, 64))
    return image


def stretched() -> Image.Image:
    """`wide` squeezed into a square."""
    return wide().resize((64, 64), Image.Resampling.BOX)


@pytest.mark.parametrize("method", ["sd15_fg2bg", "sd15_bg2fg"])
def test_the_resize_mode_of_a_job_decides_what_its_method_sees(a1111, method) -> None:
    """Cropped, a wide picture is its middle; squeezed, all of it; filled, neither."""
    frame = "fg_image" if method == "sd15_fg2bg" else "bg_image"

    def painted(image: Image.Image, mode: ResizeMode) -> np.ndarray:
        outcome = run(a1111, {"method": method, frame: image, "resize_mode": mode.value}, steps=1, batch_size=2)
        assert outcome.error is None
        return outcome.samples.numpy()

    middle, whole = (painted(image, ResizeMode.STRETCH) for image in (Image.new("RGBA", (64, 64), GREEN), stretched()))
    seen = {mode: painted(wide(), mode) for mode in ResizeMode}
    assert not np.allclose(middle, whole, atol=1e-4)
    assert np.allclose(seen[ResizeMode.CROP], middle, atol=1e-5)
    assert np.allclose(seen[ResizeMode.STRETCH], whole, atol=1e-5)
    assert not np.allclose(seen[ResizeMode.FILL], middle, atol=1e-4)
    assert not np.allclose(seen[ResizeMode.FILL], whole, atol=1e-4)


def test_every_picture_of_a_batch_is_decoded_with_its_own_latent(a1111) -> None:
    """A batch paints what its seeds paint one by one, in its alpha too."""
    together = run(a1111, {"method": "sd15_fg"}, seed=5, batch_size=2, steps=1)
    alone = [run(a1111, {"method": "sd15_fg"}, seed=seed, steps=1).arrays[0].astype(int) for seed in (5, 6)]
    assert np.abs(alone[0] - alone[1])[..., 3].max() > 8
    for whole, one in zip(together.arrays, alone, strict=True):
        assert np.abs(whole - one).max() <= 2


@pytest.mark.parametrize(("setting", "dtype"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_settings_precision_is_what_the_decoder_is_asked_for(a1111, monkeypatch, setting, dtype) -> None:
    """On a CPU it takes float32 whatever it is asked for."""
    asked, to = [], TransparencyCodec.to

    def watched(codec: TransparencyCodec, device, wanted=None) -> TransparencyCodec:
        asked.append(wanted)
        return to(codec, device, wanted)

    monkeypatch.setattr(TransparencyCodec, "to", watched)
    with a1111.settings(layerdiffuse_precision=setting):
        outcome = run(a1111, {"method": "sd15_fg"}, steps=1)
    assert outcome.modes == ["RGBA"] and asked[0] == dtype


def test_inpainting_blends_colours_by_their_alpha(a1111) -> None:
    """Half-way between a red picture and what is invisible and green there is no green, only less red."""
    from lib_layerdiffuse.webui.saving.keeping import blended

    red, invisible = Image.new("RGBA", (4, 4), RED), Image.new("RGBA", (4, 4), (0, 255, 0, 0))
    half = Image.new("L", (4, 4), 128)
    for below, above, alpha in ((red, invisible, 127), (invisible, red, 128)):
        assert np.asarray(blended(below, above, half))[0, 0].tolist() == [255, 0, 0, alpha]
    faint = Image.new("RGBA", (4, 4), (0, 255, 0, 85))  # a third of the weight
    assert np.asarray(blended(red, faint, half))[0, 0, :2].tolist() == pytest.approx([190, 65], abs=1)


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (48, 96)])
def test_the_extras_tabs_crop_to_fit_keeps_the_alpha_of_the_middle(a1111, size) -> None:
    """A wide picture of which only the left end is visible: what is cut out of its middle is invisible."""
    image = wide()
    alpha = Image.new("L", image.size)
    alpha.paste(255, (0, 0, 24, 64))
    image.putalpha(alpha)
    tab, script = SimpleNamespace(image=image), a1111.entry.KeepTransparency()
    script.process_firstpass(tab)
    assert tab.image.mode == "RGB"
    tab.image = Image.new("RGB", size)  # what "Crop to fit" makes
    script.process(tab)
    assert tab.image.size == size and tab.image.getchannel("A").getextrema() == (0, 0)


def test_the_extras_tab_enlarges_alpha_with_the_picture(a1111) -> None:
    image = picture()
    tab, script = SimpleNamespace(image=image), a1111.entry.KeepTransparency()
    script.process_firstpass(tab)
    tab.image = tab.image.resize((128, 128))
    script.process(tab)
    wanted = np.asarray(image.getchannel("A").resize((128, 128), Image.Resampling.BICUBIC), int)
    assert np.abs(np.asarray(tab.image.getchannel("A"), int) - wanted).max() <= 1
