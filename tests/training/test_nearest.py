"""Whether painted pictures are remembered ones."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.training.cli.nearest import cut_out, find_nearest

from .toys import SIDE, toy_set


def views(rgba: torch.Tensor) -> torch.Tensor:
    """The images mirrored, and moved by two pixels."""
    return rgba.flip(-1).roll(2, dims=-1)


def test_a_moved_and_mirrored_copy_is_found():
    training = toy_set(8).rgba
    training[:, 3, :16, :16] = 0  # no two sides alike
    found = find_nearest(views(training), training)
    assert found.index.tolist() == list(range(8))
    assert (found.psnr > 35).all() and (found.iou > 0.97).all()


def test_another_picture_is_further_away():
    training = toy_set(8).rgba
    far = find_nearest(training[:4], training[4:])
    assert far.psnr.max() < find_nearest(training[:4], training).psnr.min()
    excluded = torch.eye(8, dtype=torch.bool)
    assert not (find_nearest(training, training, excluded).index == torch.arange(8)).any()


def test_size_and_place_do_not_count():
    rgba = toy_set(2).rgba
    large = torch.zeros(2, 4, 3 * SIDE, 3 * SIDE, dtype=torch.uint8)
    large[:, :, 5 : 5 + 2 * SIDE, 20 : 20 + 2 * SIDE] = rgba.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (cut_out(large)[:, 3] - cut_out(rgba)[:, 3]).abs().mean() < 0.03
    assert torch.isfinite(cut_out(torch.zeros_like(rgba))).all()
    with pytest.raises(InputError):
        find_nearest(rgba[:0], rgba)


def test_the_command_tells_copies_from_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = toy_set(8)
    data.save("set.safetensors")
    for folder, index in (("copies", range(3)), ("others", range(6, 8))):  # the last two are held out
        (tmp_path / folder).mkdir()
        for i in index:
            Image.fromarray(data.rgba[i].permute(1, 2, 0).numpy()).save(tmp_path / folder / f"{i}.png")
    figures = {}
    for folder in ("copies", "others"):
        words = f"train nearest set.safetensors {folder} --out {folder}.json --grid {folder}.png".split()
        assert main(words) == 0
        figures[folder] = json.loads((tmp_path / f"{folder}.json").read_text())
    assert figures["copies"]["nearest_psnr_median"] > 35 > figures["others"]["nearest_psnr_median"]
    assert figures["copies"]["training_pictures"] == 6 and "other_captions_psnr_median" in figures["copies"]
    assert Image.open("copies.png").size == (16 * SIDE, SIDE)
    capsys.readouterr()
