"""Chains in jobs on a stand-in of a WebUI: what they need, what they leave, and the same made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fakes.running import IMAGE_ARGUMENTS, picture, run
from fakes.scripts import ALWAYS_VISIBLE, Script
from lib_layerdiffuse.form.frames import FRAMES as ROWS
from lib_layerdiffuse.form.ways import CHAINS
from lib_layerdiffuse.sets.chains import FRAMES

JOINT = {"method": "xl_joint"}
EACH = pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.id)
ONE_STEP = {"steps": 1}
PROMPT = {name: frame.prompt for name, frame in ROWS.items()}
SEED = {name: frame.seed for name, frame in ROWS.items()}
ROUNDING = 2  # levels of 255 by which another batch size may change a picture
FAULTS = [(RuntimeError("shapes cannot be multiplied"), 2), (torch.cuda.OutOfMemoryError("CUDA out of memory"), 3)]


def layer_of(chain: Any, **more: Any) -> dict[str, Any]:
    """What a chain needs: its name and its pictures."""
    images = {IMAGE_ARGUMENTS[frame]: picture(seed=place) for place, frame in enumerate(chain.images)}
    return {"method": chain.id, **images, **more}


def frames_of(chain: Any) -> list[str]:
    """What a set has, in the order of the result."""
    return [frame for frame in FRAMES if frame in chain.makes]


def layers(outcome: Any) -> dict[str, np.ndarray]:
    """The first set's layers by frame, as the result names them."""
    return dict(zip(reversed(outcome.parameters["layerdiffusion_layer"]), reversed(outcome.arrays), strict=True))


def parameters(text: str) -> dict[str, str]:
    """The generation parameters of an infotext."""
    pairs = re.findall(r'(\w[\w ]*): ("(?:\\.|[^"])*"|[^,]*)', text.split("\n")[-1])
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}


def texts(outcome: Any) -> list[str]:
    """Infotexts of the pictures."""
    return outcome.processed.infotexts[outcome.processed.index_of_first_image :]


def saved(webui: Any) -> list[str]:
    """Names of all files but grids."""
    return sorted(path.stem for path in Path(webui.folder, "outputs", "txt2img-images").glob("*.png"))


def kept_layers(webui: Any) -> list[str]:
    """Names of the files of layers, whatever plain pictures lie beside them."""
    return [name for name in saved(webui) if name.rpartition("-")[2] in FRAMES]


def by_hand(webui: Any, chain: Any, own: dict[str, dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    """The layers of a chain made by its single steps, each given the pictures of those before; `own` are fields."""
    made: dict[str, Any] = {frame: picture(seed=place) for place, frame in enumerate(chain.images)}
    for step in chain.steps:
        (frame,) = step.makes
        images = {IMAGE_ARGUMENTS[given.frame]: made[given.frame] for given in step.given}
        outcome = run(webui, {"method": step.method, **images}, **(fields | (own or {}).get(frame, {})))
        assert outcome.error is None
        made[frame] = outcome.pictures[0]
    return {frame: np.asarray(made[frame]) for frame in chain.makes}


def same_layers(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two sets are the same to the bit."""
    return one.keys() == other.keys() and all(np.array_equal(one[frame], other[frame]) for frame in one)


def with_script(webui: Any, *scripts: type) -> Any:
    """The WebUI with other always-on scripts."""
    webui.extra_scripts = list(scripts)
    return webui.reload_ui()


class AlwaysOn(Script):
    """A script of another extension."""

    args_from = args_to = 0

    def show(self, is_img2img: bool) -> Any:
        return ALWAYS_VISIBLE
