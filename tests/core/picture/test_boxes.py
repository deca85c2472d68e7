"""Where a part was cut out of a latent."""

from __future__ import annotations

import pytest
import torch

from lib_layerdiffuse.core.offsets.installed import ConcatLatents
from lib_layerdiffuse.core.picture.boxes import Box, find_box
from lib_layerdiffuse.core.sharing.sharing_run import grid_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("box", [Box(0, 0, 6, 6), Box(3, 7, 6, 6), Box(10, 2, 6, 14), Box(0, 0, 16, 16)])
def test_a_part_is_found_at_its_place_whatever_its_scale(box, dtype) -> None:
    wholes = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    assert find_box((box.of(wholes)[1] * 0.07).to(dtype), wholes) == box
    assert find_box((box.of(wholes)[2] * 14.6).to(dtype), wholes, [Box(1, 1, 6, 6), box]) == box


def test_boxes_of_earlier_parts_do_not_hide_the_right_one() -> None:
    """The last step of a picture that is flat but for a little noise."""
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    flat = torch.tensor([1.0, -2.0, 0.5, 3.0]).view(1, 4, 1, 1) + 0.03 * noise
    known = [Box(0, 0, 8, 8), Box(0, 8, 8, 8), Box(8, 0, 8, 8)]
    assert find_box(Box(8, 8, 8, 8).of(flat)[0], flat, known) == Box(8, 8, 8, 8)
    assert find_box(known[1].of(flat)[0], flat, known) == known[1]


def test_what_was_not_cut_out_is_found_nowhere() -> None:
    wholes = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    for part in (wholes[0, :, ::2, ::2], torch.randn(4, 8, 8), torch.randn(4, 20, 8)):
        assert find_box(part, wholes, [Box(0, 0, 8, 8)]) is None


def test_every_other_latent_of_a_smooth_picture_is_no_part_of_it() -> None:
    """DemoFusion."""
    small = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(4))
    smooth = 100 + torch.nn.functional.interpolate(small, size=(16, 16), mode="bicubic")
    assert find_box(smooth[0, :, ::2, ::2], smooth) is None


def test_concat_latents_of_parts() -> None:
    latents, sample = torch.randn(1, 4, 16, 12), torch.zeros(4, 4, 8, 6)
    boxes = [Box(0, 0, 8, 6), Box(0, 0, 8, 6), Box(8, 6, 8, 6), Box(3, 2, 8, 6)]
    concat = ConcatLatents(latents, boxes=boxes, whole=(16, 12))
    found = concat.beside(sample)
    assert all(torch.equal(row, box.of(latents[0])) for row, box in zip(found, boxes, strict=True))
    concat.boxes = None
    assert torch.equal(concat.beside(torch.zeros(2, 4, 16, 12)), latents.expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("size", "tokens", "grid"),
    [((64, 96), 1536, (32, 48)), ((64, 64), 1849, (43, 43)), ((8, 12), 40, (5, 8)), ((16, 16), 1, None)],
)
def test_the_grid_of_a_shrunk_block(size, tokens, grid) -> None:
    assert grid_of(tokens, size) == (grid or (1, 1))


@pytest.mark.parametrize(("size", "tokens"), [((64, 64), 2048), ((32, 32), 512), ((64, 96), 3072), ((8, 8), 13)])
def test_merged_tokens_make_no_grid(size, tokens) -> None:
    assert grid_of(tokens, size) is None
