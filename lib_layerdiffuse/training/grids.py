"""Sample grids as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.utils import make_image_grid
from PIL import Image


def image_grid(images: Sequence[torch.Tensor], columns: int) -> Image.Image:
    """Tensors [3,H,W] in [0,1] of one size, row by row, as one RGB picture; grey where the last row is short."""
    pictures = [_picture(image) for image in images]
    rows = -(-len(pictures) // columns)
    blank = Image.new("RGB", pictures[0].size, (128, 128, 128))
    return make_image_grid([*pictures, *[blank] * (rows * columns - len(pictures))], rows, columns)


def _picture(image: torch.Tensor) -> Image.Image:
    """A tensor [3,H,W] in [0,1] as a picture; what is beyond is cut off."""
    return Image.fromarray(image.detach().float().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy())


def checkered(argb: torch.Tensor, square: int = 16) -> torch.Tensor:
    """A,R,G,B [B,4,H,W] in [0,1] composited on a checkerboard of 0.5 +- 0.05, as [B,3,H,W]."""
    height, width = argb.shape[2:]
    rows, columns = torch.arange(height) // square, torch.arange(width) // square
    board = 0.45 + 0.1 * ((rows[:, None] + columns) % 2).to(argb)
    return argb[:, 1:] * argb[:, :1] + board * (1 - argb[:, :1])
