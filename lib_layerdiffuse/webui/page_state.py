"""What the WebUI's page asks while the box is ticked: which checkpoint is loaded, by whomever it was changed."""

from __future__ import annotations

from typing import Any

from ..hosts.webui.host import loaded_base, loaded_base_note

ADDRESS = "/internal/layerdiffuse/checkpoint"


def checkpoint() -> dict[str, str | None]:
    """The base that the accordion offers methods for, and what it says about a checkpoint that has none."""
    return {"base": loaded_base(), "note": loaded_base_note()}


def add_routes(_page: Any, app: Any) -> None:
    """The WebUI's on_app_started."""
    app.add_api_route(ADDRESS, checkpoint, methods=["GET"], include_in_schema=False)
