from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.picture.resize import (
    ResizeMode,
    area_taps,
    lanczos_taps,
    linear_taps,
    resample,
    resize_image,
)

NAMES = {"RESIZE": ResizeMode.STRETCH, "CROP_AND_RESIZE": ResizeMode.CROP, "RESIZE_AND_FILL": ResizeMode.FILL}


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (32, 48), (50, 70), (40, 128)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_golden(golden, name, size):
    tensors = load_file(golden / "image_utils.safetensors")
    result = resize_image(tensors["rgba2rgbfp32"], *size, NAMES[name])
    np.testing.assert_allclose(result, tensors[f"{name}_{size[0]}x{size[1]}"], atol=2e-6)


@pytest.mark.parametrize("taps", [area_taps, linear_taps, lanczos_taps])
@pytest.mark.parametrize("sizes", [(7, 3), (100, 99), (6, 6), (1, 1), (512, 1)], ids=str)
def test_a_constant_stays_what_it_is(taps, sizes):
    rows = taps(*sizes)
    assert rows.rows.shape == rows.weights.shape and len(rows.rows) == sizes[1]
    result = resample(np.full((sizes[0], sizes[0], 2), 0.25, np.float32), rows, rows)
    np.testing.assert_allclose(result, 0.25, atol=1e-6)


def test_area_is_the_mean_of_what_is_covered():
    column = np.array([1, 2, 3, 4, 5], np.float32).reshape(5, 1, 1)
    result = resample(column, area_taps(5, 2), area_taps(1, 1)).ravel()
    np.testing.assert_allclose(result, [(1 + 2 + 1.5) / 2.5, (1.5 + 4 + 5) / 2.5], rtol=1e-6)


def test_modes_by_the_labels_of_the_webui():
    image = np.zeros((4, 8, 3), np.float32)
    image[:, 4:] = 1
    assert resize_image(image, 4, 4, "Just Resize").mean() == pytest.approx(0.5)
    assert resize_image(image, 8, 8, "Crop and Resize").shape == (8, 8, 3)
    filled = resize_image(image, 8, 8, "Resize and Fill")
    assert filled.shape == (8, 8, 3) and np.ptp(filled[0]) == 0 and np.ptp(filled[4]) == 1


@pytest.mark.parametrize("mode", list(ResizeMode))
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)], ids=str)
def test_sizes_of_one_pixel(mode, size):
    image = np.random.default_rng(0).random((9, 5, 3)).astype(np.float32)
    for source in (image, image[:1, :1]):
        result = resize_image(source, *size, mode)
        assert result.shape == (*size, 3) and np.isfinite(result).all()


@pytest.mark.parametrize("shape", [(2, 2), (0, 4, 3)])
def test_bad_images(shape):
    with pytest.raises(InputError):
        resize_image(np.zeros(shape, np.float32), 4, 4)


def test_bad_size_and_mode():
    image = np.zeros((4, 4, 3), np.float32)
    with pytest.raises(InputError, match="0x4"):
        resize_image(image, 0, 4)
    with pytest.raises(InputError, match="Crop and Resize"):
        resize_image(image, 4, 4, "Latent upscale")
