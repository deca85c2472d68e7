"""Pictures that a WebUI or another script saves of a job beside its result, with the transparency that belongs to them.

A WebUI says what such a picture is by the end of its name; scripts that work on the finished pictures save what they
like: that is known by its looks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..host.modules import option
from ..jobs.job import Job, job_of
from ..jobs.outcome import Named
from ..jobs.pictures import Layer, clear
from . import files
from .finishing import as_layer, bare, cut_out, uncorrected
from .keeping import is_opaque, with_alpha

ALIKE = 0.12  # mean difference of visible colours, of 1, up to which a picture counts as made from a layer
SAME_SHAPE = 0.02


def replacement(parameters: Any) -> Image.Image | None:
    """The layer to save in the place of an opaque picture that the WebUI or a script is about to save of a job."""
    image, job = parameters.image, job_of(parameters.p)
    if job is None or job.failed or files.is_marked(image):
        return None
    stem = Path(parameters.filename).stem
    for suffix, make in BESIDE.items():
        if stem.endswith(suffix):
            return marked(job, make(job, image))
    return remade(job, parameters) if job.outcome.is_over else None


def marked(job: Job, picture: Named | None) -> Image.Image | None:
    """A picture of a frame as a layer of ours."""
    return None if picture is None else as_layer(job, *picture)


def first_pass(job: Job, image: Image.Image) -> Named | None:
    """Before a second pass: the layer of the first."""
    return None if job.second_pass is None else job.second_pass.next_first(image)


BESIDE: dict[str, Callable[[Job, Image.Image], Named | None]] = {
    "-before-face-restoration": bare,
    "-before-color-correction": uncorrected,
    "-before-highres-fix": first_pass,
    "-mask-composite": lambda job, _image: cut_out(job),
    "-ad-before": bare,
}


# --- after the job


def remade(job: Job, parameters: Any) -> Image.Image | None:
    """What a script made of a finished layer, with its alpha; None, and a note, where it is made from none."""
    image = parameters.image
    if not is_opaque(image) or is_grid(parameters):
        return None
    found = made_from(image, job)
    if found is None:
        job.request.note(f"{Path(parameters.filename).name} was saved by another script, and has no transparency")
        return None
    layer = clear(found)
    if layer is None:  # made from an opaque one
        return None
    result = as_layer(job, layer.frame, with_alpha(image, layer))
    job.outcome.remake(image, result)
    return result


def is_grid(parameters: Any) -> bool:
    """Whether a file goes where grids go."""
    folder = getattr(parameters.p, "outpath_grids", None)
    path = Path(parameters.filename)
    return path.name.startswith("grid") or (folder is not None and Path(folder) in path.parents)


def give_back_alpha(job: Job, processed: Any, known: list[Any]) -> None:
    """In a job's results: what scripts put there beside those `known` before (no grid), and the cut-outs of masks."""
    images, before = processed.images, {id(image) for image in known}
    for place, image in enumerate(images):
        if not isinstance(image, Image.Image) or id(image) in before or place < processed.index_of_first_image:
            continue
        if id(image) in job.outcome.remade:
            images[place] = job.outcome.remade[id(image)][1]
        elif is_opaque(image):
            found = clear(made_from(image, job))
            if found is not None:
                images[place] = as_layer(job, found.frame, with_alpha(image, found))
    give_cut_outs(job, images, known)


def give_cut_outs(job: Job, images: list[Any], known: list[Any]) -> None:
    """Composites of masks, which a WebUI by its settings shows after each picture, with the picture's alpha."""
    after = 2 if option("return_mask", False) else 1
    layers = [place for place, image in enumerate(known) if isinstance(image, Image.Image) and files.is_marked(image)]
    for place, found in zip(layers, job.outcome.cut_outs, strict=False):
        if found is not None and place + after < len(known):
            theirs = known[place + after]
            images[:] = [as_layer(job, *found) if image is theirs else image for image in images]


def made_from(image: Image.Image, job: Job) -> Layer | None:
    """The layer that an opaque picture was made from, by the colours that are visible in both; None for none."""
    distances = [(distance(image, result), place) for place, (_, result) in enumerate(job.outcome.results)]
    least, place = min(distances, default=(1.0, 0))
    if least > ALIKE:
        return None
    frame, result = job.outcome.results[place]
    return Layer(frame, result.convert("RGB"), result if result.mode == "RGBA" else None)


def distance(image: Image.Image, result: Image.Image) -> float:
    """Mean difference, in [0,1], of the colours that are visible in a layer; 1 for another shape."""
    if abs(image.width * result.height / (image.height * result.width) - 1) > SAME_SHAPE:
        return 1.0
    values = np.asarray(result.convert("RGBA"), np.float32)
    seen = np.asarray(image.convert("RGB").resize(result.size, Image.Resampling.BOX), np.float32)
    weight = values[..., 3:] / 255
    total = float(weight.sum()) * 3
    return float((np.abs(seen - values[..., :3]) * weight).sum()) / 255 / total if total else 1.0
