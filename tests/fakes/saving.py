"""What tests of saved files share: where they lie and what they hold, and extensions that edit pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SINGLE, JOINT = {"method": "sd15_fg"}, {"method": "sd15_joint"}
ONE = {"steps": 2, "denoising_strength": 0.5}
HIRES = {"enable_hr": True, "steps": 1}


def files(webui) -> dict[str, Path]:
    """All files below `outputs`, by name."""
    return {path.name: path for path in sorted((webui.folder / "outputs").rglob("*")) if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    """What a file holds."""
    with Image.open(path) as image:
        return np.array(image)


def mask(box: tuple[int, int, int, int] = (16, 16, 48, 48), size: int = 64) -> Image.Image:
    """A white box to paint anew."""
    image = Image.new("L", (size, size))
    image.paste(255, box)
    return image


def hide_text(parameters) -> None:
    """As extensions do that write an infotext into the last bits of alpha."""
    if parameters.filename.endswith(".png"):
        parameters.image.putalpha(255)
