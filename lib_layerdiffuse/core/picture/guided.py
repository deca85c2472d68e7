"""Guided upsampling: an alpha follows a picture that was enlarged, edges on edges.

He and Sun, "Fast Guided Filter" (arXiv 1505.00996), with a colour guide: within a window, alpha is a linear function of
the small picture's colour; the function's coefficients, enlarged, are applied to the large picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

RADIUS, EPSILON = 1, 1e-4  # the best of those tried on the held-out pictures
NEAR = 1 / 255


def guided_upsampling(alpha: torch.Tensor, small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
    """Alpha [B,1,h,w] of the picture `small` [B,3,h,w] -> alpha [B,1,H,W] for `large` [B,3,H,W]; all in [0,1].

    Where the small alpha is all 0 or all 1 around a place, it stays so.
    """
    size = large.shape[-2:]
    weights, offset = _local_model(alpha, small)
    weights, offset = (F.interpolate(part, size=size, mode="bilinear") for part in (weights, offset))
    guided = ((weights * large).sum(1, keepdim=True) + offset).clamp(0, 1)
    lowest, highest = (F.interpolate(part, size=size, mode="nearest") for part in _range(alpha))
    guided = torch.where(highest <= NEAR, torch.zeros_like(guided), guided)
    return torch.where(lowest >= 1 - NEAR, torch.ones_like(guided), guided)


def _local_model(alpha: torch.Tensor, guide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [B,3,h,w] and offset [B,1,h,w] of alpha = weights * guide + offset, by least squares in each window."""
    mean_guide, mean_alpha = _mean(guide), _mean(alpha)
    pairs = (guide.unsqueeze(1) * guide.unsqueeze(2)).flatten(1, 2)  # [B,9,h,w]
    covariance = _mean(pairs) - (mean_guide.unsqueeze(1) * mean_guide.unsqueeze(2)).flatten(1, 2)
    shared = _mean(guide * alpha) - mean_guide * mean_alpha
    matrix = covariance.unflatten(1, (3, 3)).permute(0, 3, 4, 1, 2) + EPSILON * torch.eye(3, device=guide.device)
    weights = torch.linalg.solve(matrix, shared.permute(0, 2, 3, 1).unsqueeze(-1)).squeeze(-1).permute(0, 3, 1, 2)
    offset = mean_alpha - (weights * mean_guide).sum(1, keepdim=True)
    return _mean(weights), _mean(offset)


def _mean(values: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(values, 2 * RADIUS + 1, stride=1, padding=RADIUS, count_include_pad=False)


def _range(alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lowest and highest alpha [B,1,h,w] in the 3x3 places around each."""
    highest = F.max_pool2d(alpha, 3, stride=1, padding=1)
    return -F.max_pool2d(-alpha, 3, stride=1, padding=1), highest
