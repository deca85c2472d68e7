"""`page`: the command that starts the Gradio page."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from ..cli import options
from ..core.errors import InputError, MissingExtraError
from ..standalone.extras import install_line
from ..standalone.settings import GenerateSettings

HELP = "open a page in the browser: prompt, pictures, downloads"
END_SIGNALS = ("SIGTERM", "SIGHUP")
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the `page` command to a parser's commands."""
    parser = subparsers.add_parser("page", help=HELP, description=f"Starts a local web page: {HELP}.")
    server = parser.add_argument_group("server")
    server.add_argument("--port", type=int, default=7860, help="port to listen on; 0 takes a free one (default 7860)")
    name_help = "address to listen on; 0.0.0.0 lets other machines in (default 127.0.0.1)"
    server.add_argument("--server-name", default="127.0.0.1", metavar="ADDRESS", help=name_help)
    server.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for this name and password")
    server.add_argument("--open", action="store_true", help="open the page in the browser at once")
    options.add_model_options(parser)
    options.add_options(parser, "a ControlNet", options.CONTROL[:1], GenerateSettings)
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Loads the model and serves the page until Ctrl-C or SIGTERM; exit code 0. MissingExtraError without gradio."""
    settings = server_settings(arguments)
    if importlib.util.find_spec("gradio") is None:
        raise MissingExtraError("no module gradio", "the standalone extra", install_line("standalone"))
    say("starting the page; this takes half a minute on a slow machine ...", sys.stderr)
    with ending_on_signals():
        from .model import PageModel
        from .server import Server, ServerSettings

        say("loading the model ...", sys.stderr)
        model = PageModel.load(options.model_settings(arguments), arguments.controlnet)
        with Server(model, ServerSettings(**settings)) as server:
            if settings["server_name"] not in LOCAL_NAMES and settings["auth"] is None:
                say("note: everybody who reaches this machine can use the page; --auth USER:PASSWORD asks", sys.stderr)
            say(f"the page is at {server.url} (Ctrl-C ends it)", sys.stdout)
            with suppress(KeyboardInterrupt):
                server.wait()
    return 0


def server_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of ServerSettings; InputError for a port or a password that cannot be used."""
    if not 0 <= arguments.port <= 65535:
        raise InputError(f"port {arguments.port}", "0 to 65535", "choose --port in that range")
    return {
        "server_name": arguments.server_name,
        "port": arguments.port,
        "open_browser": arguments.open,
        "auth": parse_auth(arguments.auth),
    }


def parse_auth(text: str | None) -> tuple[str, str] | None:
    """USER:PASSWORD in two; the message of a wrong one does not repeat it.

    InputError for a wrong one, which is not repeated.
    """
    if text is None:
        return None
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise InputError(
            "--auth without user, colon or password", "USER:PASSWORD", "write for example --auth me:secret"
        )
    return user, password


class Ended(BaseException):
    """A signal asked the program to end."""


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Ends the block in order, so that temporary files are removed, when a signal asks the program to end."""

    def end(number: int, frame: object) -> None:
        raise Ended

    before = {name: signal.signal(getattr(signal, name), end) for name in END_SIGNALS if wanted(name)}
    try:
        yield
    except Ended:
        pass
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def wanted(name: str) -> bool:
    """Whether this system has a signal and nobody chose to ignore it, as nohup does."""
    return hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN


def say(text: str, stream: TextIO) -> None:
    """Writes a line at once."""
    stream.write(f"{text}\n")
    stream.flush()
