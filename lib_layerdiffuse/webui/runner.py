"""Around the scripts that a user chooses from the WebUI's list: no hook is called before they run."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..core.methods import FOREGROUND
from ..hosts.webui.modules import host_module
from .script import LayerDiffuseScript, wanted
from .selected import Selected, selected_of

logger = logging.getLogger(__name__)

ATTRIBUTE = "layerdiffuse_run"


def install() -> None:
    """Wrap the WebUI's running of a chosen script, once."""
    runner = host_module("scripts").ScriptRunner
    if hasattr(runner, ATTRIBUTE):
        return
    original = runner.run

    @functools.wraps(original)
    def run(self: Any, p: Any, *arguments: Any) -> Any:
        script = chosen_script(self, arguments)
        if script is None or selected_of(p) is not None or not ticked(self, p, arguments):
            return original(self, p, *arguments)
        return run_selected(p, script, arguments, lambda: original(self, p, *arguments))

    setattr(runner, ATTRIBUTE, (run, original))
    runner.run = run


def remove() -> None:
    """Give the WebUI its own function back, unless another extension has put its own around ours."""
    runner = host_module("scripts").ScriptRunner
    ours, original = getattr(runner, ATTRIBUTE, (None, None))
    if ours is not None and runner.run is ours:
        runner.run = original
        delattr(runner, ATTRIBUTE)


def chosen_script(runner: Any, arguments: tuple[Any, ...]) -> Any | None:
    """The script that the user chose; None for none."""
    number = arguments[0] if arguments else None
    if not isinstance(number, int) or not 0 < number <= len(runner.selectable_scripts):
        return None
    return runner.selectable_scripts[number - 1]


def ticked(runner: Any, p: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether our box is ticked in these arguments."""
    ours = next((script for script in runner.alwayson_scripts if isinstance(script, LayerDiffuseScript)), None)
    return ours is not None and wanted(p, tuple(arguments[ours.args_from : ours.args_to]))


def run_selected(p: Any, script: Any, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
    """The script's result, with what it would lose of transparency; the reason instead, where its jobs failed."""
    with Selected(p, script.title(), named_arguments(p, script, arguments)) as selected:
        try:
            processed = run()
        except Exception:
            if selected.failed is None:
                raise
            logger.info("%s ended early, as its jobs failed", selected.title)
            processed = host_module("processing").process_images(p)  # which says why, and makes no picture
        selected.deliver(processed)
        if selected.whole is not None:
            LayerDiffuseScript.last.remember(FOREGROUND, selected.whole)
        return processed


def named_arguments(p: Any, script: Any, arguments: tuple[Any, ...]) -> Mapping[str, Any]:
    """The script's arguments by the names that it gives them; none where they do not fit."""
    try:
        own = arguments[script.args_from : script.args_to]
        return inspect.signature(script.run).bind(p, *own).arguments
    except (TypeError, ValueError):
        return {}
