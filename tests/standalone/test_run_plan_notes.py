"""What a run is told before it starts: settings that change nothing, sizes that were not learned, images."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.picture import sizes
from lib_layerdiffuse.standalone.run_plan import make_plan
from lib_layerdiffuse.standalone.settings import GenerateSettings
from lib_layerdiffuse.unet import images
from lib_layerdiffuse.unet.images import read_image


def pipeline(side: int = 128) -> SimpleNamespace:
    """As much of a pipeline as a plan looks at."""
    config = SimpleNamespace(sample_size=side // 8)
    vae = SimpleNamespace(config=SimpleNamespace(block_out_channels=[64]), dtype=torch.float32)
    return SimpleNamespace(unet=SimpleNamespace(config=config), vae=vae, vae_scale_factor=8, device=torch.device("cpu"))


def notes(base: str = "demo", side: int = 128, **choices) -> list[str]:
    settings, _ = GenerateSettings("a cat", **choices).validated()
    return make_plan(settings, base, pipeline(side)).notes


IMAGE = Image.new("RGBA", (64, 64), (255, 0, 0, 255))


@pytest.mark.parametrize(
    ("choices", "name"),
    [
        ({"transparent": False, "mode": "joint"}, "mode"),
        ({"transparent": False, "method": "demo_fg"}, "method"),
        ({"transparent": False, "weight": 0.5}, "weight"),
        ({"transparent": False, "stop_at": 0.5}, "stop_at"),
        ({"transparent": False, "passes": 1}, "passes"),
        ({"transparent": False, "clear_haze": False}, "clear_haze"),
        ({"transparent": False, "hidden_colours": "cleared"}, "hidden_colours"),
        ({"transparent": False, "layer_file": "mine"}, "layer_file"),
        ({"denoise": 0.3}, "denoise"),
        ({"resize_mode": "just-resize"}, "resize_mode"),
        ({"foreground": IMAGE}, "foreground"),
        ({"background_prompt": "in a wood"}, "background_prompt"),
        ({"negative_prompt": "blue", "guidance": 1}, "negative_prompt"),
    ],
)
def test_a_setting_that_changes_nothing_is_named(choices, name):
    (note,) = notes(**choices)
    assert note.startswith(f"{name} is not used: ")


def test_settings_that_are_used_give_no_note():
    assert notes() == notes(negative_prompt="blue", weight=0.5, stop_at=0.5) == []
    assert notes(init=IMAGE, denoise=0.3, resize_mode="just-resize") == []
    assert notes("sd15", 512, mode="joint", background_prompt="in a wood", foreground_prompt="a cat") == []


@pytest.mark.parametrize(
    ("base", "own", "width", "height", "noted"),
    [
        ("demo", 128, 128, 128, False), ("demo", 128, 256, 256, True), ("demo", 128, 64, 64, True),
        ("demo", 128, 64, 256, True), ("sd15", 512, 512, 768, False), ("sd15", 512, 768, 768, False),
        ("sd15", 512, 1024, 1024, True), ("sd15", 512, 256, 256, True), ("sdxl", 1024, 832, 1216, False),
        ("sdxl", 1024, 512, 512, True),
    ],
)  # fmt: skip
def test_sizes_that_the_model_has_not_learned_are_noted(base, own, width, height, noted):
    found = notes(base, own, width=width, height=height)
    assert any(f"learned {own}x{own}; at {width}x{height}" in note for note in found) == noted == bool(found)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_an_animation_the_first_frame_is_used_and_said_so(tmp_path, suffix):
    frames = [Image.new("RGBA", (8, 8), (number * 40, 0, 0, 255)) for number in range(3)]
    path = tmp_path / f"moving.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    opened = read_image(path, "init")
    assert opened.notes == ("init: the first of 3 frames is used",) and opened.rgba[0, 0, 0] < 20
    assert notes(init=path) == list(opened.notes)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a POSIX pipe")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="no file"):
        read_image(tmp_path / "pipe.png", "init")


def test_a_very_large_image_is_reduced_and_keeps_its_colours_and_edges(monkeypatch):
    rgba = np.zeros((800, 800, 4), np.uint8)
    rgba[:400] = (200, 100, 50, 255)
    rgba[400:, :, :3] = 255  # what lies under transparent pixels must not bleed
    whole = Image.fromarray(rgba)
    assert read_image(whole, "init", (64, 64)).rgba.shape == (800, 800, 4)
    monkeypatch.setattr(sizes, "MEDIUM", 10_000)
    small = read_image(whole, "init", (64, 64)).rgba
    assert small.shape[0] >= 128 and small.shape[0] < 200
    assert np.abs(small[: small.shape[0] // 2 - 1, :, :3].astype(int) - (200, 100, 50)).max() <= 1
    assert read_image(whole, "init", (500, 500)).rgba.shape == (800, 800, 4)


def test_memory_that_an_image_does_not_fit_into_is_blamed_on_the_image(monkeypatch):
    def fail(_image):
        raise MemoryError

    monkeypatch.setattr(images, "rgba_array", fail)
    with pytest.raises(InputError, match="init of 64x64 pixels"):
        read_image(IMAGE, "init")
