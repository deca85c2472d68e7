"""How well the layers of one set fit together: decibels and shares of one set, and their medians over many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.methods import BACKGROUND, BLENDED, FOREGROUND, Method

SMALLEST_ERROR = 1e-10  # of the mean square: pictures that are equal have 100 dB
INVISIBLE, SOLID = 0.05, 0.95  # alpha below and above which a pixel is background or foreground alone
FEWEST = 0.01  # share of the pixels that a figure is measured on at least
EMPTY, FULL = 0.02, 0.95  # mean alpha of a foreground that is nothing, or everything
QUARTILES = (25, 50, 75)
Layers = Mapping[str, np.ndarray]


def composite(foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """RGBA over RGBA whose alpha does not count, [H,W,4] in [0,1] -> [H,W,3]."""
    alpha = foreground[..., 3:]
    return foreground[..., :3] * alpha + background[..., :3] * (1 - alpha)


def decibel(one: np.ndarray, other: np.ndarray, where: np.ndarray | None = None) -> float | None:
    """PSNR of two pictures [H,W,3+] in [0,1], of the pixels `where` [H,W] alone; None where those are too few."""
    squares = np.square(one[..., :3].astype(np.float64) - other[..., :3])
    if where is not None:
        if where.mean() < FEWEST:
            return None
        squares = squares[where]
    return float(-10 * np.log10(max(squares.mean(), SMALLEST_ERROR)))


def fitting(layers: Layers, _alpha: np.ndarray | None) -> float | None:
    """Foreground over background against the blended picture, dB."""
    return decibel(composite(layers[FOREGROUND], layers[BACKGROUND]), layers[BLENDED])


def kept_background(layers: Layers, alpha: np.ndarray | None) -> float | None:
    """The given background in the blended picture, where the foreground is not, dB."""
    return None if alpha is None else decibel(layers[BLENDED], layers[BACKGROUND], alpha < INVISIBLE)


def kept_foreground(layers: Layers, alpha: np.ndarray | None) -> float | None:
    """The given foreground in the blended picture, where it is solid, dB."""
    return None if alpha is None else decibel(layers[BLENDED], layers[FOREGROUND], alpha > SOLID)


@dataclass(frozen=True)
class Figure:
    """A figure of one set: its name, how a table calls it, for which methods there is one, and how it is measured.

    `measure(layers, alpha)`: alpha [H,W] is the foreground's of the method, also where the layers are plain pictures.
    """

    name: str
    title: str
    holds: Callable[[Method], bool]
    measure: Callable[[Layers, np.ndarray | None], float | None]


def _has(method: Method, *names: str) -> bool:
    return set(names) <= {*method.frames, *method.images}


FIGURES = (
    Figure(
        "composite_psnr",
        "foreground over background against blended, dB",
        lambda method: _has(method, FOREGROUND, BACKGROUND, BLENDED),
        fitting,
    ),
    Figure(
        "background_kept_psnr",
        "given background outside the foreground, dB",
        lambda method: BACKGROUND in method.images and BLENDED in method.frames and _has(method, FOREGROUND),
        kept_background,
    ),
    Figure(
        "foreground_kept_psnr",
        "given foreground inside its alpha, dB",
        lambda method: FOREGROUND in method.images and BLENDED in method.frames,
        kept_foreground,
    ),
)


def figures_of(method: Method, layers: Layers, plain: Layers) -> dict[str, tuple[float | None, float | None]]:
    """The figures of a set and of the plain pictures in its place, by name; both see the method's own alpha."""
    alpha = layers[FOREGROUND][..., 3] if FOREGROUND in layers else None
    rows = [figure for figure in FIGURES if figure.holds(method)]
    return {row.name: (row.measure(layers, alpha), row.measure(plain, alpha)) for row in rows}


def quartiles(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Median and quartiles of those that were measured, and how many these are."""
    measured = [value for value in values if value is not None]
    low, middle, high = np.percentile(measured, QUARTILES) if measured else (None, None, None)
    found = {"median": middle, "lower_quartile": low, "upper_quartile": high}
    return {**{name: None if value is None else float(value) for name, value in found.items()}, "sets": len(measured)}


def shares(alphas: Sequence[float]) -> dict[str, float]:
    """Shares of foregrounds that are empty, everything, and neither, by their mean alpha."""
    means = np.array(alphas)
    empty, full = float((means < EMPTY).mean()), float((means > FULL).mean())
    return {"neither": float(((means >= EMPTY) & (means <= FULL)).mean()), "empty": empty, "everything": full}
