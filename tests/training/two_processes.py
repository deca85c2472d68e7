"""Two processes that train together: forked from the test's, so that nothing heavy is imported anew."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import pytest

ALONE = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


def place_of(rank: int, port: int) -> dict[str, str]:
    """What a launcher tells a process in its environment."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    return {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}


def work(rank: int, port: int, words: list[str], outputs: list[Path]) -> None:
    """One process: its place is told as a launcher tells it; ends with the command's exit code."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    from lib_layerdiffuse.cli.main import main

    for state in (AcceleratorState, GradientState, PartialState):  # of a run of the process before
        state._reset_state()
    os.environ.update(place_of(rank, port) | {"ACCELERATE_USE_CPU": "true"})
    with (
        outputs[rank].open("w", encoding="utf-8") as output,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        sys.exit(main(words))


def run_two(words: list[str], folder: Path) -> str:
    """What both print of a command that must succeed in two processes; `folder` takes it."""
    context = multiprocessing.get_context("fork")
    port, outputs = free_port(), [folder / f"printed-{rank}.txt" for rank in range(2)]
    workers = [context.Process(target=work, args=(rank, port, words, outputs)) for rank in range(2)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join(600)
    finally:
        for worker in workers:
            worker.kill()
    text = "".join(path.read_text(encoding="utf-8") for path in outputs)
    assert [worker.exitcode for worker in workers] == [0, 0], text[-3000:]
    return text
