"""Connected regions of a mask, without a loop over pixels.

Every row of the mask is cut into runs; runs that touch in neighbouring rows are joined, smallest number first
(He, Chao and Suzuki, "A Run-Based Two-Scan Labeling Algorithm", IEEE Transactions on Image Processing 17(5), 2008; here
all joins of a round at once).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Regions:
    """Regions 0, 1, ... of a mask [H,W]: `labels` int32 [H,W], -1 outside of the mask; size and place of each."""

    labels: np.ndarray
    sizes: np.ndarray  # pixels
    at_border: np.ndarray  # bool: touches an edge of the picture

    @classmethod
    def of(cls, mask: np.ndarray) -> Regions:
        """Of a bool mask [H,W]; pixels are neighbours across sides, not across corners."""
        H, W = mask.shape
        padded = np.zeros((H, W + 1), np.int8)
        padded[:, :W] = mask
        change = np.diff(padded.ravel(), prepend=0)
        starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
        names, of_run = np.unique(_joined(len(starts), *_touching(starts, ends, W + 1)), return_inverse=True)
        labels = np.full(H * (W + 1), -1, np.int32)
        labels[padded.ravel() == 1] = np.repeat(of_run.astype(np.int32), ends - starts)
        labels = np.ascontiguousarray(labels.reshape(H, W + 1)[:, :W])
        sizes = np.bincount(of_run, weights=ends - starts, minlength=len(names)).astype(np.int64)
        edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        at_border = np.zeros(len(names), bool)
        at_border[edges[edges >= 0]] = True
        return cls(labels, sizes, at_border)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of `values` [H,W] in each region."""
        inside = self.labels >= 0
        return np.bincount(self.labels[inside], weights=values[inside], minlength=len(self.sizes)) / self.sizes

    def highest(self, values: np.ndarray) -> np.ndarray:
        """The highest of `values` [H,W], none negative, in each region."""
        inside = self.labels >= 0
        highest = np.zeros(len(self.sizes), values.dtype)
        np.maximum.at(highest, self.labels[inside], values[inside])
        return highest

    def mask(self, chosen: np.ndarray) -> np.ndarray:
        """Bool [H,W]: the pixels of the regions for which `chosen` (bool, one a region) holds."""
        return np.append(chosen, False)[self.labels]


def _touching(starts: np.ndarray, ends: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs (upper, lower) that share a column in neighbouring rows; rows are `stride` places apart."""
    first = np.searchsorted(ends, starts + stride, side="right")
    count = np.maximum(np.searchsorted(starts, ends + stride, side="left") - first, 0)
    upper = np.repeat(np.arange(len(starts)), count)
    within = np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count)
    return upper, np.repeat(first, count) + within


def _joined(runs: int, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The smallest run [runs] that each run is connected with."""
    root = np.arange(runs)
    while True:
        one, other = root[upper], root[lower]
        open_pairs = one != other
        if not open_pairs.any():
            return root
        upper, lower, one, other = (part[open_pairs] for part in (upper, lower, one, other))
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while True:  # every run points at its root again
            nearer = root[root]
            if (nearer == root).all():
                break
            root = nearer
