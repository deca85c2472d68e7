"""What the WebUI calls outside of a script's own hooks."""

from __future__ import annotations

from typing import Any

from ..hosts.webui.modules import host_module
from . import files, page_state, stealth
from .axes import register_axes
from .job import ATTRIBUTE
from .options import read_options, register_options
from .tile_scripts import runner


def before_step(parameters: Any) -> None:
    """on_cfg_denoiser, before each denoising step of any job."""
    job = getattr(getattr(parameters.denoiser, "p", None), ATTRIBUTE, None)
    if job is not None:
        job.before_step(parameters)


def before_saving(parameters: Any) -> None:
    """on_before_image_saved, for every image that the WebUI saves."""
    files.before_saving(parameters, read_options())


def after_saving(parameters: Any) -> None:
    """on_image_saved."""
    files.after_saving(parameters, read_options())


def register() -> None:
    """Tell the WebUI; it forgets all of this by itself when its page is reloaded."""
    callbacks = host_module("script_callbacks")
    callbacks.on_cfg_denoiser(before_step)
    callbacks.on_before_image_saved(before_saving)
    callbacks.on_image_saved(after_saving)
    callbacks.on_image_grid(files.on_checkerboard)
    callbacks.on_ui_settings(register_options)
    callbacks.on_before_ui(register_axes)
    callbacks.on_app_started(page_state.add_routes)
    for wrapper in (runner, stealth):
        wrapper.install()
        callbacks.on_script_unloaded(wrapper.remove)
