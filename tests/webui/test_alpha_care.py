"""The repairs of the settings page on a decoded picture: only when on, and never at the picture's expense."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lib_layerdiffuse.core.picture.alpha import composite_on_grey
from lib_layerdiffuse.webui.jobs import pictures
from lib_layerdiffuse.webui.page.options import Options

SWITCHES = ("rescue_opacity", "fill_holes", "remove_fringe", "clear_haze")


def run_with(**switches: bool) -> SimpleNamespace:
    notes: list[str] = []
    options = Options(**{name: switches.get(name, False) for name in SWITCHES})
    return SimpleNamespace(request=SimpleNamespace(options=options, note=notes.append), notes=notes)


def faulty() -> tuple[torch.Tensor, torch.Tensor]:
    """RGBA [1,4,64,64], a faint red square with a grey seam, a lost white spot and haze, and what the VAE decoded."""
    alpha = torch.zeros(1, 1, 64, 64)
    alpha[..., 12:52, 12:52] = 1
    alpha = torch.nn.functional.avg_pool2d(alpha, 5, stride=1, padding=2)
    rgb = torch.tensor([1.0, 0.1, 0.1])[None, :, None, None].repeat(1, 1, 64, 64)
    rgb[..., 28:36, 28:36] = 1
    opaque = composite_on_grey(torch.cat([rgb, alpha], dim=1))
    decoded = torch.cat([opaque, alpha * 0.85], dim=1)
    decoded[:, 3, 28:36, 28:36] = 0
    decoded[:, 3, 3, 3] = 12 / 255
    return decoded, opaque


def test_nothing_happens_with_all_switches_off():
    rgba, opaque = faulty()
    assert pictures.with_care(run_with(), rgba, opaque) is rgba


def test_haze_alone_is_cleared_by_default():
    assert [name for name in SWITCHES if getattr(Options(), name)] == ["clear_haze"]


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_does_its_own_work(switch):
    rgba, opaque = faulty()
    work = run_with(**{switch: True})
    change = (pictures.with_care(work, rgba, opaque) - rgba).abs()
    places = {
        "rescue_opacity": (3, 20, 20),
        "fill_holes": (3, 32, 32),
        "remove_fringe": (1, 11, 30),
        "clear_haze": (3, 3, 3),
    }
    changed = {name: change[0][place].item() > 0.04 for name, place in places.items()}
    assert changed == {name: name == switch for name in SWITCHES} and not work.notes


@pytest.mark.parametrize("fault", [RuntimeError("no kernel for this device"), None])
def test_a_repair_that_fails_costs_a_note_and_no_picture(monkeypatch, fault):
    rgba, opaque = faulty()
    if fault:
        monkeypatch.setattr(pictures, "care_for", lambda *_: (_ for _ in ()).throw(fault))
    else:
        opaque = opaque[..., :-1]  # a typed error of its own
    work = run_with(fill_holes=True)
    assert pictures.with_care(work, rgba, opaque) is rgba
    assert len(work.notes) == 1 and work.notes[0].startswith("alpha care was left out")
