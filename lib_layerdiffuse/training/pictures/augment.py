"""Random views of RGBA tensors: flips, zooms, colour changes, soft alpha and made-up opaque backgrounds.

All draws come from the generator that is passed in, on the CPU, so a run is repeatable from its seed; the pixels are
worked on where they lie.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def draw_batch(rgba: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` random images of uint8 [N,4,S,S] as float [count,4,S,S] in [0,1], flipped, zoomed and recoloured."""
    index = torch.randint(0, len(rgba), (count,), generator=generator)
    batch = rgba[index.to(rgba.device)].float() / 255
    batch = zoom(batch, generator)
    return recolour(batch, generator)


def zoom(rgba: torch.Tensor, generator: torch.Generator, amount: float = 1.0) -> torch.Tensor:
    """Random flip, zoom 0.8 to 1.25 and shift by up to 10%; padded colour continues outside, alpha becomes zero.

    `amount` in [0,1] scales zoom and shift.
    """
    count = len(rgba)
    uniform = lambda low, high: low + (high - low) * torch.rand(count, generator=generator)  # noqa: E731
    scale = 1 + amount * (uniform(0.8, 1.25) - 1)
    flip = (torch.rand(count, generator=generator) < 0.5).float() * 2 - 1
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = flip * scale, scale
    theta[:, 0, 2], theta[:, 1, 2] = amount * uniform(-0.1, 0.1), amount * uniform(-0.1, 0.1)
    grid = F.affine_grid(theta.to(rgba.device), list(rgba.shape), align_corners=False)
    colour = F.grid_sample(rgba[:, :3], grid, mode="bilinear", padding_mode="border", align_corners=False)
    alpha = F.grid_sample(rgba[:, 3:], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.cat([colour, alpha], dim=1)


def recolour(rgba: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """[B,4,S,S] in [0,1]; half of the images get their channels permuted, brightness and contrast changed."""
    count = len(rgba)
    change = torch.rand(count, generator=generator) < 0.5
    order = torch.rand(count, 3, generator=generator).argsort(dim=1)
    order = torch.where(change[:, None], order, torch.arange(3)).to(rgba.device)
    colour = rgba[:, :3].gather(1, order[:, :, None, None].expand(-1, -1, *rgba.shape[2:]))
    gain = torch.where(change, 0.7 + 0.6 * torch.rand(count, generator=generator), torch.ones(count))
    shift = torch.where(change, 0.3 * torch.rand(count, generator=generator) - 0.15, torch.zeros(count))
    gain, shift = (part.to(rgba.device)[:, None, None, None] for part in (gain, shift))
    colour = (colour - 0.5) * gain + 0.5 + shift
    return torch.cat([colour.clamp(0, 1), rgba[:, 3:]], dim=1)


def smooth_field(
    count: int, size: int, generator: torch.Generator, channels: int = 1, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Smooth random fields [count,channels,size,size] in [0,1]: coarse noise, enlarged by cubic interpolation."""
    cells = int(torch.randint(2, 6, (1,), generator=generator))
    coarse = torch.rand(count, channels, cells, cells, generator=generator).to(device)
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True).clamp(0, 1)


def soften(alpha: torch.Tensor, generator: torch.Generator, low: float = 0.1) -> torch.Tensor:
    """`alpha` [B,1,S,S] times a smooth random field in [low,1]."""
    field = smooth_field(len(alpha), alpha.shape[-1], generator, device=alpha.device)
    return alpha * (low + (1 - low) * field)


def random_backgrounds(
    count: int, size: int, generator: torch.Generator, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Opaque backgrounds [count,3,size,size] in [0,1]: plain, graded or softly blotched colours, mostly light."""
    light = 0.35 + 0.65 * torch.rand(count, 3, 1, 1, generator=generator)
    variation = smooth_field(count, size, generator, channels=3, device=device) - 0.5
    amount = torch.rand(count, 1, 1, 1, generator=generator).square() * 0.8
    return (light.to(device) + amount.to(device) * variation).clamp(0, 1)
