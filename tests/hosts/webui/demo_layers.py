"""The demo model's layers by the standalone program, painted as a WebUI's Euler paints them."""

from __future__ import annotations

from pathlib import Path

import pytest
from client import picture
from PIL import Image
from webui_page import RECOMMENDED

from lib_layerdiffuse.core.methods import METHODS, Method

LAYERED = tuple(method.id for method in METHODS if method.base == "demo")
SIDE = RECOMMENDED["demo"]["width"]
PROMPT = "a red apple on a beach"
JOB = {**RECOMMENDED["demo"], "prompt": PROMPT, "negative_prompt": "", "sampler_name": "Euler"}


def given(method: Method) -> dict[str, Image.Image]:
    """The pictures that a method needs, at the model's own size."""
    return {name: picture(name, (SIDE, SIDE)) for name in method.images}


def painted(method: Method, seed: int, folder: Path) -> list[Image.Image]:
    """The layers of one set; files that do not ship are in `folder`."""
    api = pytest.importorskip("lib_layerdiffuse.api")
    schedulers = pytest.importorskip("diffusers.schedulers")
    host = api.load(models=folder)
    # a WebUI's Euler spaces its steps evenly from the noisiest to the first
    host.pipeline.scheduler = schedulers.EulerDiscreteScheduler.from_config(
        host.pipeline.scheduler.config, timestep_spacing="linspace"
    )
    settings = {"steps": JOB["steps"], "guidance": JOB["cfg_scale"], "width": SIDE, "height": SIDE}
    pictures = api.generate(
        PROMPT, pipeline=host, method=method.id, seed=seed, count=1, passes=1, **settings, **given(method)
    )
    return [one.image for one in pictures]
