"""From latents and pixels to layers, and alpha on what other scripts made of a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.running import picture, run
from PIL import Image

from lib_layerdiffuse.core.errors import InputError


@pytest.fixture(autouse=True)
def webui(make_webui):
    """The modules of a running WebUI."""
    return make_webui("a1111", "sd15")


@pytest.fixture
def keeping():
    """The module, which is imported with a WebUI running."""
    from lib_layerdiffuse.webui.saving import keeping as module

    return module


@pytest.fixture
def pictures():
    """The module, which is imported with a WebUI running."""
    from lib_layerdiffuse.webui.jobs import pictures as module

    return module


@pytest.fixture
def layer(pictures):
    """A layer of 64 pixels whose own colours differ from the opaque ones."""
    return pictures.Layer("foreground", picture(seed=4, alpha=False), picture(seed=5))


def test_an_untouched_picture_is_ours(keeping, layer) -> None:
    assert keeping.with_alpha(layer.opaque.copy(), layer) is layer.rgba


def test_rounding_is_no_change(keeping, layer) -> None:
    rounded = Image.fromarray((np.asarray(layer.opaque, np.int16) + 1).clip(0, 255).astype(np.uint8))
    assert keeping.with_alpha(rounded, layer) is layer.rgba


def test_what_a_script_painted_is_theirs_with_our_alpha(keeping, layer) -> None:
    theirs = layer.opaque.copy()
    theirs.paste((255, 0, 255), (10, 10, 30, 30))
    values, ours = np.asarray(keeping.with_alpha(theirs, layer)), np.asarray(layer.rgba)
    assert (values[12:28, 12:28, :3] == (255, 0, 255)).all()
    assert np.array_equal(values[..., 3], ours[..., 3]) and np.array_equal(values[32:], ours[32:])


@pytest.mark.parametrize("size", [(128, 128), (96, 128)])
@pytest.mark.parametrize("shown", [True, False], ids=["on another colour", "colours go on beneath"])
def test_alpha_at_a_larger_size_follows_colours_where_they_show_it(keeping, pictures, size, shown) -> None:
    """Where the background shows the edge of the colours is alpha's; where they do not, they would only disturb it."""
    rows, columns = np.mgrid[:64, :64]
    alpha = Image.fromarray((((rows - 31.5) ** 2 + (columns - 31.5) ** 2 < 400) * 255).astype(np.uint8))
    inside, stripes = Image.new("RGB", (64, 64), (200, 40, 40)), np.where((rows + columns) % 16 < 8, 220, 30)
    striped = Image.fromarray(np.repeat(stripes[..., None], 3, axis=2).astype(np.uint8))
    opaque = Image.composite(inside, Image.new("RGB", (64, 64), (30, 60, 200)), alpha) if shown else striped
    layer = pictures.Layer("foreground", opaque, keeping.banded(opaque, alpha))
    colour = opaque.resize(size, Image.Resampling.LANCZOS)
    guided, plain = (way(alpha, opaque, colour) for way in (keeping.guided, keeping.enlarged))
    result = keeping.with_alpha(colour, layer)
    assert np.array_equal(np.asarray(result)[..., 3], np.asarray(guided if shown else plain))
    assert not np.array_equal(np.asarray(guided), np.asarray(plain)) and result.size == size


def test_alpha_at_a_smaller_size_is_the_mean_of_what_it_covers(keeping, layer) -> None:
    result = keeping.with_alpha(layer.opaque.resize((32, 32)), layer)
    wanted = np.asarray(layer.rgba)[..., 3].reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert np.abs(np.asarray(result)[..., 3] - wanted).max() <= 1


def test_somebody_elses_alpha_is_kept(keeping, layer) -> None:
    theirs = picture(seed=9)
    assert keeping.with_alpha(theirs, layer) is theirs


@pytest.mark.parametrize(
    "latents", [None, [], torch.zeros(2, 4, 8, 8), (1, 2, 3)], ids=lambda value: type(value).__name__
)
def test_latents_that_are_not_there(pictures, latents) -> None:
    with pytest.raises(InputError, match="for 3 pictures"):
        pictures.check_latents(latents, 3)


def test_latents_that_fit(pictures) -> None:
    latents = torch.zeros(3, 4, 8, 8)
    assert pictures.check_latents(latents, 3) is latents


@pytest.mark.parametrize(("setting", "wanted"), [("As in the accordion", 2), ("4", 4)])
def test_passes_of_the_settings_go_before_those_of_the_job(webui, pictures, monkeypatch, setting, wanted) -> None:
    seen = []
    original = pictures.passes_of
    monkeypatch.setattr(pictures, "passes_of", lambda job: seen.append(original(job)) or seen[-1])
    with webui.settings(layerdiffuse_passes=setting):
        run(webui, {"method": "sd15_fg", "passes": 2}, steps=1)
    assert seen == [wanted]


def test_progress_is_shown(webui, monkeypatch) -> None:
    told = []
    monkeypatch.setattr(
        type(webui.state), "__setattr__", lambda self, name, value: told.append(value) if name == "textinfo" else None
    )
    run(webui, {"method": "sd15_fg", "passes": 8}, steps=1)
    assert any(str(text).startswith("Decoding transparency: 8 of 8") for text in told)
