"""The header of the accordion in a WebUI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...form.arguments import BY_NAME
from ..host.modules import host_module

WEBUI_TITLE = "LayerDiffuse"


@contextmanager
def input_accordion_header(gradio: Any, prefix: str) -> Iterator[Any]:
    """The WebUI's own accordion with a box in its title."""
    accordion = host_module("ui_components").InputAccordion
    with accordion(BY_NAME["enabled"].default, label=WEBUI_TITLE, elem_id=f"{prefix}_accordion") as enabled:
        yield enabled
