"""The standalone host merges a method's weights once for many pictures, and anew when the checkpoint's change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from lib_layerdiffuse.core.offsets import merging
from lib_layerdiffuse.files.downloads import LayerFiles
from lib_layerdiffuse.standalone import unet_method
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost
from lib_layerdiffuse.standalone.settings import GenerateSettings

SETTINGS = GenerateSettings("a red apple", seed=5, steps=1, count=1, passes=1, width=64, height=64)


@pytest.fixture
def sdxl(tmp_path: Path) -> DiffusersHost:
    torch.manual_seed(0)
    pipeline = tiny.sdxl_pipeline(tmp_path)
    tiny.write_offsets(tmp_path, pipeline.unet, "layer_xl_transparent_attn")
    tiny.write_codec(tmp_path)
    return DiffusersHost(pipeline, "sdxl", LayerFiles([tmp_path], offline=True))


def rgba(host: DiffusersHost) -> np.ndarray:
    return np.asarray(host.run(SETTINGS).items[0].image)


@pytest.mark.parametrize("roomy", [True, False])
def test_merged_once_where_there_is_room(sdxl, monkeypatch, roomy):
    monkeypatch.setattr(unet_method, "is_roomy", lambda device: roomy)
    merges, merge = [], merging._merged_parameter
    monkeypatch.setattr(merging, "_merged_parameter", lambda *inputs: merges.append(1) or merge(*inputs))
    first = rgba(sdxl)
    once = len(merges)
    assert once and np.array_equal(rgba(sdxl), first)
    assert len(merges) == (once if roomy else 2 * once)


def test_a_changed_checkpoint_is_merged_anew(sdxl, monkeypatch):
    monkeypatch.setattr(unet_method, "is_roomy", lambda device: True)
    first = rgba(sdxl)
    weight = sdxl.pipeline.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_v.weight
    weight.data.mul_(3)
    changed = rgba(sdxl)
    sdxl._kept["method"][1].release()
    assert np.array_equal(rgba(sdxl), changed) and not np.array_equal(changed, first)


def test_a_replaced_file_is_read_anew(sdxl, tmp_path):
    first = rgba(sdxl)
    tiny.write_offsets(tmp_path, sdxl.pipeline.unet, "layer_xl_transparent_attn")
    kept = sdxl._kept["method"][1]
    second = rgba(sdxl)
    assert sdxl._kept["method"][1] is not kept and second.shape == first.shape
