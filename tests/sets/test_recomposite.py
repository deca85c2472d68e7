"""Recomposite: any editor blends the saved layers to the blended picture, exactly where that is a composite."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from examples import noise, same
from PIL import Image

from lib_layerdiffuse.sets.formats import pack_set, save_set
from lib_layerdiffuse.sets.layer_set import Layer, LayerSet, set_of_frames
from lib_layerdiffuse.sets.reading import read_set
from lib_layerdiffuse.sets.recomposite import recomposited
from lib_layerdiffuse.sets.save_options import SaveOptions

SIZE = 64


def over(background: Image.Image, foreground: Image.Image) -> np.ndarray:
    """An editor's 8-bit blending."""
    below, above = (np.asarray(image).astype(float) for image in (background, foreground))
    alpha = above[..., 3:] / 255
    return np.rint(above[..., :3] * alpha + below[..., :3] * (1 - alpha)).astype(np.uint8)


def true_set(**foreground) -> LayerSet:
    """A blended picture that is a composite, of other colours than the foreground that the set has."""
    background, painted = noise(SIZE, SIZE).convert("RGB"), noise(SIZE, SIZE, 1)
    blended = Image.fromarray(over(background, painted))
    other = noise(SIZE, SIZE, 2)
    other.putalpha(painted.getchannel("A"))
    made = set_of_frames({"background": background, "foreground": other, "blended": blended})
    return made.with_layers([made.layers[0], replace(made.layers[1], **foreground)])


def test_a_true_composite_is_met_exactly():
    made = true_set()
    found = recomposited(made)
    assert math.isinf(found.decibels) and found.decibels_before < 20 and "exactly" in found.note
    shown = found.layer_set.visible
    assert np.array_equal(over(shown[0].picture, shown[1].picture), np.asarray(made.blended)[..., :3])
    assert np.array_equal(shown[1].picture.getchannel("A"), made.layers[1].picture.getchannel("A"))
    assert np.abs(np.asarray(found.layer_set.composite()).astype(int) - np.asarray(made.blended)).max() <= 1


def test_what_was_painted_stays_in_the_file_hidden():
    made = true_set()
    background, painted, solved = recomposited(made).layer_set.layers
    assert background is made.layers[0] and painted == replace(made.layers[1], visible=False)
    assert solved.visible and solved.name == "Foreground (recomposited)" and solved.role == "foreground"


def test_pixels_that_were_right_are_left_alone():
    background, foreground = noise(SIZE, SIZE).convert("RGB"), noise(SIZE, SIZE, 1)
    blended = Image.fromarray(over(background, foreground))
    made = set_of_frames({"background": background, "foreground": foreground, "blended": blended})
    found = recomposited(made)
    assert found.layer_set.layers == made.layers and found.decibels == found.decibels_before == math.inf


def test_what_is_no_composite_is_told_in_decibels():
    made = replace(true_set(), blended=noise(SIZE, SIZE, 5).convert("RGB"))
    found = recomposited(made)
    assert found.decibels_before < found.decibels < 40 and f"{found.decibels:.1f} dB" in found.note
    assert np.array_equal(found.layer_set.visible[1].picture.getchannel("A"), made.layers[1].picture.getchannel("A"))


def test_opacity_and_offsets_count():
    made = true_set()
    top = replace(made.layers[1], picture=made.layers[1].picture.crop((0, 0, 40, 40)), left=-8, top=50, opacity=0.5)
    moved = made.with_layers([made.layers[0], top])
    target = np.array(moved.composite())
    target[50:, :20, :3] //= 2  # darker where the layer lies
    found = recomposited(replace(moved, blended=Image.fromarray(target)))
    assert found.decibels > found.decibels_before and found.layer_set.layers[2].box == top.box


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (replace(true_set(), blended=None), "no blended picture"),
        (true_set(visible=False), "a background and a layer on it"),
        (LayerSet(4, 4, [Layer("a", noise(4, 4)), Layer("b", noise(4, 4))], noise(4, 4)), "is not opaque"),
    ],
)
def test_what_cannot_be_recomposited_is_left_and_told(made, reason):
    found = recomposited(made)
    assert found.layer_set is made and reason in found.note and found.decibels is None


@pytest.mark.parametrize("options", [{}, {"trim": True, "threshold": 1}, {"trim": True, "padding": 2, "threshold": 1}])
def test_the_file_blends_to_the_picture_in_another_program(options):
    psd_tools = pytest.importorskip("psd_tools")
    made = true_set()
    packed = pack_set(made, "psd", SaveOptions(recomposite=True, **options))
    document = psd_tools.PSDImage.open(io.BytesIO(packed.content))
    assert [layer.name for layer in document] == ["Background", "Foreground", "Foreground (recomposited)", "Blended"]
    assert [layer.visible for layer in document] == [True, False, True, False]
    shown = np.asarray(document.composite(force=True).convert("RGB")).astype(int)
    assert np.abs(shown - np.asarray(made.blended)[..., :3]).max() <= 1
    assert "exactly" in packed.notes[0] and same(document[3].topil(), made.blended)


def test_the_blended_picture_may_be_left_out(tmp_path):
    saved = save_set(true_set(), tmp_path, "a", "ora", SaveOptions(keep_blended=False))
    assert read_set(saved.path).blended is None and saved.notes == ()


@pytest.mark.filterwarnings("error")  # dividing by an alpha of 0 is one
def test_colours_are_solved_for_the_opacity_and_left_alone_where_nothing_shows():
    made = true_set(opacity=0.5)
    alpha = np.array(made.layers[1].picture.getchannel("A")) / 510
    clear = alpha == 0
    blended = np.array(made.blended)
    blended[clear, :3] ^= 255  # what was painted there is not what lies below
    made = replace(made, blended=Image.fromarray(blended))
    before, solved = (np.asarray(layers.layers[-1].picture) for layers in (made, recomposited(made).layer_set))
    assert clear.any() and np.array_equal(before[clear], solved[clear]) and not np.array_equal(before, solved)
    ground, wanted = (np.asarray(image)[..., :3].astype(float) for image in (made.layers[0].picture, made.blended))
    alpha = alpha[..., None]
    exact = (wanted - ground * (1 - alpha)) / np.maximum(alpha, 1e-9)
    inside = (exact >= 0) & (exact <= 255) & (alpha > 0)
    shown = np.rint(solved[..., :3] * alpha + ground * (1 - alpha))
    assert inside.any() and np.array_equal(shown[inside], wanted[inside])
