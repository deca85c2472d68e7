"""Repairs of a decoded RGBA picture, each optional: haze, interior holes, grey seams at edges, too low an opacity.

Published decoders sometimes take an interior white for background, leave the grey they were trained on in the colour of
edges, or keep a solid thing slightly see-through. The opaque picture, as the VAE decoded it, is the witness: a picture
with alpha a and colour F was painted on a plain grey background B, so it must show a * F + (1 - a) * B. Where it has no
such background (codecs that see padded colours, such as the demo model's), the picture is left as it is.

RGBA is float [B,4,H,W], opaque pictures [B,3,H,W], all in [0,1], straight alpha; the inputs are not changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import InputError
from .alpha import GREY
from .regions import Regions

CLEAR, SOLID = 0.05, 0.8  # alpha below which a pixel shows the background alone, and above which it closes a region
SAME_COLOUR, PLAIN_SHARE, LEAST_PIXELS = 0.1, 0.8, 16  # a background is plain when so many of its pixels are alike
NEAR_GREY = 0.15
SMOOTHNESS, SMALL, SMALL_ROUNDS, ROUNDS = 1e-5, 32, 10, 4  # of the colour estimate; ROUNDS above SMALL pixels
KEPT, FARTHER = 0.98, 1.1  # the decoder's own colour stays from this alpha on, and where it is about as far from grey
PLATEAU_WIDTH, VISIBLE, HIGHEST = 0.04, 0.1, 0.97
WITNESSES = 0.03  # share of a thing's pixels that must show that it is more opaque than its alpha says
HAZE, REAL = 3, 16  # levels of 255: fainter is haze, unless a gradient ends there; a speck that stays below is haze too
SPECK = 64  # pixels, one place of the latent: the largest region that is a speck
GENTLE, GENTLE_TOP = 16, 40  # levels: range of 3x3 pixels on a soft gradient, and up to where its faint end is sought
REACH, LEAST_REACH = 16, 4  # a faint end goes on for a 16th of the picture, and for 4 pixels at least


@dataclass(frozen=True)
class AlphaCare:
    """Which repairs are wanted; none by default."""

    rescue_opacity: bool = False
    fill_holes: bool = False
    remove_fringe: bool = False
    clear_haze: bool = False

    def __bool__(self) -> bool:
        return self.rescue_opacity or self.fill_holes or self.remove_fringe or self.clear_haze


def care_for(rgba: torch.Tensor, opaque: torch.Tensor, care: AlphaCare) -> torch.Tensor:
    """RGBA [B,4,H,W] and its opaque picture [B,3,H,W] -> RGBA with the wanted repairs, one after another."""
    _check(rgba, opaque)
    if not care:
        return rgba
    result, seen = rgba.cpu(), opaque.cpu()  # small work, and not every device knows all of it
    if care.rescue_opacity:
        result = rescue_opacity(result, seen)
    if care.fill_holes:
        result = fill_holes(result, seen)
    if care.remove_fringe:
        result = remove_fringe(result, seen)
    if care.clear_haze:
        result = clear_haze(result)
    return result.to(rgba.device)


# --- haze


def clear_haze(rgba: torch.Tensor, opaque: torch.Tensor | None = None) -> torch.Tensor:
    """Makes alpha of 1 and 2 of 255 nothing and of 253 and 254 solid, but where a soft gradient comes to its end.

    Faint specks, regions of at most 64 pixels that stay below 16 of 255, go too. Colours stay; what the VAE
    decoded is not looked at.
    """
    _check(rgba, opaque)
    cleared = [_without_haze(one[3].float().cpu()) for one in rgba]
    return torch.cat([rgba[:, :3], torch.stack(cleared)[:, None].to(rgba)], dim=1) if cleared else rgba


def _without_haze(alpha: torch.Tensor) -> torch.Tensor:
    levels = (alpha * 255 + 1e-3).floor()  # as a file will have them
    empty = (levels < HAZE) & ~_end_of_gradient(levels) | _specks(levels)
    solid = (levels > 255 - HAZE) & ~_end_of_gradient(255 - levels)
    return alpha.masked_fill(empty, 0).masked_fill(solid, 1)


def _specks(levels: torch.Tensor) -> torch.Tensor:
    """Bool [H,W]: small regions above haze that are nowhere really visible."""
    regions = Regions.of((levels >= HAZE).numpy())
    faint = regions.highest(levels.numpy()) < REAL
    return torch.from_numpy(regions.mask(faint & (regions.sizes <= SPECK)))


def _end_of_gradient(levels: torch.Tensor) -> torch.Tensor:
    """Bool [H,W]: near a gentle slope, real or large, that falls to 0; an edge is steep, and haze has no slope."""
    around = levels[None]
    spread = (F.max_pool2d(around, 3, 1, padding=1) + F.max_pool2d(-around, 3, 1, padding=1))[0]
    regions = Regions.of(((levels >= HAZE) & (levels <= GENTLE_TOP) & (spread <= GENTLE)).numpy())
    real = (regions.highest(levels.numpy()) >= REAL) | (regions.sizes > SPECK)
    if not real.any():
        return torch.zeros_like(levels, dtype=torch.bool)
    return _grown(torch.from_numpy(regions.mask(real)), max(LEAST_REACH, max(levels.shape) // REACH))


def _grown(region: torch.Tensor, distance: int) -> torch.Tensor:
    """Bool [H,W], larger by `distance` pixels on every side, in steps that double."""
    wide, step = region[None].float(), 1
    while distance > 0:
        step = min(step, distance)
        wide = F.max_pool2d(F.pad(wide, (step,) * 4), 3, stride=1, dilation=step)
        distance, step = distance - step, 2 * step
    return wide[0] > 0


# --- interior holes


def fill_holes(
    rgba: torch.Tensor, opaque: torch.Tensor | None = None, largest: float = 0.5, proof: float = 0.7
) -> torch.Tensor:
    """Makes enclosed see-through regions opaque where the opaque picture shows that they are no background.

    A region is filled when it is shut in by pixels of alpha 0.8 or more, takes at most the share `largest` of the
    picture, has a mean alpha below 0.5, and `least_alpha` of it is at least `proof` on average. Its colour is then the
    opaque picture's; in the solid pixels around it the change fades out. Without `opaque` every enclosed region is
    filled, holes that are meant too, with the colour that it has.
    """
    _check(rgba, opaque)
    pictures = opaque if opaque is not None else [None] * len(rgba)
    filled = [_filled(one, picture, largest, proof) for one, picture in zip(rgba, pictures, strict=True)]
    return torch.stack(filled) if filled else rgba


def _filled(rgba: torch.Tensor, opaque: torch.Tensor | None, largest: float, proof: float) -> torch.Tensor:
    alpha = rgba[3].float().cpu()
    regions = Regions.of((alpha < SOLID).numpy())
    chosen = ~regions.at_border & (regions.sizes <= largest * alpha.numel())
    chosen &= regions.mean(alpha.numpy()) < 0.5
    if opaque is not None and chosen.any():
        seen = opaque.float().cpu()
        outside = torch.from_numpy(regions.mask(regions.at_border)) & (alpha < CLEAR)
        background = grey_background(seen, outside)
        if background is None:
            return rgba
        chosen &= regions.mean(least_alpha(seen, background).numpy()) >= proof
    if not chosen.any():
        return rgba
    change = _soft_edged(torch.from_numpy(regions.mask(chosen)), alpha >= SOLID).to(rgba)
    colour = rgba[:3] if opaque is None else torch.lerp(rgba[:3], opaque.to(rgba), change)
    return torch.cat([colour, rgba[3:] + (1 - rgba[3:]) * change])


def _soft_edged(region: torch.Tensor, solid: torch.Tensor) -> torch.Tensor:
    """Bool [H,W] -> float: 1 in the region, fading out within three pixels where it is `solid`, else 0."""
    wide = F.max_pool2d(region[None].float(), 5, stride=1, padding=2)
    soft = F.avg_pool2d(wide, 3, stride=1, padding=1, count_include_pad=False)[0]
    return torch.where(region, torch.ones_like(soft), soft * solid)


def grey_background(opaque: torch.Tensor, outside: torch.Tensor) -> torch.Tensor | None:
    """The colour [3,1,1] of the picture [3,H,W] where `outside` (bool [H,W]) holds; None where it is not plain grey."""
    colours = opaque[:, outside]
    if colours.shape[1] < LEAST_PIXELS:
        return None
    median = colours.median(dim=1, keepdim=True).values
    alike = ((colours - median).abs().amax(dim=0) <= SAME_COLOUR).float().mean()
    plain = alike >= PLAIN_SHARE and (median - GREY).abs().max() <= NEAR_GREY
    return median[..., None] if plain else None


def least_alpha(opaque: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """The lowest alpha [H,W] with which some colour in [0,1] on `background` [3,1,1] can look like `opaque` [3,H,W]."""
    away = opaque - background
    room = torch.where(away > 0, 1 - background, background)
    return (away.abs() / room).amax(dim=0).clamp(0, 1)


# --- grey seams


def remove_fringe(rgba: torch.Tensor, opaque: torch.Tensor) -> torch.Tensor:
    """Takes the background's colour out of partly transparent pixels; alpha stays.

    Their colour is estimated anew from the opaque picture and its grey background. A seam pulls colours towards grey,
    so the estimate counts where it is farther from it; elsewhere, and in solid pixels, the decoder's colour stays.
    """
    _check(rgba, opaque)
    repaired = [_without_fringe(one, picture) for one, picture in zip(rgba, opaque, strict=True)]
    return torch.stack(repaired) if repaired else rgba


def _without_fringe(rgba: torch.Tensor, opaque: torch.Tensor) -> torch.Tensor:
    seen, alpha = opaque.to(rgba).float(), rgba[3:].float()
    background = grey_background(seen, alpha[0] < CLEAR)
    if background is None or bool((alpha < CLEAR).all()):
        return rgba
    colour = estimate_foreground(seen[None], alpha[None], background[None])[0].to(rgba)
    away, was_away = ((part - background).abs().sum(dim=0) for part in (colour, rgba[:3]))
    seam = (alpha < KEPT) & (away > FARTHER * was_away)
    return torch.cat([torch.where(seam, colour, rgba[:3]), rgba[3:]])


def estimate_foreground(image: torch.Tensor, alpha: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Colour [B,3,H,W] of what lies with `alpha` [B,1,H,W] on the known `background` [B,3,1,1] in `image` [B,3,H,W].

    Least squares on a * F + (1 - a) * B = I with F smooth where alpha changes, from one pixel up to the whole picture,
    as in Germer, Uelwer, Conrad and Harmeling, "Fast Multi-Level Foreground Estimation" (arXiv 2006.14970); there B is
    estimated too, here it is known, and all pixels of a round are done at once.
    """
    H, W = image.shape[-2:]
    solid = (alpha > 0.9).to(image)
    colour = (image * solid).sum((2, 3), keepdim=True) / solid.sum((2, 3), keepdim=True).clamp_min(1e-6)
    levels = max(1, math.ceil(math.log2(max(H, W))))
    for level in range(levels + 1):
        size = [max(1, round(side ** (level / levels))) for side in (H, W)]
        small, a, colour = (F.interpolate(part, size, mode="nearest") for part in (image, alpha, colour))
        own = a * (small - (1 - a) * background)
        weights = [SMOOTHNESS + (beside - a).abs() for beside in _neighbours(a)]
        total = a * a + sum(weights)
        for _ in range(SMALL_ROUNDS if max(size) <= SMALL else ROUNDS):
            around = sum(weight * beside for weight, beside in zip(weights, _neighbours(colour), strict=True))
            colour = ((own + around) / total).clamp(0, 1)
    return colour


def _neighbours(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The values above, below, left and right of each place; beyond the edge they go on as at the edge."""
    wide = F.pad(values, (1, 1, 1, 1), mode="replicate")
    return wide[..., :-2, 1:-1], wide[..., 2:, 1:-1], wide[..., 1:-1, :-2], wide[..., 1:-1, 2:]


# --- opacity


def rescue_opacity(
    rgba: torch.Tensor, opaque: torch.Tensor | None = None, lowest: float = 0.5, share: float = 0.5
) -> torch.Tensor:
    """Scales alpha so that a solid thing's plateau is 1; a picture without plateau below 1 is given back as it is.

    A plateau is an alpha from `lowest` to 0.97 with at least `share` of the visible pixels (edges left out) within 0.04
    of it, and hardly any above. The opaque picture must show that it is too low: in some places (3% of the thing)
    `least_alpha` comes nearer to 1. Without `opaque` a plateau is enough, and an evenly clear glass becomes opaque.
    """
    _check(rgba, opaque)
    pictures = opaque if opaque is not None else [None] * len(rgba)
    factors = [1 / (_too_low(one[3], two, lowest, share) or 1) for one, two in zip(rgba, pictures, strict=True)]
    scale = torch.tensor(factors).to(rgba)[:, None, None, None]
    return torch.cat([rgba[:, :3], (rgba[:, 3:] * scale).clamp(0, 1)], dim=1)


def _too_low(alpha: torch.Tensor, opaque: torch.Tensor | None, lowest: float, share: float) -> float | None:
    """The plateau of `alpha` [H,W] when it is from `lowest` to 0.97 and not what the opaque picture shows."""
    alpha = alpha.float()
    core = -F.max_pool2d(-alpha[None], 5, stride=1, padding=2)[0] > VISIBLE  # edges left out
    level = plateau(alpha[core], share)
    if level is None or not lowest <= level <= HIGHEST:
        return None
    if opaque is None:
        return level
    seen = opaque.to(alpha)
    background = grey_background(seen, alpha < CLEAR)
    if background is None:
        return None
    witnesses = least_alpha(seen, background)[core] >= (1 + level) / 2
    return level if witnesses.float().mean() >= WITNESSES else None


def plateau(alpha: torch.Tensor, share: float = 0.5) -> float | None:
    """The alpha within 0.04 of which at least `share` of these values [N] lie, with hardly any above; None without."""
    if len(alpha) < LEAST_PIXELS:
        return None
    top = alpha.kthvalue(max(1, round(0.98 * len(alpha)))).values
    level = alpha[(alpha - top).abs() <= 2 * PLATEAU_WIDTH].median()
    near = ((alpha - level).abs() <= PLATEAU_WIDTH).float().mean()
    return level.item() if near >= share else None


def _check(rgba: torch.Tensor, opaque: torch.Tensor | None) -> None:
    if rgba.ndim != 4 or rgba.shape[1] != 4:
        raise InputError(f"a tensor {list(rgba.shape)}", "RGBA [B,4,H,W]", "pass R,G,B,A pictures")
    wanted = [len(rgba), 3, *rgba.shape[2:]]
    if opaque is not None and list(opaque.shape) != wanted:
        raise InputError(f"an opaque picture {list(opaque.shape)}", f"{wanted}", "pass what the VAE decoded")
