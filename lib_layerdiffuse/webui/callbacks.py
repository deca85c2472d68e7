"""What the WebUI calls outside of a script's own hooks."""

from __future__ import annotations

from typing import Any

from . import demo_tokenizer, rest, small_controlnet
from .host.modules import host_module
from .jobs.job import job_of
from .layer_files.files_table import TABLE
from .page import page_state
from .page.axes import register_axes
from .page.options import register_options
from .saving import last_word, layer_download, saving, stealth
from .stack.tab import TABS
from .tile_scripts import runner


def before_step(parameters: Any) -> None:
    """on_cfg_denoiser, before each denoising step of any job."""
    job = job_of(getattr(parameters.denoiser, "p", None))
    if job is not None:
        job.before_step(parameters)


def register() -> None:
    """Tell the WebUI; it forgets all of this by itself when its page is reloaded."""
    callbacks = host_module("script_callbacks")
    callbacks.on_cfg_denoiser(before_step)
    callbacks.on_ui_settings(register_options)
    callbacks.on_before_ui(register_axes)
    callbacks.on_before_ui(TABLE.begin)
    callbacks.on_after_component(TABLE.after_component)
    callbacks.on_before_ui(TABS.begin)
    callbacks.on_after_component(TABS.after_component)
    callbacks.on_ui_tabs(TABS.build)
    callbacks.on_app_started(page_state.add_routes)
    callbacks.on_app_started(layer_download.add_routes)
    callbacks.on_app_started(rest.install)
    callbacks.on_app_started(saving.install_api)
    callbacks.on_before_ui(stealth.install_sending)  # after all extensions were loaded, some of which replace it
    callbacks.on_before_ui(small_controlnet.install)
    callbacks.on_script_unloaded(small_controlnet.remove)
    for wrapper in (runner, last_word, saving, stealth, demo_tokenizer):
        wrapper.install()
        callbacks.on_script_unloaded(wrapper.remove)
