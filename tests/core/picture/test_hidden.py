"""Colours under alpha 0."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.picture.hidden import RULES, with_hidden_colours
from lib_layerdiffuse.standalone.settings import HIDDEN_COLOURS


def picture() -> Image.Image:
    """A red disc with soft edges; green is hidden around it."""
    rows, columns = np.mgrid[:48, :64]
    alpha = np.clip((16 - np.hypot(rows - 24, columns - 32)) * 64, 0, 255).astype(np.uint8)
    values = np.zeros((48, 64, 4), np.uint8)
    values[..., 1] = 255
    values[alpha > 0, :3] = (200, 10, 30)
    values[..., 3] = alpha
    image = Image.fromarray(values)
    image.info["parameters"] = "a text"
    return image


@pytest.mark.parametrize("rule", RULES)
def test_what_is_visible_stays_to_the_level(rule) -> None:
    before, after = picture(), with_hidden_colours(picture(), rule)
    seen = np.asarray(before)[..., 3] > 0
    assert np.array_equal(np.asarray(after)[seen], np.asarray(before)[seen])
    assert np.array_equal(np.asarray(after)[..., 3], np.asarray(before)[..., 3])
    assert after.info == before.info and np.array_equal(np.asarray(before), np.asarray(picture()))


def test_the_rules() -> None:
    hidden = np.asarray(picture())[..., 3] == 0
    found = {rule: np.asarray(with_hidden_colours(picture(), rule))[hidden][:, :3] for rule in RULES}
    assert (found["cleared"] == 0).all() and (found["as-decoded"] == (0, 255, 0)).all()
    assert np.abs(found["padded"].astype(int) - (200, 10, 30)).max() <= 2


def test_padded_is_the_default_and_the_program_knows_the_same_rules() -> None:
    assert np.array_equal(with_hidden_colours(picture()), with_hidden_colours(picture(), "padded"))
    assert tuple(RULES) == HIDDEN_COLOURS


@pytest.mark.parametrize("image", [Image.new("RGB", (4, 4), "red"), Image.new("RGBA", (4, 4), (9, 9, 9, 1))])
def test_nothing_hidden_nothing_done(image) -> None:
    for rule in RULES:
        assert with_hidden_colours(image, rule) is image


def test_nothing_visible_has_no_colour_to_go_on() -> None:
    empty = Image.new("RGBA", (5, 7), (9, 8, 7, 0))
    assert not np.asarray(with_hidden_colours(empty)).any()


def test_an_unknown_rule() -> None:
    with pytest.raises(InputError, match=r"hidden colours 'black'.*expected.*padded"):
        with_hidden_colours(picture(), "black")
