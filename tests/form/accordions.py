"""Accordions built with the installed gradio, alone and as they stand in a WebUI."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
from fakes import ui

from lib_layerdiffuse.form.accordion import LayerAccordion, build_accordion
from lib_layerdiffuse.form.arguments import ARGUMENTS
from lib_layerdiffuse.webui.page.header import input_accordion_header
from lib_layerdiffuse.webui.saving.last_result import LastResults

gradio = pytest.importorskip("gradio")


def build(base=None, **options) -> LayerAccordion:
    """An accordion; the plain one of a base is built once, as nothing that a test asks it leaves a trace."""
    return build_anew(base, **options) if options or callable(base) else build_plain(base)


@functools.cache
def build_plain(base: str | None) -> LayerAccordion:
    return build_anew(base)


def build_anew(base=None, **options) -> LayerAccordion:
    with gradio.Blocks() as blocks:
        accordion = build_accordion(gradio, base=base, **options)
    accordion.gradio_blocks = list(blocks.blocks.values())
    return accordion


def by_component(accordion: LayerAccordion, updates: list) -> dict:
    """Updates by argument name, and the mode's under "mode"."""
    names = ["mode", *(argument.name for argument in ARGUMENTS[1:])]
    assert len(updates) == len(accordion.outputs)
    return dict(zip(names, updates, strict=False))


def build_webui(monkeypatch, base=None, note="", last=None) -> LayerAccordion:
    """The accordion as it stands in a WebUI."""
    ui.put_modules(monkeypatch, ui_components=SimpleNamespace(InputAccordion=ui.input_accordion(gradio)))
    return build(
        lambda: base,
        base_note=lambda: note,
        header=input_accordion_header,
        prefix="txt2img_layerdiffuse",
        last_result=(last or LastResults()).get,
    )
