"""Hosts of tiny random pipelines of the demo, SD1.5 and SDXL layouts, with the layer files that a test asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tiny
import torch

from lib_layerdiffuse.files.downloads import LayerFiles
from lib_layerdiffuse.standalone.demo import load_demo
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost


def demo_host(folder: Path) -> DiffusersHost:
    """The demo model with all its files, in a folder."""
    tiny.write_demo_folder(folder)
    return DiffusersHost(load_demo(folder), "demo", LayerFiles([folder], offline=True), captions=tiny.CONCEPTS)


def sd15_host(folder: Path, sharing: Mapping[str, int]) -> DiffusersHost:
    """SD1.5 with methods by the stems of their files, each with the number of its frames; two need a given one."""
    torch.manual_seed(0)
    for stem, frames in sharing.items():
        tiny.write_sharing(folder, stem, frames, control=frames == 2)
    tiny.write_codec(folder, "layer_sd15_")
    return DiffusersHost(tiny.sd15_pipeline(folder), "sd15", LayerFiles([folder], offline=True))


def sdxl_host(folder: Path, wide: Mapping[str, int]) -> DiffusersHost:
    """SDXL with its method for one picture, and others by their stems, each with the number of given latents."""
    torch.manual_seed(0)
    pipeline = tiny.sdxl_pipeline(folder)
    tiny.write_offsets(folder, pipeline.unet, "layer_xl_transparent_attn")
    for stem, given in wide.items():
        tiny.write_wide_offsets(folder, pipeline.unet, stem, given)
    tiny.write_codec(folder)
    return DiffusersHost(pipeline, "sdxl", LayerFiles([folder], offline=True))
