"""What the WebUI's page asks while the box is ticked: which checkpoint is loaded, by whomever it was changed."""

from __future__ import annotations

from typing import Any

from ...form.surroundings import state_text
from ..host.host import loaded_base, loaded_base_note

ADDRESS = "/internal/layerdiffuse/checkpoint"


def checkpoint() -> dict[str, str]:
    """What the accordion's choices and its note depend on."""
    return {"state": state_text(loaded_base(), loaded_base_note())}


def add_routes(_page: Any, app: Any) -> None:
    """The WebUI's on_app_started."""
    app.add_api_route(ADDRESS, checkpoint, methods=["GET"], include_in_schema=False)
