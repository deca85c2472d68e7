"""Around the scripts that a user chooses from the WebUI's list: no hook is called before they run."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ...core.methods import FOREGROUND
from ..host.modules import host_module
from ..script import LayerDiffuseScript, wanted
from ..wrapping import unwrap, wrap
from .selected import Selected, selected_of

logger = logging.getLogger(__name__)


def install() -> None:
    """Wrap the WebUI's running of a chosen script, once."""
    wrap(host_module("scripts").ScriptRunner, "run", around)


def remove() -> None:
    """Give the WebUI its own function back."""
    unwrap(host_module("scripts").ScriptRunner, "run")


def around(original: Callable[..., Any], runner: Any, p: Any, *arguments: Any) -> Any:
    """The WebUI's running of a chosen script, which is ours to watch where the box is ticked."""
    script = chosen_script(runner, arguments)
    if script is None or selected_of(p) is not None or not ticked(runner, p, arguments):
        return original(runner, p, *arguments)
    return run_selected(p, script, arguments, lambda: original(runner, p, *arguments))


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
        processed: Any = None
        try:
            processed = run()
        except Exception:  # whatever a script makes of the pictures that its failed job did not give it
            if selected.failed is None:
                raise
            logger.info("%s ended early, as its jobs failed", selected.title)
        if selected.failed is not None:
            processed = host_module("processing").process_images(p)  # which says why, and makes no picture
        selected.deliver(processed)
        if selected.whole is not None:
            LayerDiffuseScript.last.remember(selected.visitor, FOREGROUND, selected.whole)
        return processed


def named_arguments(p: Any, script: Any, arguments: tuple[Any, ...]) -> Mapping[str, Any]:
    """The script's arguments by the names that it gives them; none where they do not fit."""
    try:
        own = arguments[script.args_from : script.args_to]
        return inspect.signature(script.run).bind(p, *own).arguments
    except (TypeError, ValueError):
        return {}
