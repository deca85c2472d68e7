"""Others that sample in tiles, or shrink the UNet's feature maps for a while: what methods see is cut and fitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fakes.running import Snapshot, layer_of, networks_of, picture, run
from fakes.scripts import ALWAYS_VISIBLE, Script
from fakes.tiling import Tiles, shrunk

from lib_layerdiffuse.core.methods import METHODS, find_method
from lib_layerdiffuse.core.picture.boxes import Box
from lib_layerdiffuse.core.sharing.attention_sharing import AttentionSharing
from lib_layerdiffuse.unet.method_kinds import Conditions, read_method
from lib_layerdiffuse.webui.host.host import host_of
from lib_layerdiffuse.webui.host.unet_pass import MethodRun, UnetPass

ALL = [method.id for method in METHODS if method.base in ("sd15", "sdxl")]
SEEING = [name for name in ALL if find_method(name).images]
for_methods = pytest.mark.parametrize("method", ALL)
for_seeing = pytest.mark.parametrize("method", SEEING)


def always(hook: Callable[..., None]) -> type[Script]:
    """An extension that does this before each pass."""

    class AlwaysOn(Script):
        def show(self, is_img2img):
            return ALWAYS_VISIBLE

        def process_before_every_sampling(self, p, **named):
            hook(p)

    return AlwaysOn


def tiled(webui: Any, tiles: Tiles) -> Any:
    """The WebUI with an extension that samples in tiles, as such extensions hook into it."""

    def forge(p: Any) -> None:
        unet = p.sd_model.forge_objects.unet = p.sd_model.forge_objects.unet.clone()
        unet.model_options["model_function_wrapper"] = tiles

    def a1111(p: Any) -> None:
        denoiser = p.sampler.model_wrap_cfg
        original = denoiser.predict

        def predict(x: torch.Tensor, sigma: torch.Tensor, cond: Any) -> torch.Tensor:
            def apply(rows: torch.Tensor, levels: torch.Tensor, **conds: torch.Tensor) -> torch.Tensor:
                return original(rows, levels, conds if isinstance(cond, dict) else conds["all"])

            told = {"input": x, "timestep": sigma, "c": cond if isinstance(cond, dict) else {"all": cond}}
            return tiles(apply, told)

        denoiser.predict = predict

    webui.extra_scripts = [always(forge if webui.engine.name == "Forge" else a1111)]
    return webui.reload_ui()


@for_methods
def test_every_method_in_tiles(make_webui, flavour, method) -> None:
    row, tiles = find_method(method), Tiles(8)
    webui = tiled(make_webui(flavour, row.base), tiles)
    state = Snapshot.of(webui)
    fields = {"batch_size": len(row.frames), "steps": 2, "width": 96, "height": 64}
    outcome = run(webui, layer_of(row), **fields)
    assert outcome.error is None and not outcome.note and not webui.errors
    assert {shape[-2:] for shape in tiles.shapes} == {(8, 8)}
    layers = [pixels[..., 3] for pixels in outcome.arrays if pixels.shape[2] == 4]
    assert len(layers) == row.transparent_frames and all(np.ptp(alpha) > 0 for alpha in layers)
    state.check(webui)


@for_seeing
@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_tiles_that_were_not_cut_from_the_picture_are_refused_by_name(make_webui, flavour, method, sampler) -> None:
    row = find_method(method)
    webui = tiled(make_webui(flavour, row.base), Tiles(8, dilated=True))
    state = Snapshot.of(webui)
    outcome = run(
        webui, layer_of(row), batch_size=len(row.frames), steps=1, width=128, height=128, sampler_name=sampler
    )
    assert outcome.pictures == [] and all(word in outcome.error for word in ("tiled diffusion", "MultiDiffusion"))
    state.check(webui)


@for_seeing
def test_a_tile_sees_its_part_of_the_pictures(make_webui, flavour, layers, method) -> None:
    """Two tiles in one call give what each gives alone with the pictures cut by hand."""
    row = find_method(method)
    webui = make_webui(flavour, row.base)
    host, frames = host_of(webui.sd_model), len(row.frames)
    weights = read_method(layers / f"{row.weights}.safetensors", dict(host.unet.named_modules()), row)
    generator = torch.Generator().manual_seed(5)
    whole = torch.randn(frames, 4, 8, 24, generator=generator)
    control = torch.rand(1, 3, 64, 192, generator=generator) * 2 - 1 if row.control else None
    concat = torch.randn(1, 4 * len(row.concat), 8, 24, generator=generator) if row.concat else None
    boxes = [Box(0, 3, 8, 8), Box(0, 13, 8, 8)]

    def call(conditions: Conditions, rows: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        with torch.no_grad(), UnetPass(host, MethodRun(row, weights, 1.0, 1.0), conditions) as at_work:
            at_work.whole = seen
            cond, count = webui.sd_model.embed("a red apple"), len(rows)
            more = {"y": cond["vector"].expand(count, -1)} if row.base == "sdxl" else {}
            context = cond["crossattn"] if row.base == "sdxl" else cond
            context = context.expand(count, *context.shape)
            return host.unet(rows, torch.full((len(rows),), 500.0), context=context, **more)

    together = call(Conditions(concat, control), torch.cat([box.of(whole) for box in boxes]) * 0.3, whole)
    for box, found in zip(boxes, together.split(frames), strict=True):
        parts = None if concat is None else box.of(concat), None if control is None else box.of(control, 8)
        alone = call(Conditions(*parts), box.of(whole) * 0.3, None)
        assert torch.allclose(found, alone, atol=1e-3 * float(alone.abs().max()))
    assert not torch.allclose(*together.split(frames), atol=1e-3)


def test_joined_prompts_in_tiles_are_refused_where_rows_would_mix(a1111) -> None:
    tiled(a1111, Tiles(8))
    row = find_method("sd15_fg2bg")
    outcome = run(a1111, layer_of(row), batch_size=2, steps=1, width=96, prompt="a red apple AND a pear")
    assert outcome.pictures == [] and "AND" in outcome.error and "tiled diffusion" in outcome.error


# --- shrunk feature maps


@pytest.mark.parametrize("factor", [2.0, 1.5])
@pytest.mark.parametrize("size", [(128, 128), (192, 128)])
@pytest.mark.parametrize("method", [name for name in ALL if name.startswith("sd15")])
def test_every_sharing_method_with_shrunk_feature_maps(sd15, method, factor, size) -> None:
    row, state = find_method(method), Snapshot.of(sd15)
    fields = {"batch_size": len(row.frames), "steps": 1, "width": size[0], "height": size[1]}
    without = run(sd15, layer_of(row), **fields)
    with shrunk(networks_of(sd15)["unet"], factor) as sizes:
        outcome = run(sd15, layer_of(row), **fields)
    assert outcome.error is None and not outcome.note and not sd15.errors and sizes
    assert not torch.equal(outcome.samples, without.samples)
    state.check(sd15)


def test_a_shrunk_block_gets_the_signal_of_its_own_depth(sd15, layers, monkeypatch) -> None:
    """Halved maps have as many tokens as the next depth, whose signal would be another one."""
    row = find_method("sd15_fg2bg")
    image = {"bg_image": picture(seed=9), "fg_image": picture(seed=9)}
    encode = AttentionSharing.signals

    def without(*depths: int) -> Callable[..., dict[int, torch.Tensor]]:
        def signals(self, control):
            found = list(encode(self, control).items())
            return {tokens: signal * (place not in depths) for place, (tokens, signal) in enumerate(found)}

        return signals

    def samples() -> torch.Tensor:
        with shrunk(networks_of(sd15)["unet"], 2.0):
            return run(sd15, layer_of(row) | image, batch_size=2, steps=1, width=128, height=128).samples

    whole = samples()
    for depth in range(4):
        monkeypatch.setattr(AttentionSharing, "signals", without(depth))
        assert not torch.equal(samples(), whole)
    monkeypatch.setattr(AttentionSharing, "signals", without())
    assert torch.equal(samples(), whole)
