"""Line drawings of pictures."""

from __future__ import annotations

import torch

from lib_layerdiffuse.core.picture.edges import edge_maps, thick_lines


def square(channels: int = 3, side: int = 32) -> torch.Tensor:
    picture = torch.zeros(1, channels, side, side)
    picture[..., 8:24, 8:24] = 1
    return picture


def test_the_border_of_a_square_is_one_thin_closed_line():
    lines = edge_maps(square())
    assert lines.shape == (1, 1, 32, 32) and set(lines.unique().tolist()) == {0.0, 1.0}
    assert not lines[..., 12:20, 12:20].any() and not lines[..., :6, :].any()
    across = lines[0, 0, 16]
    assert across.sum() == 2 and across.nonzero().flatten().tolist() in ([7, 23], [8, 24], [7, 24], [8, 23])


def test_alpha_counts_where_colours_tell_nothing():
    hidden = torch.full((1, 4, 32, 32), 0.5)
    hidden[:, 3:] = square(1)
    assert edge_maps(hidden).sum() > 40
    assert not edge_maps(hidden[:, :3]).any()


def test_colours_of_the_same_brightness_are_told_apart():
    picture = torch.full((1, 3, 32, 32), 0.3)
    picture[:, 0, :, 16:], picture[:, 1, :, 16:] = 0.6, 0.15
    assert edge_maps(picture).sum() >= 30


def test_weak_lines_stay_only_where_they_hang_together_with_strong_ones():
    picture = torch.zeros(1, 3, 48, 32)
    picture[:, :, :, 16:] = torch.linspace(0.3, 0.07, 48)[:, None]
    alone = torch.zeros(1, 3, 48, 32)
    alone[:, :, :, 16:] = 0.08
    assert edge_maps(picture)[0, 0, 38:].sum() >= 8
    assert not edge_maps(alone).any()
    assert edge_maps(torch.cat([alone, alone]), high=torch.tensor([0.05, 0.5])).flatten(1).any(dim=1).tolist() == [
        True,
        False,
    ]


def test_lines_are_made_thick():
    line = torch.zeros(1, 1, 9, 9)
    line[..., 4] = 1
    assert thick_lines(line)[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
