"""Figures of layers that fit or do not, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lib_layerdiffuse.core.methods import METHODS, find_method
from lib_layerdiffuse.training.layer_sets.layer_figures import (
    FIGURES,
    composite,
    decibel,
    figures_of,
    quartiles,
    shares,
)
from lib_layerdiffuse.training.layer_sets.set_grids import grid_of_sets, strip


def flat(red: float, alpha: float = 1.0, size: tuple[int, int] = (10, 10)) -> np.ndarray:
    """A picture of one colour and one alpha."""
    pixels = np.zeros((*size, 4), np.float32)
    pixels[..., 0], pixels[..., 3] = red, alpha
    return pixels


def half(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The left half of one picture beside the right half of another."""
    middle = left.shape[1] // 2
    return np.concatenate([left[:, :middle], right[:, middle:]], axis=1)


def of_error(error: float, channels: int = 3) -> float:
    """Decibels of an error in one channel of so many."""
    return 10 * math.log10(channels / error**2)


def test_a_composite_is_the_one_over_the_other():
    assert composite(flat(1.0, 0.25), flat(0.2))[0, 0] == pytest.approx([0.4, 0, 0])


def test_decibels_are_of_the_pixels_asked_for():
    one, other = flat(0.5), half(flat(0.5), flat(0.6))
    assert decibel(one, one) == pytest.approx(100)
    right = np.zeros((10, 10), bool)
    right[:, 5:] = True
    assert decibel(one, other, right) == pytest.approx(of_error(0.1), abs=1e-4)
    assert decibel(one, other) == pytest.approx(of_error(0.1, 6), abs=1e-4)  # half of the pixels are equal
    assert decibel(one, other, ~right) == pytest.approx(100)
    assert decibel(one, other, np.zeros((10, 10), bool)) is None


def test_joint_layers_are_judged_by_their_composite():
    method = find_method("demo_joint")
    foreground = half(flat(1.0, 1.0), flat(0.0, 0.0))
    background, blended = flat(0.2), half(flat(0.9), flat(0.2))
    layers = {"foreground": foreground, "background": background, "blended": blended}
    plain = {"foreground": flat(0.5), "background": flat(0.2), "blended": flat(0.7)}
    found = figures_of(method, layers, plain)
    assert set(found) == {"composite_psnr"}
    # 0.1 off in half of the pixels; a plain picture is opaque, so its composite is itself
    assert found["composite_psnr"] == pytest.approx((of_error(0.1, 6), of_error(0.2)), abs=1e-4)


def test_a_given_background_is_judged_outside_the_foreground():
    foreground = half(flat(1.0, 1.0), flat(1.0, 0.04))
    layers = {"foreground": foreground, "background": flat(0.2), "blended": half(flat(1.0), flat(0.3))}
    plain = {**layers, "foreground": flat(1.0), "blended": flat(0.6)}
    found = figures_of(find_method("demo_bg2fg"), layers, plain)
    assert set(found) == {"composite_psnr", "background_kept_psnr"}
    # the plain picture is judged where the method's foreground is not
    assert found["background_kept_psnr"] == pytest.approx((of_error(0.1), of_error(0.4)), abs=1e-4)


def test_a_given_foreground_is_judged_inside_its_alpha():
    foreground = half(flat(1.0, 0.96), flat(0.0, 0.5))
    layers = {"foreground": foreground, "background": flat(0.2), "blended": half(flat(0.8), flat(0.1))}
    plain = {**layers, "blended": flat(0.5)}
    found = figures_of(find_method("demo_fg2bg"), layers, plain)
    assert set(found) == {"composite_psnr", "foreground_kept_psnr"}
    assert found["foreground_kept_psnr"] == pytest.approx((of_error(0.2), of_error(0.5)), abs=1e-4)


def test_a_foreground_that_is_everything_has_no_outside():
    layers = {"foreground": flat(1.0), "background": flat(0.2), "blended": flat(0.2)}
    found = figures_of(find_method("demo_bg2fg"), layers, layers)
    assert found["background_kept_psnr"] == (None, None)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.id)
def test_which_figures_a_method_has_follows_from_its_row(method):
    known = {*method.frames, *method.images}
    names = {row.name for row in FIGURES if row.holds(method)}
    assert ("composite_psnr" in names) == (len(known) == 3)
    assert ("foreground_kept_psnr" in names) == ("foreground" in method.images and "blended" in method.frames)
    assert not names - {"composite_psnr"} or "blended" in method.frames


def test_quartiles_leave_out_what_was_not_measured():
    found = quartiles([None, 10.0, 20.0, 30.0, 40.0, 50.0])
    assert found == {"median": 30.0, "lower_quartile": 20.0, "upper_quartile": 40.0, "sets": 5}
    assert quartiles([None]) == {"median": None, "lower_quartile": None, "upper_quartile": None, "sets": 0}


def test_shares_of_foregrounds_by_their_mean_alpha():
    assert shares([0.0, 0.019, 0.02, 0.5, 0.95, 0.951, 1.0, 0.3]) == {"neither": 0.5, "empty": 0.25, "everything": 0.25}


def test_a_strip_shows_all_that_is_known_of_a_set():
    layers = {"foreground": flat(1.0, 0.5), "background": flat(0.2), "blended": flat(0.6)}
    cells = np.split(strip(layers), 4, axis=1)
    assert cells[0][0, 0, 0] == pytest.approx(0.5 + 0.5 * 0.45, abs=1e-6)
    assert [cell[0, 0, 0] for cell in cells[1:]] == pytest.approx([0.2, 0.6, 0.6])
    few = np.split(strip({"blended": flat(0.6)}), 4, axis=1)
    assert [cell[0, 0, 1] for cell in few] == pytest.approx([0.5, 0.5, 0, 0.5])
    grid = grid_of_sets([("one", layers), ("two", layers), ("drei \u4e09", layers)])
    assert grid.size == (2 * (40 + 10) + 10, 2 * (10 + 14 + 10) + 10)
