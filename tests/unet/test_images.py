"""Images for a network: the resize mode counts, and colours of invisible pixels never reach an edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib_layerdiffuse.standalone.settings import RESIZE_MODES
from lib_layerdiffuse.unet.images import on_grey, with_alpha

GREEN, RED = (0, 255, 0, 255), (255, 0, 0, 255)


def wide() -> np.ndarray:
    """A green picture, twice as wide as high, with red ends; uint8 [64,128,4]."""
    picture = np.empty((64, 128, 4), np.uint8)
    picture[:] = GREEN
    picture[:, :24] = picture[:, -24:] = RED
    return picture


def share_of_red(image: torch.Tensor) -> float:
    """Of the pixels of [1,C,H,W]."""
    return (image[0, 0] > image[0, 1]).float().mean().item()


@pytest.mark.parametrize("bring", [on_grey, with_alpha])
def test_the_resize_mode_decides_what_is_seen(bring) -> None:
    """Squeezed: the ends keep their share; cropped: they are lost; filled: bands of the border's colour, red, too."""
    shares = {mode: share_of_red(bring(wide(), 64, 64, mode)) for mode in RESIZE_MODES}
    assert shares["just-resize"] == pytest.approx(48 / 128, abs=0.03)
    assert shares["crop-and-resize"] == 0
    assert shares["resize-and-fill"] != pytest.approx(shares["just-resize"], abs=0.03)


@pytest.mark.parametrize("size", [32, 128])
def test_colours_of_invisible_pixels_do_not_bleed_into_edges(size) -> None:
    """A red square on green that is transparent: near the edge what is seen of it stays red."""
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[..., 1] = 255
    picture[16:48, 16:48] = RED
    resized = with_alpha(picture, size, size, "just-resize")[0]
    visible = resized[3] > 0.02
    assert resized[1][visible].max() < 0.1 and resized[0][visible].min() > 0.9
