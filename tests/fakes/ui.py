"""Small stand-ins for the parts of a WebUI's `modules` that settings page, plot, downloads and accordion touch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class OptionInfo:
    """One setting, with the fields that settings pages read."""

    def __init__(self, default=None, label="", component=None, component_args=None, section=None):
        self.default, self.label, self.section = default, label, section
        self.component, self.component_args = component, component_args
        self.restrict_api = False


class Opts:
    """The settings: values of the configuration file first, else the defaults of what was added."""

    def __init__(self, **saved: Any):
        self.data, self.data_labels = dict(saved), {}

    def add_option(self, key: str, info: OptionInfo) -> None:
        self.data_labels[key] = info
        self.data.setdefault(key, info.default)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(name) from None


class AxisOption:
    """An axis of the plot, with the constructor that all WebUIs share."""

    def __init__(self, label, type, apply, format_value=None, confirm=None, cost=0.0, choices=None, prepare=None):  # noqa: A002, PLR0913 as it is there
        self.label, self.type, self.apply, self.confirm, self.choices = label, type, apply, confirm, choices


def shared(flags: dict[str, Any] | None = None, **saved: Any) -> SimpleNamespace:
    """`modules.shared` with command line flags and saved settings."""
    return SimpleNamespace(
        opts=Opts(**saved),
        cmd_opts=SimpleNamespace(**(flags or {})),
        state=SimpleNamespace(interrupted=False, textinfo=None),
        OptionInfo=OptionInfo,
        hide_dirs={"visible": True},
    )


def plot_script(path: str = "scripts/xyz_grid.py") -> SimpleNamespace:
    """An entry of `scripts_data` for the plot's script."""
    axes = [AxisOption("Nothing", str, None), AxisOption("Seed", int, None)]
    return SimpleNamespace(path=path, module=SimpleNamespace(axis_options=axes, AxisOption=AxisOption))


def input_accordion(gradio: Any) -> Any:
    """`InputAccordion` as it is used: `with InputAccordion(False, label=..., elem_id=...) as checkbox`."""

    @contextmanager
    def accordion(value: bool, label: str, elem_id: str) -> Iterator[Any]:
        checkbox = gradio.Checkbox(value, label=label, elem_id=f"{elem_id}-checkbox", visible=False)
        with gradio.Accordion(label, open=value, elem_id=elem_id):
            yield checkbox

    return accordion


def put_modules(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    """Let `modules.<name>` be these objects for one test."""
    package = ModuleType("modules")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "modules", package)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
        setattr(package, name, module)
