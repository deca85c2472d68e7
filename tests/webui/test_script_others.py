"""Beside other extensions: ones that copy a job, that patch the UNet for good, that ask for more memory."""

from __future__ import annotations

import copy
import importlib.abc
import sys

import numpy as np
import pytest
import torch
from fakes.jobs import Txt2Img
from fakes.processing import process_images
from fakes.running import Snapshot, layer_of, networks_of, picture, plain, positional, run, same_pictures
from fakes.scripts import ALWAYS_VISIBLE, Script

from lib_layerdiffuse.core.methods import find_method

SINGLE = {"method": "sd15_fg"}


class AlwaysOn(Script):
    """A script of another extension."""

    def show(self, is_img2img):
        return ALWAYS_VISIBLE


class Detailer(AlwaysOn):
    """Paints a part of each picture anew by a job of its own, as ADetailer does."""

    def postprocess_image(self, p, told):
        if getattr(p, "_ad_inner", False):
            return
        inner = copy.copy(p)
        inner._ad_inner, inner.n_iter, inner.batch_size = True, 1, 1
        inner.do_not_save_samples = inner.do_not_save_grid = True
        processed = process_images(inner)
        inner.close()
        left = processed.images[0].convert("RGB").crop((0, 0, 32, 64))
        told.image = told.image.copy()
        told.image.paste(left, (0, 0))


def test_issue_88_a_script_that_repaints_a_part_keeps_alpha(sd15) -> None:
    without = run(sd15, SINGLE, batch_size=2, steps=1)
    sd15.extra_scripts = [Detailer]
    sd15.reload_ui()
    state = Snapshot.of(sd15)
    outcome = run(sd15, SINGLE, batch_size=2, steps=1)
    assert outcome.modes == ["RGBA"] * 2 and outcome.error is None and not sd15.errors
    for values, before in zip(outcome.arrays, without.arrays, strict=True):
        seen = before[:, 32:, 3] > 0
        assert np.array_equal(values[..., 3], before[..., 3])
        assert np.array_equal(values[:, 32:][seen], before[:, 32:][seen])
        assert not np.array_equal(values[:, :32, :3], before[:, :32, :3])
    state.check(sd15)


class Enlarger(AlwaysOn):
    """Makes the picture larger, as upscaling scripts do."""

    def postprocess_image(self, p, told):
        told.image = told.image.resize((128, 128))


def test_issue_106_an_upscaler_keeps_alpha(a1111) -> None:
    a1111.extra_scripts = [Enlarger]
    a1111.reload_ui()
    outcome = run(a1111, SINGLE, steps=1)
    assert outcome.modes == ["RGBA"] and outcome.pictures[0].size == (128, 128) and not a1111.errors
    assert np.ptp(outcome.arrays[0][..., 3]) > 0


class Own(AlwaysOn):
    """Gives pictures an alpha of its own."""

    def postprocess_image_after_composite(self, p, told):
        told.image = told.image.convert("RGBA")
        told.image.putalpha(77)


def test_a_script_after_ours_has_the_last_word(forge) -> None:
    forge.extra_scripts = [Own]
    forge.reload_ui()
    outcome = run(forge, SINGLE, steps=1)
    assert (outcome.arrays[0][..., 3] == 77).all() and not forge.errors


@pytest.mark.parametrize("method", ["sd15_joint", "xl_fg2blend"])
def test_issue_100_forwards_and_hooks_of_others_stay(make_webui, flavour, method) -> None:
    """ControlNet, Hypertile and the like set forwards on instances, and leave them there."""
    row = find_method(method)
    webui, fields = make_webui(flavour, row.base), {"batch_size": len(row.frames), "steps": 1}
    wanted, plainly = run(webui, layer_of(row), **fields), run(webui, **fields)
    unet, calls = networks_of(webui)["unet"], []
    attention = next(module for name, module in unet.named_modules() if name.endswith("attn1"))

    def passing(module):
        original = module.forward

        def forward(*inputs, **named):
            calls.append(module)
            return original(*inputs, **named)

        module.forward = forward

    passing(unet)
    passing(attention)
    handle = unet.register_forward_hook(lambda _module, _inputs, output: output)
    state = Snapshot.of(webui)
    outcome = run(webui, layer_of(row), **fields)
    state.check(webui)
    assert same_pictures(outcome, wanted) and unet in calls and not webui.errors
    calls.clear()
    assert same_pictures(run(webui, **fields), plainly) and attention in calls
    handle.remove()


def test_forge_options_of_others_reach_their_attention(make_webui) -> None:
    webui = make_webui("forge", "sd15")
    seen = []

    class Patching(AlwaysOn):
        def process_before_every_sampling(self, p, **named):
            unet = p.sd_model.forge_objects.unet.clone()
            unet.model_options["transformer_options"]["theirs"] = 1
            p.sd_model.forge_objects.unet = unet

    unet = networks_of(webui)["unet"]
    handle = unet.register_forward_pre_hook(
        lambda _m, _i, named: seen.append(named["transformer_options"]), with_kwargs=True
    )
    webui.extra_scripts = [Patching]
    webui.reload_ui()
    assert run(webui, {"method": "sd15_joint"}, batch_size=3, steps=1).error is None and not webui.errors
    handle.remove()
    assert seen and all(options["theirs"] == 1 and options["cond_or_uncond"] == [1, 0] for options in seen)
    assert "theirs" not in webui.sd_model.forge_objects_original.unet.model_options["transformer_options"]


def test_forge_patches_that_merge_or_tile_tokens_are_off_where_frames_share(forge) -> None:
    """Token merging and Hypertile of other extensions come as patches around the self-attention."""
    without = run(forge, {"method": "sd15_joint"}, batch_size=3, steps=1).samples
    merging = []

    class Merging(AlwaysOn):
        def process_before_every_sampling(self, p, **named):
            unet = p.sd_model.forge_objects.unet.clone()
            unet.set_model_patch(
                lambda *parts: merging.append(1) or tuple(part[:, ::2] for part in parts[:3]), "attn1_patch"
            )
            unet.set_model_patch(lambda x, options: x.repeat_interleave(2, 1), "attn1_output_patch")
            p.sd_model.forge_objects.unet = unet

    forge.extra_scripts = [Merging]
    forge.reload_ui()
    outcome = run(forge, {"method": "sd15_joint"}, batch_size=3, steps=1)
    assert torch.equal(outcome.samples, without) and not merging and not forge.errors


def test_forge_11_one_set_of_weights_at_a_time(sd15) -> None:
    for method in ("sd15_fg", "sd15_joint"):
        run(sd15, {"method": method}, steps=1)
    kept = sd15.runners[False].ours.networks._kept
    assert set(kept) <= {"method", "decoder", "encoder"} and kept["method"][1].frames == 3


def test_the_forge_asks_for_room_for_the_decoder(make_webui) -> None:
    webui = make_webui("forge", "sd15")
    assert run(webui, SINGLE, steps=1).modes == ["RGBA"] and webui.engine.freed and webui.engine.freed[0] > 0


def test_the_last_result_of_each_frame_can_be_used_by_the_visitor_who_made_it(a1111) -> None:
    outcome = run(a1111, [*positional(method="sd15_joint"), "me"], batch_size=3, steps=1)
    last = a1111.runners[False].ours.last
    frames = ("foreground", "background", "blended")
    found = [last.get("me", frame) for frame in frames]
    assert [image.mode for image in found] == ["RGBA", "RGB", "RGB"]
    assert all(np.array_equal(np.asarray(image), values) for image, values in zip(found, outcome.arrays, strict=True))
    again = run(a1111, {"method": "sd15_fg2bg", "fg_image": found[0]}, batch_size=2, steps=1)
    assert again.error is None and torch.isfinite(again.samples).all()
    run(a1111, [*positional(method="sd15_fg"), "you"], steps=1, seed=99)
    run(a1111, SINGLE, steps=1, seed=98)  # by the API
    assert [last.get("me", frame) for frame in frames] == found
    assert last.get("you", "background") is None and last.get("", "foreground") is None
    assert a1111.runners[True].ours.last is last  # what was made in one tab is used in the other


def test_a_plot_sets_its_values_over_the_pages(forge) -> None:
    wanted = run(forge, {**SINGLE, "weight": 0.5}, steps=1)
    p = Txt2Img(forge, script_args=tuple(plain(method="sd15_joint")), steps=1)
    p.layerdiffuse_axes = {"enabled": True, "method": "sd15_fg", "weight": 0.5}
    cell = copy.copy(p)
    processed = process_images(cell)
    assert np.array_equal(np.asarray(processed.images[0])[..., 3], wanted.arrays[0][..., 3]) and not forge.errors
    assert not hasattr(p, "layerdiffuse_job")


FOREIGN = {"a1111": ("backend", "diffusers", "ldm_patched", "modules_forge"), "forge": ("diffusers", "ldm_patched")}


class Absent(importlib.abc.MetaPathFinder):
    """Packages that are not installed."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_issue_11_no_module_of_another_webui_is_imported(monkeypatch, sd15, flavour) -> None:
    """ "No module named 'ldm_patched'"; and what a host's update renames (issues 1, 39, 72, 120, 153)."""
    ours = [name for name in sys.modules if name.startswith("lib_layerdiffuse.webui")]
    theirs = [name for name in sys.modules if name.partition(".")[0] in FOREIGN[flavour]]
    for name in (*ours, *theirs):
        parent, _, child = name.rpartition(".")
        if parent in sys.modules and hasattr(sys.modules[parent], child):  # where an import puts it, too
            monkeypatch.setattr(sys.modules[parent], child, getattr(sys.modules[parent], child))
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(FOREIGN[flavour]), *sys.meta_path])
    sd15.reload_ui()
    outcome = run(sd15, SINGLE, init_images=[picture()], steps=2)
    sd15.callbacks.fire("script_unloaded")  # else what these modules wrapped serves the tests that come after
    assert outcome.modes == ["RGBA"] and outcome.error is None and not sd15.errors
