"""Commands as tests run them, without a Python that begins anew."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from lib_layerdiffuse.cli import main as main_module


def exit_code(words: list[str]) -> int:
    """What a command ends with, also where argparse leaves by itself."""
    try:
        return main_module.main(words)
    except SystemExit as leaving:
        return leaving.code


def started(words: list[str], printed: Path) -> BaseProcess:
    """A command in a process of its own, which is forked; what it prints goes into a file."""
    process = multiprocessing.get_context("fork").Process(target=_work, args=(words, printed))
    process.start()
    return process


def _work(words: list[str], printed: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests' own process was started with
    with (
        printed.open("w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        sys.exit(main_module.main(words))
