"""`page`: the command that starts the Gradio page."""

from __future__ import annotations

import argparse
import importlib.util
import sys

from lib_layerdiffuse.cli import options
from lib_layerdiffuse.core.errors import InputError, MissingExtraError

HELP = "open a page in the browser: prompt, pictures, downloads"
EXTRA = 'pip install "sd-webui-layerdiffuse[standalone]"'


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds the `page` command to a parser's commands."""
    parser = subparsers.add_parser("page", help=HELP, description=f"Starts a local web page: {HELP}.")
    server = parser.add_argument_group("server")
    server.add_argument("--port", type=int, default=7860, help="port to listen on; 0 takes a free one (default 7860)")
    name_help = "address to listen on; 0.0.0.0 lets other machines in (default 127.0.0.1)"
    server.add_argument("--server-name", default="127.0.0.1", metavar="ADDRESS", help=name_help)
    server.add_argument("--open", action="store_true", help="open the page in the browser at once")
    options.add_model_options(parser)
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Loads the model and serves the page until Ctrl-C; exit code 0."""
    if not 0 <= arguments.port <= 65535:
        raise InputError(f"port {arguments.port}", "0 to 65535", "choose --port in that range")
    if importlib.util.find_spec("gradio") is None:
        raise MissingExtraError("no module gradio", "the standalone extra", EXTRA)
    from lib_layerdiffuse.page.model import PageModel
    from lib_layerdiffuse.page.server import Server, ServerSettings

    model = PageModel.load(options.model_settings(arguments))
    with Server(model, ServerSettings(arguments.server_name, arguments.port, arguments.open)) as server:
        sys.stdout.write(f"the page is at {server.url} (Ctrl-C ends it)\n")
        sys.stdout.flush()
        server.wait()
    return 0
