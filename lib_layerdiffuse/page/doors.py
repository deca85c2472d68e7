"""A layer around gradio's server that closes the addresses which the page has no use for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

API = "/gradio_api/"
# What the page's own scripts call; the rest of gradio's API answers as if it were not there.
OPEN_API = ("queue/", "run/predict", "upload", "file=", "heartbeat/", "cancel", "reset", "startup-events", "theme.css")
OPEN_API_EXACTLY = ("login_check", "user", "token", "app_id", "app_id/")
CLOSED = ("/monitoring", "/openapi.json", "/docs", "/redoc")

Scope = MutableMapping[str, Any]
Application = Callable[..., Awaitable[None]]


class Doors:
    """ASGI middleware: 404 for every closed address."""

    def __init__(self, app: Application):
        self.app = app

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        if scope["type"] == "http" and not is_open(scope["path"]):
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"Not Found"})
            return
        await self.app(scope, receive, send)


def is_open(path: str) -> bool:
    """Whether an address belongs to the page."""
    if path.startswith(API):
        name = path[len(API) :]
        return name.startswith(OPEN_API) or name in OPEN_API_EXACTLY
    return not path.startswith(CLOSED)
