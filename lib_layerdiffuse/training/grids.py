"""Sample grids as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image


def image_grid(images: Sequence[torch.Tensor], columns: int) -> Image.Image:
    """Tensors [3,H,W] in [0,1] of one size, row by row, as one RGB picture."""
    height, width = images[0].shape[1:]
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), (128, 128, 128))
    for number, image in enumerate(images):
        pixels = image.detach().float().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        sheet.paste(Image.fromarray(pixels), (number % columns * width, number // columns * height))
    return sheet


def checkered(argb: torch.Tensor, square: int = 16) -> torch.Tensor:
    """A,R,G,B [B,4,H,W] in [0,1] composited on a checkerboard of 0.5 +- 0.05, as [B,3,H,W]."""
    height, width = argb.shape[2:]
    rows, columns = torch.arange(height) // square, torch.arange(width) // square
    board = 0.45 + 0.1 * ((rows[:, None] + columns) % 2).to(argb)
    return argb[:, 1:] * argb[:, :1] + board * (1 - argb[:, :1])
