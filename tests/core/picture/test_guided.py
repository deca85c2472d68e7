"""Guided upsampling against bicubic on the held-out pictures, and its shapes and limits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lib_layerdiffuse.core.picture.alpha import composite_on_grey, to_tensor
from lib_layerdiffuse.core.picture.guided import guided_upsampling

HELD_OUT = Path(__file__).parents[2] / "data" / "held_out"


@pytest.fixture(scope="module")
def held_out() -> torch.Tensor:
    """Every fourth of the held-out pictures, [36,4,128,128]."""
    paths = sorted(HELD_OUT.glob("*.webp"))[::4]
    pictures = [Image.open(path).convert("RGBA").resize((128, 128), Image.Resampling.BOX) for path in paths]
    return to_tensor(pictures)


def halved(picture: torch.Tensor) -> torch.Tensor:
    return F.interpolate(picture, scale_factor=0.5, mode="area")


def mean_error(alpha: torch.Tensor, truth: torch.Tensor) -> float:
    return (alpha - truth).abs().mean().item()


def test_edges_come_out_much_better_than_bicubic(held_out):
    alpha, large = held_out[:, 3:], composite_on_grey(held_out)
    small_alpha = halved(alpha)
    bicubic = F.interpolate(small_alpha, scale_factor=2, mode="bicubic").clamp(0, 1)
    guided = guided_upsampling(small_alpha, halved(large), large)
    assert mean_error(guided, alpha) < 0.6 * mean_error(bicubic, alpha)
    assert mean_error(guided, alpha) < 0.007


@pytest.mark.parametrize(("small", "large"), [((4, 6), (8, 12)), ((5, 7), (13, 9)), ((1, 1), (4, 4)), ((6, 6), (6, 6))])
def test_any_size_and_batch(small, large):
    generator = torch.Generator().manual_seed(0)
    alpha, guide = torch.rand(2, 1, *small, generator=generator), torch.rand(2, 3, *small, generator=generator)
    result = guided_upsampling(alpha, guide, torch.rand(2, 3, *large, generator=generator))
    assert result.shape == (2, 1, *large)
    assert torch.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("alpha", [0.0, 1.0, 0.3])
def test_an_even_alpha_stays_even_whatever_the_picture(alpha):
    guide, large = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 16, 16)
    result = guided_upsampling(torch.full((1, 1, 8, 8), alpha), guide, large)
    torch.testing.assert_close(result, torch.full((1, 1, 16, 16), alpha), atol=1e-4, rtol=0)


def test_clear_and_solid_places_stay_exact_away_from_edges():
    alpha = torch.zeros(1, 1, 16, 16)
    alpha[..., 8:] = 1
    generator = torch.Generator().manual_seed(0)
    small, large = torch.rand(1, 3, 16, 16, generator=generator), torch.rand(1, 3, 32, 32, generator=generator)
    result = guided_upsampling(alpha, small, large)
    assert (result[..., :14] == 0).all() and (result[..., 18:] == 1).all()


def test_an_edge_falls_where_the_large_picture_has_it():
    """A boundary inside of a small pixel: only the large picture knows where."""
    large = torch.zeros(1, 3, 32, 32)
    large[..., 17:] = 1
    truth = large[:, :1]
    result = guided_upsampling(halved(truth), halved(large), large)
    assert (result - truth).abs().max() < 0.05
    blurred = F.interpolate(halved(truth), scale_factor=2, mode="bicubic").clamp(0, 1)
    assert (blurred - truth).abs().max() > 0.3


def test_an_even_picture_gives_no_sharper_alpha_than_it_was():
    alpha = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    result = guided_upsampling(alpha, torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 16, 16), 0.5))
    steps = result[0, 0, 8].diff()
    assert (steps >= -1e-4).all() and steps.max() < 0.2
