"""Pictures of many sets, each in a row: foreground on a checkerboard, background, blended, the one over the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...core.methods import BACKGROUND, BLENDED, FOREGROUND
from .layer_figures import composite

SQUARE = 16  # pixels of the checkerboard
GAP, LABEL = 10, 14
PAPER, INK = (255, 255, 255), (40, 40, 40)
Layers = Mapping[str, np.ndarray]


def strip(layers: Layers) -> np.ndarray:
    """What is known of a set, side by side: [H, 4 W, 3] in [0,1]; grey for a layer that is not there."""
    size = next(iter(layers.values())).shape[:2]
    grey = np.full((*size, 3), 0.5, np.float32)
    foreground, background = layers.get(FOREGROUND), layers.get(BACKGROUND)
    cells = [
        grey if foreground is None else composite(foreground, board(*size)),
        grey if background is None else background[..., :3],
        layers[BLENDED][..., :3] if BLENDED in layers else grey,
        grey if foreground is None or background is None else composite(foreground, background),
    ]
    return np.concatenate(cells, axis=1)


def board(height: int, width: int) -> np.ndarray:
    """A checkerboard of 0.5 +- 0.05, [H,W,1]."""
    odd = (np.arange(height)[:, None] // SQUARE + np.arange(width) // SQUARE) % 2
    return (0.45 + 0.1 * odd.astype(np.float32))[..., None].repeat(3, -1)


def grid_of_sets(sets: Sequence[tuple[str, Layers]], columns: int = 2) -> Image.Image:
    """Sets with their prompts as one RGB picture."""
    strips = [np.rint(strip(layers) * 255).clip(0, 255).astype(np.uint8) for _, layers in sets]
    height, width = (max(cell.shape[axis] for cell in strips) for axis in (0, 1))
    columns = min(columns, len(sets))
    rows, step_x, step_y = -(-len(sets) // columns), width + GAP, height + LABEL + GAP
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, ((prompt, _), cell) in enumerate(zip(sets, strips, strict=True)):
        left, top = GAP + number % columns * step_x, GAP + number // columns * step_y
        draw.text((left, top - 2), prompt.encode("latin-1", "replace").decode("latin-1")[:80], INK, font=font)
        sheet.paste(Image.fromarray(cell), (left, top + LABEL))
    return sheet
