"""Serving the page: no calls home, no web fonts, temporary files of its own that go when it ends."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.page.model import PageModel
from lib_layerdiffuse.page.visits import Visits

# gradio reads these when it is imported, so they are set before.
ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
TEMPORARY = "GRADIO_TEMP_DIR"


@dataclass(frozen=True)
class ServerSettings:
    """Address and port to listen on (0: a free one), and whether a browser is opened."""

    server_name: str = "127.0.0.1"
    port: int = 7860
    open_browser: bool = False


class Server:
    """A running page; `close` ends it and removes its files. Works in a `with` statement."""

    def __init__(self, model: PageModel, settings: ServerSettings | None = None):
        self.visits = Visits()
        try:
            self.blocks = start(model, self.visits, settings or ServerSettings())
        except BaseException:
            self.remove_files()
            raise

    @property
    def url(self) -> str:
        """Address of the page."""
        return self.blocks.local_url

    def wait(self) -> None:
        """Serves until the process is interrupted."""
        self.blocks.block_thread()

    def close(self) -> None:
        """Ends the page and removes its temporary files."""
        self.blocks.close(verbose=False)
        self.remove_files()

    def remove_files(self) -> None:
        """Removes all temporary files and makes gradio forget where they were."""
        if os.environ.get(TEMPORARY) == str(self.visits.served):
            del os.environ[TEMPORARY]
        self.visits.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def build_page(model: PageModel, visits: Visits) -> Any:
    """The page as gradio Blocks, not yet served."""
    import gradio

    from lib_layerdiffuse.page.handlers import Handlers
    from lib_layerdiffuse.page.layout import Layout

    with gradio.Blocks(title="LayerDiffuse", analytics_enabled=False, delete_cache=(3600, 7200)) as blocks:
        layout = Layout(model)
        layout.build()
        Handlers(model, layout, visits).connect(blocks)
    return blocks


def start(model: PageModel, visits: Visits, settings: ServerSettings) -> Any:
    """Builds the page and serves it in the background."""
    os.environ.update(ENVIRONMENT)
    bypass_proxy(settings.server_name)
    os.environ.setdefault(TEMPORARY, str(visits.served))
    import gradio

    from lib_layerdiffuse.page import style

    blocks = build_page(model, visits)
    try:
        blocks.launch(
            server_name=settings.server_name,
            server_port=settings.port or free_port(settings.server_name),
            inbrowser=settings.open_browser,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            ssr_mode=False,
            theme=style.theme(gradio),
            css=style.CSS,
            footer_links=[],
            # Leaves out gradio's own probe, which gives a slow machine three seconds and then refuses to start.
            _frontend=False,
        )
    except OSError as error:
        address = f"{settings.server_name}:{settings.port}"
        raise InputError(f"{address} ({error})", "an address and a port that are free", "try --port 0") from error
    return blocks


def bypass_proxy(server_name: str) -> None:
    """Lets gradio reach its own server where the environment names a proxy for everything."""
    for variable in ("no_proxy", "NO_PROXY"):
        named = [name for name in os.environ.get(variable, "").split(",") if name]
        own = [name for name in ("localhost", "127.0.0.1", server_name) if name not in named]
        os.environ[variable] = ",".join([*named, *dict.fromkeys(own)])


def free_port(server_name: str) -> int:
    """A port that nothing listens on."""
    import socket

    with socket.socket() as listener:
        listener.bind((server_name, 0))
        return listener.getsockname()[1]
