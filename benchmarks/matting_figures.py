"""How far an alpha is from the true one: the figures that matting is measured by. Arrays [H,W] in [0,1].

SAD, MSE, gradient and connectivity error as in Rhemann et al., "A Perceptually Motivated Online Benchmark for Image
Matting", CVPR 2009, over the whole picture, since most methods here know no trimap; sums are in thousands, as usual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from lib_layerdiffuse.core.picture.regions import Regions

THOUSAND = 1000
SIGMA, CUT = 1.4, 0.01  # of the derivatives of a Gaussian, and the value below which they end
STEPS, UNCONNECTED = 10, 0.15  # of connectivity: thresholds, and the distance that is no longer taken for connected
SOFT = (12 / 255, 243 / 255)
VISIBLE = 12 / 255


def sad(alpha: np.ndarray, truth: np.ndarray) -> float:
    """Sum of absolute differences, in thousands."""
    return float(np.abs(alpha - truth).sum() / THOUSAND)


def mse(alpha: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared difference."""
    return float(np.square(alpha - truth).mean())


def mae(alpha: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute difference."""
    return float(np.abs(alpha - truth).mean())


def gradient_error(alpha: np.ndarray, truth: np.ndarray) -> float:
    """Sum of squared differences of the gradients' lengths, in thousands."""
    return float(np.square(gradient(alpha) - gradient(truth)).sum() / THOUSAND)


def gradient(alpha: np.ndarray) -> np.ndarray:
    """Length of the gradient [H,W], by first derivatives of a Gaussian of unit energy; edges go on outside."""
    half = math.ceil(SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * SIGMA * CUT)))
    place = np.arange(-half, half + 1)
    smooth = np.exp(-np.square(place) / (2 * SIGMA**2)) / (SIGMA * math.sqrt(2 * math.pi))
    slope = -place * smooth / SIGMA**2
    energy = math.sqrt(np.square(smooth).sum() * np.square(slope).sum())
    across = _filtered(_filtered(alpha, slope, 1), smooth, 0) / energy
    down = _filtered(_filtered(alpha, smooth, 1), slope, 0) / energy
    return np.hypot(across, down)


def _filtered(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    half = len(weights) // 2
    padded = np.pad(values, [(half, half) if each == axis else (0, 0) for each in (0, 1)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis=axis)
    return windows @ weights[::-1]


def connectivity_error(alpha: np.ndarray, truth: np.ndarray) -> float:
    """Sum of differences of the degrees of connectedness with what is solid in both, in thousands."""
    connected_to = np.full(alpha.shape, -1.0)
    for step in range(1, STEPS + 1):
        lost = ~largest_region((alpha >= step / STEPS) & (truth >= step / STEPS)) & (connected_to < 0)
        connected_to[lost] = (step - 1) / STEPS
    connected_to[connected_to < 0] = 1
    return float(np.abs(_degree(alpha - connected_to) - _degree(truth - connected_to)).sum() / THOUSAND)


def _degree(beyond: np.ndarray) -> np.ndarray:
    return 1 - beyond * (beyond >= UNCONNECTED)


def largest_region(mask: np.ndarray) -> np.ndarray:
    """The largest region of a bool mask [H,W] whose pixels touch across sides."""
    regions = Regions.of(mask)
    if not len(regions.sizes):
        return np.zeros_like(mask)
    return regions.mask(np.arange(len(regions.sizes)) == regions.sizes.argmax())


def soft_error(alpha: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute difference where the true alpha is from 12 to 243 of 255; no number where it nowhere is."""
    soft = (truth >= SOFT[0]) & (truth <= SOFT[1])
    return float(np.abs(alpha - truth)[soft].mean()) if soft.any() else math.nan


def soft_share(alpha: np.ndarray) -> float:
    """Share of what is visible (alpha from 12 of 255 on) that is soft (up to 243)."""
    visible = alpha >= VISIBLE
    return float((alpha[visible] <= SOFT[1]).mean()) if visible.any() else 0.0


def see_through_share(alpha: np.ndarray) -> float:
    """Share of what is visible that is soft and has only soft neighbours: glass and smoke, not edges and thin lines."""
    visible, soft = alpha >= VISIBLE, (alpha >= SOFT[0]) & (alpha <= SOFT[1])
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(soft, 1, mode="edge"), (3, 3))
    return float(windows.all(axis=(2, 3)).sum() / visible.sum()) if visible.any() else 0.0


def opacity(alpha: np.ndarray) -> float:
    """Mean alpha of what is visible (from 12 of 255 on); 0 where nothing is."""
    visible = alpha >= VISIBLE
    return float(alpha[visible].mean()) if visible.any() else 0.0


FIGURES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "SAD": sad,
    "MSE": mse,
    "gradient": gradient_error,
    "connectivity": connectivity_error,
    "MAE": mae,
    "soft": soft_error,
}
