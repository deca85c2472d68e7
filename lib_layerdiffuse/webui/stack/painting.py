"""A layer painted by the WebUI: one job of txt2img, in its queue, with its progress and its Interrupt."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Any

from PIL import Image

from ...core.errors import InputError, LayerDiffuseError, unforeseen
from ...core.methods import BACKGROUND
from ...core.picture.resize_modes import ResizeMode
from ...form.arguments import BY_NAME
from ...form.stack.work import Watch
from ...sets.chains import Chain, find_chain
from ...sets.stack import PaintRequest, Stopped
from ..host.host import loaded_base, loaded_base_note
from ..host.main_thread import in_main_thread
from ..host.modules import host_module, option
from ..jobs.telling import ERROR_KEY

logger = logging.getLogger(__name__)

JOB = "layerdiffuse layer"
FROM_BACKGROUND = "from-background"
WAITING = "waiting for the WebUI"
Answer = dict[str, Any]


def paint(request: PaintRequest, settings: dict[str, Any], watch: Watch) -> Image.Image:
    """The picture that answers a request; a typed error, or Stopped, where there is none."""
    watch.report(0.0, WAITING)
    answer: Answer = {}
    with host_module("call_queue").queue_lock:
        if watch.stop.is_set():
            raise Stopped
        in_main_thread(lambda: work(request, settings, watch, answer))
    if "error" in answer:
        raise answer["error"]
    watch.notes += answer["notes"]
    return answer["picture"]


def work(request: PaintRequest, settings: dict[str, Any], watch: Watch, answer: Answer) -> None:
    """The job; whatever happens is in the answer."""
    state = host_module("shared").state
    state.begin(job=JOB)
    watch.look, watch.on_stop = lambda: look(state, watch), state.interrupt
    try:
        answer["picture"], answer["notes"] = painted(request, settings)
    except (LayerDiffuseError, Stopped) as error:
        answer["error"] = error
    except Exception as error:  # the WebUI's own: memory, NaNs, another extension
        logger.exception("the WebUI could not paint a layer")
        answer["error"] = unforeseen(error)
    finally:
        watch.look = watch.on_stop = None
        state.end()


def look(state: Any, watch: Watch) -> None:
    """How far the WebUI says that it is."""
    jobs, steps = max(state.job_count or 1, 1), max(state.sampling_steps or 1, 1)
    done = (max(state.job_no or 0, 0) + min((state.sampling_step or 0) / steps, 1)) / jobs
    watch.report(min(done, 1), state.textinfo or "painting")


def painted(request: PaintRequest, settings: dict[str, Any]) -> tuple[Image.Image, list[str]]:
    """The picture of the job that the WebUI makes of a request, and notes; Stopped where the user ended it."""
    processing, shared = host_module("processing"), host_module("shared")
    p = processing.StableDiffusionProcessingTxt2Img(**fields_of(request, settings))
    p.is_api = True  # or scripts would put what stands on the page's txt2img tab over steps, sampler and seed
    p.scripts = host_module("scripts").scripts_txt2img
    p.script_args = script_arguments(p.scripts, arguments_of(request))
    with closing(p):
        processed = processing.process_images(p)
    if shared.state.interrupted:
        raise Stopped
    return chosen(processed, request)


def fields_of(request: PaintRequest, settings: dict[str, Any]) -> dict[str, Any]:
    """What the WebUI's own fields would say; nothing is saved: the stack keeps its pictures."""
    folders = {"outpath_samples": "outdir_txt2img_samples", "outpath_grids": "outdir_txt2img_grids"}
    return {
        "sd_model": host_module("shared").sd_model,
        **{name: option(setting, "") for name, setting in folders.items()},
        "prompt": request.prompt,
        "negative_prompt": settings["negative_prompt"],
        "seed": request.seed,
        "steps": settings["steps"],
        "cfg_scale": settings["guidance"],
        "sampler_name": settings["sampler"],
        "width": request.width,
        "height": request.height,
        "batch_size": len(chain().steps[0].makes) if request.background is not None else 1,
        "n_iter": 1,
        "do_not_save_samples": True,
        "do_not_save_grid": True,
    }


def chain() -> Chain:
    """What paints on a background with the loaded checkpoint; InputError where nothing does."""
    base = loaded_base()
    if base is None:
        got = loaded_base_note() or "no checkpoint with layer methods"
        raise InputError(got, "a checkpoint of SD1.5, SDXL or the demo model", "load one, and paint again")
    return find_chain(base, FROM_BACKGROUND)


def arguments_of(request: PaintRequest) -> dict[str, Any]:
    """Our own script's arguments: off for a background, else the method that there is for it."""
    if request.role == BACKGROUND:
        return {"enabled": False}
    if request.background is None:
        return {"enabled": True, "weight": request.weight}
    given = {"bg_image": request.background, "resize_mode": ResizeMode.STRETCH.value}
    return {"enabled": True, "method": chain().id, "weight": request.weight, **given}


def script_arguments(runner: Any, ours: dict[str, Any]) -> list[Any]:
    """The values of all scripts as their components have them at first, but ours."""
    from ..script import TITLE

    values = [getattr(part, "value", None) for part in runner.inputs]
    last = max([script.args_to for script in runner.scripts], default=1)
    values = [0, *values[1:], *([None] * (last - len(values)))]  # 0: no selectable script
    for script in runner.alwayson_scripts:
        if script.title() == TITLE:
            values[script.args_from : script.args_to] = [ours, *([None] * (script.args_to - script.args_from - 1))]
    return values


def chosen(processed: Any, request: PaintRequest) -> tuple[Image.Image, list[str]]:
    """The picture among a job's that was asked for, and what the user was told under the gallery.

    InputError where it is not there.
    """
    # texts: as an API gets layers where the WebUI's format has no alpha
    pictures = [BY_NAME["bg_image"].parse(one) if isinstance(one, str) else one for one in processed.images]
    notes = [line for line in (processed.comments or "").replace("LayerDiffuse: ", "").split("\n") if line.strip()]
    error = processed.extra_generation_params.get(ERROR_KEY) if processed.extra_generation_params else None
    wanted = pictures if request.role == BACKGROUND else [one for one in pictures if one.mode == "RGBA"]
    if error or not wanted:
        why = str(error or "; ".join(notes) or "no picture")
        raise InputError(f"no layer from the WebUI ({why[:500]})", "a picture", "look into its log")
    return wanted[0], notes
