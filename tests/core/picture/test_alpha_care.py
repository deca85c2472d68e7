"""Each repair on the fault that it is for, and on pictures that it must leave alone."""

from __future__ import annotations

import time

import pytest
import torch

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.picture.alpha import composite_on_grey, from_tensor, trim_box
from lib_layerdiffuse.core.picture.alpha_care import (
    AlphaCare,
    care_for,
    clear_haze,
    estimate_foreground,
    fill_holes,
    grey_background,
    least_alpha,
    plateau,
    remove_fringe,
    rescue_opacity,
)

ALL = AlphaCare(True, True, True, True)


def disc(size: int, radius: float, soft: float = 1.0) -> torch.Tensor:
    """Float [size,size]: 1 in a disc in the middle, falling to 0 over `soft` pixels."""
    place = torch.arange(size) - (size - 1) / 2
    distance = (place[:, None].square() + place.square()).sqrt()
    return ((radius - distance) / soft + 0.5).clamp(0, 1)


def thing(size: int = 96, soft: float = 1.0, colour: tuple[float, ...] = (0.9, 0.2, 0.1)) -> torch.Tensor:
    """[1,4,size,size]: a disc of `colour` with a white spot in its middle."""
    spot = disc(size, size / 8)
    rgb = torch.tensor(colour)[:, None, None] * (1 - spot) + spot
    return torch.cat([rgb, disc(size, size / 3, soft)[None]])[None]


def with_hole(rgba: torch.Tensor, radius: float | None = None) -> torch.Tensor:
    """The same with its middle made transparent, by default where the white spot is."""
    size = rgba.shape[-1]
    hole = rgba.clone()
    hole[:, 3] *= 1 - disc(size, radius or size / 8)
    return hole


def with_alpha(rgba: torch.Tensor, factor: float | torch.Tensor) -> torch.Tensor:
    return torch.cat([rgba[:, :3], rgba[:, 3:] * factor], dim=1)


def with_seam(rgba: torch.Tensor) -> torch.Tensor:
    return torch.cat([composite_on_grey(rgba), rgba[:, 3:]], dim=1)


def edge_error(rgba: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean colour error where the true alpha is neither 0 nor 1, weighted with it."""
    alpha = truth[:, 3:]
    weight = alpha * ((alpha > 0.02) & (alpha < 0.98))
    return (((rgba - truth)[:, :3].abs() * weight).sum() / weight.sum() / 3).item()


# --- the witness


def test_least_alpha_of_white_black_and_mixed_colours():
    grey = torch.full((3, 1, 1), 0.5)
    colours = torch.tensor([[1.0, 1, 1], [0, 0, 0], [0.5, 0.5, 0.5], [0.75, 0.5, 0.4]]).T[:, :, None]
    torch.testing.assert_close(least_alpha(colours, grey)[:, 0], torch.tensor([1.0, 1.0, 0.0, 0.5]))


def test_no_picture_contradicts_its_own_alpha():
    rgba = torch.rand(1, 4, 20, 20, generator=torch.Generator().manual_seed(0))
    grey = torch.full((3, 1, 1), 0.5)
    assert (least_alpha(composite_on_grey(rgba)[0], grey) <= rgba[0, 3] + 1e-5).all()


@pytest.mark.parametrize(("colour", "plain"), [(0.5, True), (0.45, True), (0.9, False), (0.1, False)])
def test_only_a_grey_background_is_a_witness(colour, plain):
    everywhere = torch.ones(10, 10, dtype=torch.bool)
    assert (grey_background(torch.full((3, 10, 10), colour), everywhere) is not None) == plain
    assert grey_background(torch.rand(3, 10, 10), everywhere) is None
    assert grey_background(torch.full((3, 10, 10), 0.5), ~everywhere) is None


# --- holes


def test_interior_white_that_turned_transparent_is_filled():
    truth = thing()
    broken = with_hole(truth)
    assert (broken - truth)[:, 3].abs().mean() > 0.04
    mended = fill_holes(broken, composite_on_grey(truth))
    assert (mended - truth)[:, 3].abs().max() < 0.02
    on_black = (mended[:, :3] * mended[:, 3:] - truth[:, :3] * truth[:, 3:]).abs()
    assert on_black.max() < 0.02


def test_a_hole_that_shows_the_background_stays():
    ring = with_hole(thing())
    assert torch.equal(fill_holes(ring, composite_on_grey(ring)), ring)


def test_without_opaque_picture_every_hole_is_filled():
    ring = with_hole(thing())
    assert fill_holes(ring)[0, 3, 48, 48] == 1
    assert torch.equal(fill_holes(ring, largest=0.01), ring)


def test_what_is_open_to_the_outside_stays():
    truth = thing()
    broken = with_hole(truth)
    broken[:, 3, 46:50, :48] = 0
    assert torch.equal(fill_holes(broken, composite_on_grey(truth)), broken)


def test_windows_that_are_half_clear_stay():
    truth = thing()
    window = with_alpha(truth, 1 - 0.4 * disc(96, 12))
    assert torch.equal(fill_holes(window, composite_on_grey(truth)), window)


def test_the_outer_edge_behind_a_thin_wall_stays_soft():
    truth = thing()
    broken = with_hole(truth, radius=29)  # a wall of 3 pixels
    mended = fill_holes(broken, composite_on_grey(truth))
    assert mended[0, 3, 48, 48] == 1
    outside = disc(96, 32) == 0
    assert torch.equal(mended[0, 3][outside], broken[0, 3][outside])


def test_padded_pictures_are_no_witness():
    ring = with_hole(thing())
    assert torch.equal(fill_holes(ring, ring[:, :3]), ring)


# --- seams


@pytest.mark.parametrize("soft", [2.0, 6.0, 20.0])
def test_a_grey_seam_goes(soft):
    truth = thing(soft=soft)
    seam = with_seam(truth)
    mended = remove_fringe(seam, composite_on_grey(truth))
    assert edge_error(mended, truth) < 0.25 * edge_error(seam, truth)
    assert torch.equal(mended[:, 3], seam[:, 3])
    solid = truth[:, 3:].expand(-1, 3, -1, -1) == 1
    assert torch.equal(mended[:, :3][solid], seam[:, :3][solid])


def test_colours_without_seam_stay():
    truth = thing(soft=6)
    mended = remove_fringe(truth, composite_on_grey(truth))
    assert edge_error(mended, truth) < 0.005


def test_a_soft_picture_on_a_known_background_is_solved_exactly():
    generator = torch.Generator().manual_seed(0)
    colour = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4, generator=generator), (64, 64), mode="bilinear")
    alpha = torch.linspace(0.05, 0.95, 64).expand(1, 1, 64, 64)
    image = colour * alpha + 0.3 * (1 - alpha)
    estimate = estimate_foreground(image, alpha, torch.full((1, 3, 1, 1), 0.3))
    assert ((estimate - colour).abs() * alpha).mean() < 0.005


def test_no_grey_background_no_change():
    seam = with_seam(thing(soft=6))
    assert torch.equal(remove_fringe(seam, seam[:, :3] * 0 + 0.9), seam)
    assert torch.equal(
        remove_fringe(torch.zeros(1, 4, 32, 32), torch.full((1, 3, 32, 32), 0.5)), torch.zeros(1, 4, 32, 32)
    )


# --- opacity


@pytest.mark.parametrize("opacity", [0.6, 0.8, 0.9])
def test_a_solid_thing_that_came_out_see_through_is_made_solid(opacity):
    truth = thing()
    faint = with_alpha(truth, opacity)
    for mended in (rescue_opacity(faint), rescue_opacity(faint, composite_on_grey(truth))):
        assert (mended - truth).abs().max() < 0.01


def test_a_dull_thing_may_be_see_through_and_stays():
    """Colours that the grey background could shine through prove nothing."""
    faint = with_alpha(thing(colour=(0.6, 0.5, 0.4)), 0.8)
    faint[:, :3] = faint[:, :3].clamp(max=0.6)
    assert torch.equal(rescue_opacity(faint, composite_on_grey(with_alpha(faint, 1.25))), faint)


def test_a_thing_that_is_see_through_stays_so():
    glass = with_alpha(thing(), 0.7)
    assert torch.equal(rescue_opacity(glass, composite_on_grey(glass)), glass)
    assert rescue_opacity(glass)[0, 3].max() == 1  # nobody can tell without the opaque picture


@pytest.mark.parametrize("opacity", [1.0, 0.98, 0.3])
def test_plateaus_near_one_and_faint_things_stay(opacity):
    rgba = with_alpha(thing(), opacity)
    assert torch.equal(rescue_opacity(rgba), rgba)


def test_smoke_has_no_plateau():
    smoke = with_alpha(thing(soft=30), torch.linspace(0.1, 0.9, 96))
    assert torch.equal(rescue_opacity(smoke), smoke)
    assert plateau(torch.linspace(0, 1, 1000)) is None and plateau(torch.zeros(3)) is None
    assert plateau(torch.full((100,), 0.7)) == pytest.approx(0.7)


# --- haze


def levels(alpha: torch.Tensor) -> torch.Tensor:
    """A picture [1,4,H,W] whose alpha [H,W] is given in levels of 255."""
    return torch.cat([torch.full((3, *alpha.shape), 0.5), alpha[None].float() / 255])[None]


def alpha_levels(rgba: torch.Tensor) -> torch.Tensor:
    return (rgba[0, 3] * 255 + 1e-3).floor()


def hazy(kind: str, size: int = 128) -> torch.Tensor:
    """A solid disc with haze around it and in it: everywhere, or in random places."""
    solid = disc(size, size / 4)
    generator = torch.Generator().manual_seed(0)
    noise = {"even": torch.full((size, size), 2.0), "noise": torch.randint(0, 3, (size, size), generator=generator)}
    return levels((solid * 255).round().clamp(min=noise[kind], max=255 - noise[kind]))


@pytest.mark.parametrize("kind", ["even", "noise"])
def test_haze_becomes_nothing_and_almost_solid_solid(kind):
    before, after = hazy(kind), clear_haze(hazy(kind))
    was, now = alpha_levels(before), alpha_levels(after)
    assert ((was > 0) & (was < 3)).float().mean() > 0.3
    assert set(now.unique().tolist()) - set(range(3, 253)) <= {0, 255}
    between = (was >= 3) & (was <= 252)
    assert torch.equal(after[0, 3][between], before[0, 3][between]) and torch.equal(after[:, :3], before[:, :3])


def test_haze_no_longer_keeps_a_picture_from_being_trimmed():
    before, after = (from_tensor(rgba)[0] for rgba in (hazy("noise"), clear_haze(hazy("noise"))))
    assert before.getchannel("A").getbbox() == (0, 0, 128, 128)
    assert after.getchannel("A").getbbox() == trim_box(before) == trim_box(after)


@pytest.mark.parametrize(("side", "level", "gone"), [(8, 15, True), (9, 15, False), (8, 16, False), (1, 3, True)])
def test_only_small_faint_specks_go(side, level, gone):
    """A square of `side` pixels; the faint thing that is larger may be meant."""
    alpha = torch.zeros(128, 128)
    alpha[20 : 20 + side, 30 : 30 + side] = level
    assert (alpha_levels(clear_haze(levels(alpha))).max() == 0) == gone


GLOWS = {
    "linear": lambda r, wide: (1 - r / (2 * wide)).clamp(0, 1),
    "gauss": lambda r, wide: torch.exp(-((r / wide) ** 2) / 2),
    "around a disc": lambda r, wide: torch.exp(-(((r - 20).clamp(min=0) / wide) ** 2) / 2),
}


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("kind", GLOWS)
def test_glow_keeps_its_faint_end(kind, strength):
    """To the bit but for a step of at most 1.5 levels, which nobody sees, where the end goes on for ever."""
    place = torch.arange(256) - 127.5
    alpha = GLOWS[kind]((place[:, None].square() + place.square()).sqrt(), 26) * strength
    before = torch.cat([torch.full((3, 256, 256), 0.5), alpha[None]])[None]
    change = ((clear_haze(before) - before)[0, 3] * 255).abs()
    low = (alpha * 255 >= 1) & (alpha * 255 < 3)
    assert low.any() and change.max() <= 1.5 and (change[low] == 0).float().mean() > 0.6


def test_a_soft_end_of_solid_stays_as_an_end_of_nothing_does():
    ramp = torch.linspace(0, 255, 400).round().repeat(60, 1)
    assert torch.equal(clear_haze(levels(ramp)), levels(ramp))


def test_haze_right_beside_a_hard_edge_goes():
    alpha = torch.zeros(64, 64)
    alpha[:, 32:], alpha[:, 30:32], alpha[:, 28:30] = 255, 2, 1
    assert set(alpha_levels(clear_haze(levels(alpha))).unique().tolist()) == {0, 255}


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (67, 33)])
@pytest.mark.parametrize("level", [0, 2, 15, 128, 253, 255])
def test_haze_of_any_size_and_level(size, level):
    result = clear_haze(levels(torch.full(size, level)))
    assert result.shape == (1, 4, *size)
    assert ((result[0, 3] >= 0) & (result[0, 3] <= 1)).all()


def test_clearing_haze_twice_changes_no_more():
    once = clear_haze(hazy("noise"))
    assert torch.equal(clear_haze(once), once)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_haze_in_half_precision_and_in_an_empty_batch(dtype):
    assert clear_haze(hazy("even").to(dtype)).dtype == dtype
    assert clear_haze(torch.zeros(0, 4, 8, 8, dtype=dtype)).shape == (0, 4, 8, 8)


@pytest.mark.parametrize("shape", [(4, 8, 8), (1, 3, 8, 8)])
def test_haze_of_what_is_no_picture_is_refused(shape):
    with pytest.raises(InputError, match="RGBA"):
        clear_haze(torch.zeros(shape))


# --- all of it


def test_all_is_off_by_default():
    assert AlphaCare() == AlphaCare(False, False, False, False) and not AlphaCare() and ALL
    broken = with_seam(with_hole(with_alpha(thing(), 0.8)))
    assert torch.equal(care_for(broken, composite_on_grey(thing()), AlphaCare()), broken)


def test_issue_65_47_102_33_c45_three_faults_at_once():
    truth = thing(soft=6, colour=(1.0, 0.2, 0.1))
    broken = with_hole(with_alpha(with_seam(truth), 0.8))
    mended = care_for(broken, composite_on_grey(truth), ALL)
    assert (mended - truth)[:, 3].abs().mean() < 0.005
    assert edge_error(mended, truth) < 0.3 * edge_error(broken, truth)


def test_pictures_of_a_batch_do_not_touch_each_other():
    truth = torch.cat([thing(), thing(colour=(0.1, 0.4, 0.9))])
    broken = torch.cat([with_hole(with_alpha(truth[:1], 0.8)), with_seam(truth[1:])])
    together = care_for(broken, composite_on_grey(truth), ALL)
    apart = [care_for(broken[i : i + 1], composite_on_grey(truth[i : i + 1]), ALL) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (64, 40)])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, None])
def test_every_size_and_alpha(size, alpha):
    rgba = torch.rand(2, 4, *size, generator=torch.Generator().manual_seed(0))
    if alpha is not None:
        rgba[:, 3] = alpha
    before = rgba.clone()
    mended = care_for(rgba, composite_on_grey(rgba), ALL)
    assert mended.shape == rgba.shape and mended.dtype == rgba.dtype
    assert mended.min() >= 0 and mended.max() <= 1
    assert torch.equal(rgba, before)


def test_half_precision():
    truth = thing(soft=6)
    mended = care_for(with_hole(with_seam(truth)).half(), composite_on_grey(truth).half(), ALL)
    assert mended.dtype == torch.float16 and (mended - truth)[:, 3].abs().mean() < 0.005


def test_an_empty_batch():
    assert care_for(torch.zeros(0, 4, 8, 8), torch.zeros(0, 3, 8, 8), ALL).shape == (0, 4, 8, 8)


@pytest.mark.parametrize(
    ("rgba", "opaque"), [((1, 3, 8, 8), (1, 3, 8, 8)), ((4, 8, 8), (3, 8, 8)), ((1, 4, 8, 8), (1, 3, 8, 9))]
)
def test_wrong_shapes_are_typed_errors(rgba, opaque):
    with pytest.raises(InputError):
        care_for(torch.zeros(rgba), torch.zeros(opaque), ALL)


def test_a_large_picture_takes_no_more_than_seconds():
    """About 0.5 s of one core for all three; the limit leaves room for slow machines."""
    truth = thing(1024, soft=12)
    broken = with_hole(with_alpha(with_seam(truth), 0.8))
    start = time.process_time()
    care_for(broken, composite_on_grey(truth), ALL)
    assert time.process_time() - start < 6
