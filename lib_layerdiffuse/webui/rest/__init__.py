"""REST routes under /layerdiffuse/v1/ on the WebUI's own server: what there is, layer files, encoding and decoding.

They exist with the WebUI's `--api` (or `--nowebui`) only, behind its `--api-auth`, and are described in its /docs.
"""

from __future__ import annotations

from typing import Any

from ..host.modules import host_module


def install(_page: Any, app: Any) -> None:
    """The WebUI's on_app_started: put the routes on its FastAPI app."""
    flags = host_module("shared").cmd_opts
    if getattr(flags, "api", False) or getattr(flags, "nowebui", False):
        from .routes import router  # FastAPI is there with the API only

        app.include_router(router())
