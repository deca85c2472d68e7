"""Line drawings of pictures, white on black: what a ControlNet for edges or scribbles is given.

Gradients of colour and alpha, thinned across the line and kept where they are strong or hang together with strong
ones (J. Canny, A Computational Approach to Edge Detection, 1986), for a whole batch at once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LOW, HIGH = 0.04, 0.1  # of the change from black to white over a sharp border
NEAR = 5  # pixels: the window in which a line of a picture counts as one that was asked for
FOLLOWED = 16  # pixels by which a weak line is followed from a strong one
# offsets (y, x) of the neighbour across the line, by the gradient's direction in steps of 45 degrees
ACROSS = ((0, 1), (1, 1), (1, 0), (1, -1))


def edge_maps(pictures: torch.Tensor, low: float = LOW, high: float | torch.Tensor = HIGH) -> torch.Tensor:
    """Lines [B,1,H,W], 0 or 1, of pictures [B,3 or 4,H,W] in [0,1]; the fourth channel is alpha, and counts as much.

    `low` and `high` are the thresholds of weak and strong lines; `high` may be one a picture, [B].
    """
    across, down = _gradients(_smooth(_planes(pictures.float())))
    strength, plane = (across.square() + down.square()).sqrt().max(dim=1, keepdim=True)
    thin = _thinned(strength, across.gather(1, plane), down.gather(1, plane))
    high = torch.as_tensor(high, dtype=thin.dtype, device=thin.device).reshape(-1, 1, 1, 1)
    return _followed(thin, low * high / HIGH, high)


def thick_lines(lines: torch.Tensor, width: int = 3) -> torch.Tensor:
    """Lines [B,1,H,W] made `width` pixels wide (odd): as drawn by hand."""
    return F.max_pool2d(lines, width, stride=1, padding=width // 2)


def followed(lines: torch.Tensor, pictures: torch.Tensor) -> float:
    """Share in [0,1] of `lines` [B,1,H,W] that have a line of the picture [B,3 or 4,H,W] within two pixels."""
    near = thick_lines(edge_maps(pictures.to(lines.device)), NEAR)
    return ((near * lines).sum() / lines.sum().clamp(min=1)).item()


def _planes(pictures: torch.Tensor) -> torch.Tensor:
    """Colours, and where there is alpha also that; colours count as much as they are seen."""
    if pictures.shape[1] == 3:
        return pictures
    alpha = pictures[:, 3:]
    return torch.cat([pictures[:, :3] * alpha + 0.5 * (1 - alpha), alpha], dim=1)


def _smooth(planes: torch.Tensor) -> torch.Tensor:
    """A Gaussian of deviation 1, over five pixels each way."""
    row = torch.tensor([0.0545, 0.2442, 0.4026, 0.2442, 0.0545], device=planes.device)
    count = planes.shape[1]
    padded = F.pad(planes, (2, 2, 2, 2), mode="replicate")
    wide = F.conv2d(padded, row.reshape(1, 1, 1, 5).expand(count, 1, 1, 5), groups=count)
    return F.conv2d(wide, row.reshape(1, 1, 5, 1).expand(count, 1, 5, 1), groups=count)


def _gradients(planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sobel's, across and down, such that a border from 0 to 1 gives about 0.8."""
    slope = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=planes.device) / 4
    count = planes.shape[1]
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    across, down = (F.conv2d(padded, side.expand(count, 1, 3, 3), groups=count) for side in (slope, slope.T))
    return across, down


def _thinned(strength: torch.Tensor, across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """The strengths that no neighbour across the line exceeds, zero elsewhere."""
    direction = (torch.atan2(down, across) / (torch.pi / 4)).round().long() % 4
    padded = F.pad(strength, (1, 1, 1, 1))
    height, width = strength.shape[-2:]
    peak = torch.zeros_like(strength, dtype=torch.bool)
    for number, (y, x) in enumerate(ACROSS):
        after = padded[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width]
        before = padded[..., 1 - y : 1 - y + height, 1 - x : 1 - x + width]
        peak |= (direction == number) & (strength > after) & (strength >= before)
    return strength * peak


def _followed(thin: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Strong lines, and the weak ones that hang together with them."""
    weak, kept = (thin > low).float(), (thin > high).float()
    for _ in range(FOLLOWED):
        kept = F.max_pool2d(kept, 3, stride=1, padding=1) * weak
    return kept
