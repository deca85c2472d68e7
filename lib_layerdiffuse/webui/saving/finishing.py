"""From what the WebUI and other scripts made of an opaque picture to the layer that goes out."""

from __future__ import annotations

from typing import Any

from PIL import Image

from ...core.picture.hidden import with_hidden_colours
from ..host.modules import host_module, option
from ..jobs.job import Job
from ..jobs.outcome import Named
from ..jobs.pictures import ClearLayer, clear
from . import files
from .keeping import Inpainting, with_alpha


def as_layer(job: Job, frame: str, image: Image.Image) -> Image.Image:
    """A picture of a frame as it goes out: hidden colours as the settings want them (no tile goes out), marked."""
    picture = image if job.request.is_tile else with_hidden_colours(image, job.request.options.hidden_colours)
    several = len(job.run.method.frames) > 1 or job.request.chain is not None
    return files.mark(picture, frame, several)


def finished(job: Job, layer: ClearLayer, composite: Image.Image) -> Image.Image:
    """The RGBA picture: the composite that the WebUI made, with alpha; an inpainting in place in its own picture."""
    if job.init_images and getattr(job.p, "_ad_skip_img2img", False):  # ADetailer works on the start picture instead
        return with_alpha(composite, job.init_images.as_layer(job.p.batch_index))
    inpainting = inpainting_of(job)
    return with_alpha(composite, layer) if inpainting is None else inpainting.paste(patch_of(job, layer))


def inpainting_of(job: Job) -> Inpainting | None:
    """Where the new pixels of the picture at hand go, if it is inpainted in place."""
    if not job.init_images or not option("overlay_inpaint", True):
        return None
    return job.init_images.inpainting(job.p.batch_index, job.outcome.overlay)


def patch_of(job: Job, layer: ClearLayer, corrected: bool = True) -> Image.Image:
    """What was painted, RGBA, before it is put in place; with the WebUI's colour correction, or without."""
    edited = layer.opaque if job.outcome.edited is None else job.outcome.edited.image
    return with_alpha(colour_corrected(job.p, edited) if corrected else edited, layer)


def colour_corrected(p: Any, image: Image.Image) -> Image.Image:
    """What the WebUI's setting for colour correction makes of a picture, if it is on."""
    corrections = getattr(p, "color_corrections", None)
    if not corrections or p.batch_index >= len(corrections):
        return image
    return host_module("processing").apply_color_correction(corrections[p.batch_index], image.convert("RGB"))


# --- beside the result


def layer_at_hand(job: Job) -> ClearLayer | None:
    """The layer of the picture that the WebUI is at, where it has alpha."""
    return clear(job.outcome.layer_at(job.p.batch_index))


def bare(job: Job, image: Image.Image) -> Named | None:
    """Before other scripts or the WebUI went on with what was painted."""
    layer = layer_at_hand(job)
    return None if layer is None else (layer.frame, with_alpha(image, layer))


def uncorrected(job: Job, image: Image.Image) -> Named | None:
    """The result before its colours are corrected."""
    layer, inpainting = layer_at_hand(job), inpainting_of(job)
    if layer is None or inpainting is None:
        return bare(job, image)
    return layer.frame, inpainting.paste(patch_of(job, layer, corrected=False))


def cut_out(job: Job) -> Named | None:
    """What was painted, in place, and nothing outside of the mask."""
    layer, inpainting = layer_at_hand(job), inpainting_of(job)
    if layer is None or inpainting is None:
        return None
    return layer.frame, inpainting.cut_out(patch_of(job, layer))
