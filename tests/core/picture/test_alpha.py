from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.picture.alpha import (
    checkerboard,
    checkerboard_preview,
    composite_on_grey,
    from_tensor,
    pad_rgb,
    rgba_array,
    to_tensor,
    trim_box,
    trimmed,
)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)


@pytest.mark.parametrize("name", ["soft_64x96", "hard_64x96", "empty_64x96", "opaque_64x96", "soft_37x53"])
def test_pad_rgb_golden(golden, name):
    tensors = load_file(golden / "pad_rgb.safetensors")
    np.testing.assert_allclose(pad_rgb(tensors[f"in_{name}"]), tensors[f"out_{name}"], atol=2e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (300, 2), (7, 5), (130, 64)])
def test_pad_rgb_takes_every_size(size):
    rgba = noise(*size)
    rgba[..., 3] = np.where(rgba[..., 3] > 128, 255, 0)
    rgba[0, 0, 3] = 255
    padded = pad_rgb(rgba)
    visible = rgba[..., 3] == 255
    assert padded.shape == (*size, 3) and padded.dtype == np.float32
    assert padded.min() >= 0 and padded.max() <= 1
    np.testing.assert_allclose(padded[visible], rgba[visible][:, :3] / 255, atol=1e-6)


def test_pad_rgb_ignores_the_colour_of_invisible_pixels():
    rgba = noise(40, 60)
    rgba[10:30, :, 3] = 0
    other = rgba.copy()
    other[10:30, :, :3] = 255 - other[10:30, :, :3]
    np.testing.assert_array_equal(pad_rgb(rgba), pad_rgb(other))


def test_pad_rgb_continues_one_colour_everywhere():
    rgba = np.zeros((50, 70, 4), np.uint8)
    rgba[20, 30] = (255, 51, 102, 255)
    np.testing.assert_allclose(pad_rgb(rgba), np.broadcast_to([1.0, 0.2, 0.4], (50, 70, 3)), atol=1e-5)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 4)), np.zeros((0, 4, 4), np.uint8)])
def test_pad_rgb_refuses_what_is_not_rgba(wrong):
    with pytest.raises(InputError, match="uint8"):
        pad_rgb(wrong)


def test_composite_golden(golden):
    tensors = load_file(golden / "image_utils.safetensors")
    grey = composite_on_grey(tensors["rgba"])
    np.testing.assert_allclose(grey, tensors["rgba2rgbfp32"], atol=1e-6)
    batch = torch.from_numpy(tensors["rgba"]).permute(2, 0, 1)[None].float() / 255
    np.testing.assert_allclose(composite_on_grey(batch)[0].permute(1, 2, 0).numpy(), grey, atol=1e-6)


def test_checkerboard_preview_golden(golden):
    preview = np.array(checkerboard_preview(Image.open(golden / "decode_256x256_rgba.png"))).astype(int)
    published = np.array(Image.open(golden / "decode_256x256_vis.png"))
    # the original composites the picture before it is rounded to 8 bits: one level apart at most
    assert np.abs(preview - published).max() <= 1


def test_checkerboard_squares():
    board = checkerboard(130, 70)
    assert board.shape == (130, 70)
    np.testing.assert_allclose([board[0, 0], board[0, 64], board[64, 0], board[128, 0]], [0.45, 0.55, 0.55, 0.45])


def test_every_level_survives_a_round_trip():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([levels, levels[::-1], levels.T, levels], axis=2))
    (back,) = from_tensor(to_tensor(image))
    np.testing.assert_array_equal(np.array(back), np.array(image))


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((4, 6), 32896, np.uint16))


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.new("L", (6, 4), 128), (128, 128, 128, 255)),
        (Image.new("1", (6, 4), 1), (255, 255, 255, 255)),
        (Image.new("LA", (6, 4), (128, 7)), (128, 128, 128, 7)),
        (Image.new("RGB", (6, 4), (1, 2, 3)), (1, 2, 3, 255)),
        (Image.new("RGBA", (6, 4), (1, 2, 3, 4)), (1, 2, 3, 4)),
        (Image.new("RGBA", (6, 4), (1, 2, 3, 4)).convert("P"), (1, 2, 3, None)),
        (Image.new("CMYK", (6, 4), (0, 0, 0, 255)), (0, 0, 0, 255)),
        (sixteen_bits(), (128, 128, 128, 255)),
        (Image.new("I", (6, 4), 32896), (128, 128, 128, 255)),
    ],
    ids=lambda value: getattr(value, "mode", ""),
)
def test_images_of_every_mode(image, pixel):
    array = rgba_array(image)
    assert array.shape == (4, 6, 4) and array.dtype == np.uint8
    for found, expected in zip(array[2, 3], pixel, strict=True):
        assert expected is None or abs(int(found) - expected) <= 3


def test_palette_transparency_is_kept():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 0
    np.testing.assert_array_equal(rgba_array(image)[0], [[10, 20, 30, 0], [40, 50, 60, 255]])


def test_a_truncated_file_is_a_typed_error():
    file = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(file, "PNG")
    with pytest.raises(InputError, match="cannot be read"):
        rgba_array(Image.open(io.BytesIO(file.getvalue()[:3000])))


@pytest.mark.parametrize("wrong", [None, "apple.png", np.zeros((2, 2, 4))])
def test_what_is_no_image_is_a_typed_error(wrong):
    with pytest.raises(InputError, match="PIL image"):
        rgba_array(wrong)


def test_batches_need_one_size():
    with pytest.raises(InputError, match="4x4, 5x4"):
        to_tensor([Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))])
    with pytest.raises(InputError, match="no image"):
        to_tensor([])
    assert to_tensor([Image.new("L", (5, 4))] * 3).shape == (3, 4, 4, 5)


def test_from_tensor_refuses_rgb():
    with pytest.raises(InputError):
        from_tensor(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_greys_in_float_keep_their_levels(top):
    values = np.linspace(0, top, 256, dtype=np.float32).reshape(16, 16)
    image = Image.fromarray(values)
    assert image.mode == "F"
    assert np.array_equal(rgba_array(image)[..., 0], np.arange(256, dtype=np.uint8).reshape(16, 16))


def test_floats_that_are_no_numbers_are_black():
    values = np.array([[np.nan, np.inf], [-3.0, 0.5]], np.float32)
    assert rgba_array(Image.fromarray(values))[..., 0].tolist() == [[0, 0], [0, 128]]


# --- trimming


def hazy() -> Image.Image:
    """[20,30]: a solid block at rows 5..9 and columns 8..15, a fainter one at column 20, haze of 2 everywhere."""
    array = np.full((20, 30, 4), 2, np.uint8)
    array[5:10, 8:16, 3] = 255
    array[6, 20, 3] = 15
    return Image.fromarray(array)


@pytest.mark.parametrize(
    ("threshold", "box"),
    [(1, (0, 0, 30, 20)), (3, (8, 5, 21, 10)), (16, (8, 5, 16, 10)), (255, (8, 5, 16, 10))],
)
def test_a_trim_box_holds_what_is_visible_enough(threshold, box):
    assert trim_box(hazy(), threshold) == box == trim_box(np.array(hazy()), threshold)
    assert trimmed(hazy(), threshold).size == (box[2] - box[0], box[3] - box[1])


def test_trim_boxes_leave_haze_out_by_default_and_a_threshold_of_1_is_getbbox():
    assert trim_box(hazy()) == (8, 5, 16, 10)
    sparse = Image.fromarray(np.where(np.array(hazy()) == 2, 0, np.array(hazy())))
    assert trim_box(sparse, 1) == sparse.getchannel("A").getbbox()


@pytest.mark.parametrize("alpha", [0, 15])
def test_a_picture_of_nothing_has_no_box_and_stays_whole(alpha):
    empty = Image.new("RGBA", (7, 5), (9, 9, 9, alpha))
    assert trim_box(empty) is None and trimmed(empty).size == (7, 5)


def test_an_opaque_picture_of_any_kind_is_all_box():
    for mode in ("RGB", "L", "P", "1", "I;16"):
        assert trim_box(Image.new(mode, (7, 5))) == (0, 0, 7, 5)


def test_a_margin_ends_at_the_edge_of_the_picture():
    assert trimmed(hazy(), margin=2).size == (12, 9)
    assert trimmed(hazy(), margin=100).size == (30, 20)


@pytest.mark.parametrize("threshold", [0, 256, -1, 1.5, True, "16", None])
def test_a_threshold_that_is_none_is_refused(threshold):
    with pytest.raises(InputError, match="from 1 to 255"):
        trim_box(hazy(), threshold)


def test_a_negative_margin_is_refused():
    with pytest.raises(InputError, match="margin"):
        trimmed(hazy(), margin=-1)
