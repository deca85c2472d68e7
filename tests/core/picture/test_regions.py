"""Connected regions of a mask, compared with a flood fill."""

from __future__ import annotations

import numpy as np
import pytest

from lib_layerdiffuse.core.picture.regions import Regions


def flood(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Connected regions the slow way."""
    left, found = {tuple(place) for place in np.argwhere(mask)}, []
    while left:
        region, open_places = set(), [left.pop()]
        while open_places:
            y, x = open_places.pop()
            region.add((y, x))
            beside = {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & left
            left -= beside
            open_places += beside
        found.append(region)
    return found


@pytest.mark.parametrize("share", [0.3, 0.55, 0.6, 0.9])
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (23, 31)])
def test_regions_are_those_of_a_flood_fill(size, share):
    mask = np.random.default_rng(round(share * 100)).random(size) < share
    regions = Regions.of(mask)
    expected = flood(mask)
    assert len(regions.sizes) == len(expected) and sorted(regions.sizes) == sorted(map(len, expected))
    for region in expected:
        (label,) = {int(regions.labels[place]) for place in region}
        edge = any(y in (0, size[0] - 1) or x in (0, size[1] - 1) for y, x in region)
        assert label >= 0 and regions.at_border[label] == edge
    assert ((regions.labels >= 0) == mask).all()


def test_regions_do_not_go_on_in_the_next_row():
    mask = np.array([[0, 0, 1], [1, 0, 0]], bool)
    assert len(Regions.of(mask).sizes) == 2


def test_a_spiral_is_one_region():
    mask = np.zeros((41, 41), bool)
    for ring in range(0, 20, 2):
        mask[ring, ring : 41 - ring] = mask[40 - ring, ring : 41 - ring] = True
        mask[ring : 41 - ring, ring] = mask[ring : 41 - ring, 40 - ring] = True
        mask[ring + 1, ring], mask[ring + 2, ring : ring + 3] = False, True
    assert len(Regions.of(mask).sizes) == len(flood(mask))


def test_means_and_masks_of_regions():
    mask = np.array([[1, 1, 0, 1]], bool)
    regions = Regions.of(mask)
    np.testing.assert_allclose(regions.mean(np.array([[1.0, 3.0, 9.0, 5.0]])), [2, 5])
    np.testing.assert_array_equal(regions.mask(np.array([False, True])), [[0, 0, 0, 1]])
    assert not Regions.of(np.zeros((3, 4), bool)).mask(np.zeros(0, bool)).any()
