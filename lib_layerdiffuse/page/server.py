"""Serving the page: no calls home, no web fonts, temporary files of its own that go when it ends."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import InputError
from .model import PageModel
from .turns import LIMIT
from .uploads import MAX_FILE_SIZE
from .visits import GRACE_SECONDS, TEMPORARY, Visits

# gradio reads these when it is imported, so they are set before.
ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
WAITING_LIMIT = 64  # events in gradio's queue, hints among them; runs have a limit of their own
# between two looks for new events; gradio's own 0.001 (but on Windows) takes 2 % of a core for a page at rest
LOOK_SECONDS = 0.02
# gradio looks every hour for uploads and copies that are older than a day.
DELETE_CACHE = (3600, 86_400)


@dataclass(frozen=True)
class ServerSettings:
    """Address and port to listen on (0: a free one), whether a browser is opened, and (user, password) if needed."""

    server_name: str = "127.0.0.1"
    port: int = 7860
    open_browser: bool = False
    auth: tuple[str, str] | None = field(default=None, repr=False)


STEP_SECONDS = 10.0


class Server:
    """A running page; `close` ends it and removes its files. Works in a `with` statement."""

    def __init__(self, model: PageModel, settings: ServerSettings | None = None, grace: float = GRACE_SECONDS):
        self.visits, self.turns = Visits(grace), model.turns
        self.ended = threading.Event()
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
        """Serves until somebody sets `ended` or the process is interrupted."""
        while not self.ended.wait(1.0):  # in pieces: Windows hands no Ctrl-C on to a thread that waits for ever
            pass

    def close(self) -> None:
        """Ends the page and removes its temporary files; a step at hand is waited for, for a while.

        Python ends badly under a thread that is inside torch.
        """
        self.blocks.close(verbose=False)
        self.remove_files()
        self.turns.wait_for_all(STEP_SECONDS)

    def remove_files(self) -> None:
        """Removes all temporary files and makes gradio forget where they were."""
        if os.environ.get(TEMPORARY) == str(self.visits.folder):
            del os.environ[TEMPORARY]
        self.visits.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def build_page(model: PageModel, visits: Visits) -> Any:
    """The page as gradio Blocks, not yet served."""
    import gradio

    from . import style
    from .blocks import PageBlocks
    from .handlers import Handlers
    from .layout import Layout
    from .stack_tab import StackTab

    with PageBlocks(title="LayerDiffuse", analytics_enabled=False, delete_cache=DELETE_CACHE) as blocks:
        gradio.HTML(style.title_html(model), elem_id="page_title")
        layout = Layout(model)
        with gradio.Tabs(elem_id="page_tabs"):
            with gradio.Tab("Pictures", elem_id="page_tab_pictures"):
                layout.build()
            with gradio.Tab("Layers", elem_id="page_tab_layers"):
                stack_tab = StackTab(model, visits)
        handlers = Handlers(model, layout, visits)
        handlers.connect(blocks)
        stack_tab.connect(blocks, handlers)
    blocks.close_endpoints()
    blocks.queue(max_size=WAITING_LIMIT, api_open=False)
    blocks._queue.sleep_when_free = LOOK_SECONDS
    blocks._queue.progress_update_sleep_when_free = 5 * LOOK_SECONDS  # the page's runs tell theirs themselves
    return blocks


def start(model: PageModel, visits: Visits, settings: ServerSettings) -> Any:
    """Builds the page and serves it in the background. InputError where the address is taken."""
    os.environ.update(ENVIRONMENT)
    bypass_proxy(settings.server_name)
    os.environ.setdefault(TEMPORARY, str(visits.folder))
    import gradio
    from starlette.middleware import Middleware

    from . import style
    from .doors import Doors

    blocks = build_page(model, visits)
    try:
        blocks.launch(
            server_name=settings.server_name,
            server_port=settings.port or free_port(settings.server_name),
            auth=settings.auth,
            inbrowser=settings.open_browser,
            max_file_size=MAX_FILE_SIZE,
            max_threads=4 * LIMIT,  # everybody who waits holds one
            app_kwargs={"middleware": [Middleware(Doors)]},
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
