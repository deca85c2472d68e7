"""Axes of the X/Y/Z plot: method, weight, stop at, files; each set on `p` for a cell, before the accordion's values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...files.layer_catalogue import Catalogue
from ...form.arguments import BY_NAME, Argument
from ...form.values import USUAL_FILE
from ...form.ways import ways_for
from ..host.modules import host_module
from ..layer_files import own_files

logger = logging.getLogger(__name__)

TITLE = "[LayerDiffuse]"
ATTRIBUTE = "layerdiffuse_axes"  # on `p`: arguments by name
AXES: dict[str, type] = {
    "method": str,
    "weight": float,
    "ending_step": float,
    "method_file": str,
    "decoder_file": str,
}
DECIMALS = 6  # beyond them a range such as 0-1 (+0.1) has nothing but rounding


def register_axes() -> None:
    """The WebUI's on_before_ui: add the axes to the plot's script, once; its page may be built again."""
    plot = plot_module()
    if plot is None:
        logger.info("no X/Y/Z plot here, so no axes for it")
        return
    known = {axis.label for axis in plot.axis_options}
    axes = [build_axis(plot.AxisOption, BY_NAME[name], kind) for name, kind in AXES.items()]
    plot.axis_options.extend(axis for axis in axes if axis.label not in known)


def plot_module() -> Any:
    """The WebUI's loaded script for X/Y/Z plots, if it has one."""
    for script in host_module("scripts").scripts_data:
        if Path(script.path).name == "xyz_grid.py" and hasattr(script.module, "axis_options"):
            return script.module
    return None


def build_axis(option: Callable[..., Any], argument: Argument, kind: type) -> Any:
    """One axis over the values of an argument."""
    listed = {
        "method": lambda: [way.label for way in ways_for()],
        "file": lambda: [USUAL_FILE, *own_files.offered(Catalogue(), argument.name, None)],
    }
    choices = {"choices": listed[argument.kind]} if argument.kind in listed else {}
    label = f"{TITLE} {argument.label}"
    return option(label, kind, setter(argument), confirm=lambda p, values: check(argument, values), **choices)


def check(argument: Argument, values: Sequence[Any]) -> None:
    """InputError for the first value that the argument cannot take, before any picture is made."""
    for value in values:
        parse(argument, value)


def setter(argument: Argument) -> Callable[[Any, Any, Sequence[Any]], None]:
    """The function that puts a cell's value on its `p`, and switches LayerDiffuse on."""

    def set_value(p: Any, value: Any, values: Sequence[Any]) -> None:
        others = getattr(p, ATTRIBUTE, {})  # cells share it: never change it in place
        setattr(p, ATTRIBUTE, {**others, "enabled": True, argument.name: parse(argument, value)})

    return set_value


def parse(argument: Argument, value: Any) -> Any:
    """The argument's value from an axis."""
    return argument.parse(round(value, DECIMALS) if isinstance(value, float) else value)
