"""Entry point: builds the parser, runs the command, turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from .. import __version__
from ..core.errors import LayerDiffuseError, MissingExtraError
from ..standalone.extras import install_line
from .interrupts import INTERRUPTED, Interrupts

PROGRAM = "python -m lib_layerdiffuse"
UNEXPECTED, USAGE = 1, 2
LONGEST = 2000  # characters of a message: some libraries put whole files into theirs
DESCRIPTION = """Paint pictures with a real alpha channel from a prompt (latent transparency, arXiv 2402.17113).

A small model comes along, so this works at once, offline, on any machine:
  python -m lib_layerdiffuse generate "a red apple" -n 4 --seed 1 --out out/"""
EXIT_CODES = """exit codes: 0 done, 1 unexpected error, 2 bad input, 3 weight file, 4 wrong base model,
5 result could not be written, 6 missing extra, 130 interrupted"""


@dataclass(frozen=True)
class Command:
    """A row of the command table: the module that adds the parser, its one-line help, and the extra that it needs."""

    module: str
    help: str
    extra: str = "standalone"


COMMANDS = {
    "generate": Command("lib_layerdiffuse.cli.generate", "pictures with alpha from prompts"),
    "scene": Command("lib_layerdiffuse.cli.scene", "a stack of layers from a scene file"),
    "words": Command("lib_layerdiffuse.cli.words", "list the words that the demo model knows"),
    "methods": Command("lib_layerdiffuse.cli.methods", "list the layer methods and what they need"),
    "export": Command("lib_layerdiffuse.cli.export", "layers as PSD, OpenRaster, ZIP, WebP or sprite sheets", "psd"),
    "diagnose": Command("lib_layerdiffuse.cli.diagnose", "find out why there is no alpha"),
    "cut": Command("lib_layerdiffuse.cli.cut", "a picture cut out by another one's alpha"),
    "fingerprint": Command("lib_layerdiffuse.cli.fingerprint", "the print of a base checkpoint"),
    "transplant": Command("lib_layerdiffuse.cli.transplant", "a checkpoint that keeps a method's alpha"),
    "page": Command("lib_layerdiffuse.page.cli", "the same in the browser"),
    "train": Command(
        "lib_layerdiffuse.training.cli.parser", "train a codec or a transparent model of one's own", "training"
    ),
    "harmlessness": Command(
        "lib_layerdiffuse.training.cli.parser", "measure how much a transparency encoder harms its VAE", "training"
    ),
    "layers-report": Command(
        "lib_layerdiffuse.training.cli.report", "measure how well painted layers fit together", "training"
    ),
}


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"error: {' '.join(message[:LONGEST].split())} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    prepare_logging("--verbose" in argv)
    prepare_streams()
    with Interrupts():
        return run(argv)


def run(argv: list[str]) -> int:
    """Run one command and say what went wrong; returns the exit code."""
    verbose = "--verbose" in argv
    try:
        return dispatch(argv)
    except LayerDiffuseError as error:
        return report(error, str(error), error.exit_code, verbose)
    except KeyboardInterrupt:
        return report(None, "interrupted; finished files are whole, nothing partial was left", INTERRUPTED, verbose)
    except BrokenPipeError:  # the reader of our output went away, as in `words | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort: a user gets one line and an exit code, never a traceback unasked
        message = f"unexpected {type(error).__name__}: {error}. Run again with --verbose for the whole story."
        return report(error, message, UNEXPECTED, verbose)


def report(error: Exception | None, message: str, code: int, verbose: bool) -> int:
    """Say what went wrong on stderr (with the traceback when verbose) and hand the exit code on."""
    if verbose and error is not None:
        logging.getLogger(__name__).error("the traceback of the error below", exc_info=error)
    line = " ".join(message[: 2 * LONGEST].split())
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
    sys.stderr.write(f"error: {line}\n" if error is not None else f"\n{message}\n")
    return code


def dispatch(argv: list[str]) -> int:
    """Parse `argv` and run its command; without a command, show the help."""
    command = chosen_command(argv)
    with naming_the_extra(COMMANDS.get(command or "")):
        parser = build_parser(command)
        arguments = parser.parse_args(argv)
        if not hasattr(arguments, "run"):
            parser.print_help()
            return 0
        return int(arguments.run(arguments) or 0)


def chosen_command(argv: Sequence[str]) -> str | None:
    """The first word of the command line that is no option."""
    return next((word for word in argv if not word.startswith("-")), None)


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser with `command` in full and the others by name only, so that no unused module is imported."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--verbose", action="store_true", help="log what happens, and show tracebacks")
    parser = Parser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sd-webui-layerdiffuse {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Subparser)
    chosen_module = COMMANDS[command].module if command in COMMANDS else ""
    for name, row in COMMANDS.items():
        if row.module != chosen_module:
            subparsers.add_parser(name, help=row.help, add_help=False)
    if chosen_module:
        importlib.import_module(chosen_module).add_parser(subparsers)
    return parser


class _Subparser(Parser):
    """A command's parser: takes `--verbose` after the command as well."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # no default: it would overwrite the one given before the command
        self.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


@contextmanager
def naming_the_extra(row: Command | None) -> Iterator[None]:
    """Turns a package that is not installed into a MissingExtraError with the line to type."""
    try:
        yield
    except ModuleNotFoundError as error:
        if row is None or (error.name or "").split(".")[0] == "lib_layerdiffuse":
            raise
        raise MissingExtraError(f"no module {error.name}", f"the {row.extra} extra", install_line(row.extra)) from error


def prepare_streams() -> None:
    """What a terminal cannot show is written as an escape: a note must not end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where somebody put another thing in its place
            stream.reconfigure(errors="backslashreplace")


def prepare_logging(verbose: bool) -> None:
    """Our own log on stderr; the model libraries only speak when asked to."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    if not verbose:
        for name in ("diffusers", "transformers", "huggingface_hub", "httpx"):
            logging.getLogger(name).setLevel(logging.ERROR)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
