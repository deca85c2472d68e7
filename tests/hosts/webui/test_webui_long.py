"""A hundred jobs of all kinds in a fresh WebUI: they leave no more memory than the same ones without the box ticked.

What libraries keep by themselves would hide what is ours, so that they are told to keep nothing: the C library gives
memory back at once, MKL keeps no buffers for each thread that has computed, and oneDNN and ideep, by which torch
computes, forget their kernels. Each keeps one for each shape that it has seen, at most 1024, and pictures with layers
have more shapes; ONEDNN_PRIMITIVE_CACHE_CAPACITY=1024 and LRU_CACHE_CAPACITY=1024 in the environment show what that
comes to.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cases import some_upscaler
from client import HIRES, SIZE, Client, HttpError, layered, picture, same

from lib_layerdiffuse.core.methods import Method, methods_for

JOBS, BLOCK, SETTLED = 100, 5, 30
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "2",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0",
    "LRU_CACHE_CAPACITY": "1",
    "MKL_DISABLE_FAST_MM": "1",
}
ALLOWED = 0.5  # percentage points that memory may grow more with the box ticked than without
COLLECT = "/layerdiffuse_witness/collect"
SIZES = ((SIZE, SIZE), (SIZE + 8, SIZE), (104, 72))


@dataclass(frozen=True)
class Task:
    """One of the hundred jobs; without the box ticked, all its other fields are the same."""

    base: str
    method: Method
    kind: str
    choices: dict[str, Any]

    def run(self, host: Client, ticked: bool) -> None:
        """Ask a WebUI for it."""
        KINDS[self.kind](host, self, ticked)

    def fields(self, ticked: bool, **arguments: Any) -> dict[str, Any]:
        """The fields of the API that are not by default."""
        return self.choices | layered(self.method, enabled=ticked, **arguments)


def by_text(host: Client, task: Task, ticked: bool) -> None:
    host.txt2img(**task.fields(ticked))


def from_picture(host: Client, task: Task, ticked: bool) -> None:
    host.img2img(picture(), **task.fields(ticked))


def in_two_passes(host: Client, task: Task, ticked: bool) -> None:
    host.txt2img(**HIRES, hr_scale=1.5, hr_upscaler=some_upscaler(host), **task.fields(ticked))


def interrupted(host: Client, task: Task, ticked: bool) -> None:
    def later() -> None:
        time.sleep(0.3)
        host.post("/sdapi/v1/interrupt", {})

    thread = threading.Thread(target=later)
    thread.start()
    host.txt2img(steps=8, **task.fields(ticked))
    thread.join()


def refused(host: Client, task: Task, ticked: bool) -> None:
    """By us, so that it is painted without the box ticked."""
    assert bool(host.txt2img(**task.fields(ticked, weight="heavy")).error) == ticked


def broken(host: Client, task: Task, ticked: bool) -> None:
    with pytest.raises(HttpError):
        host.post("/sdapi/v1/img2img", task.fields(ticked) | {"init_images": ["no picture"]})


KINDS: dict[str, Callable[[Client, Task, bool], None]] = {
    "text": by_text,
    "image": from_picture,
    "hires": in_two_passes,
    "interrupt": interrupted,
    "refused": refused,
    "broken": broken,
}


def planned(bases: list[str]) -> list[Task]:
    """The hundred jobs, the same at every call; text is asked for twice as often as the other kinds."""
    chance = random.Random(1)

    def task(base: str) -> Task:
        width, height = chance.choice(SIZES)
        choices = {"width": width, "height": height, "seed": chance.randrange(1000)}
        return Task(base, chance.choice(methods_for(base)), chance.choice(["text", *KINDS]), choices)

    return [task(bases[number // BLOCK % len(bases)]) for number in range(JOBS)]


def held(webui, base: str, ticked: bool) -> int:
    """Bytes that the WebUI's process holds after the same two jobs at every call, without garbage."""
    host, task = webui.use(base), Task(base, methods_for(base)[0], "image", {})
    task.run(host, ticked)
    task.run(host, False)  # frees what is kept merged
    host.post(COLLECT, {})
    pages = Path(f"/proc/{webui.server.process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def growth(webui, ticked: bool) -> float:
    """By how many per cent the memory of a fresh WebUI grows from the first jobs to the last."""
    webui.close()
    bases = [base for base in webui.checkpoints if methods_for(base)]
    plain = {base: webui.use(base).txt2img().images for base in bases}
    read = []
    for number, task in enumerate(planned(bases), 1):
        task.run(webui.use(task.base), ticked)
        if number in (SETTLED, JOBS):
            read.append(held(webui, bases[0], ticked))
    for base, images in plain.items():
        assert all(map(same, images, webui.use(base).txt2img().images))
    settled, after = read
    percent = 100 * (after - settled) / settled
    first, last = (f"{size / 2**20:.1f} MB" for size in read)
    print(f"box {'ticked' if ticked else 'off'}: {first} after {SETTLED} jobs, {last} after {JOBS} ({percent:+.2f}%)")  # noqa: T201
    return percent


@pytest.fixture
def lean(webui, pytestconfig, monkeypatch) -> Iterator[Any]:
    """The WebUI, whose servers are started with `ENVIRONMENT` where it does not contradict the tests' own."""
    if not pytestconfig.getoption("--long"):
        pytest.skip("needs --long")
    if not Path("/proc/self/statm").exists():
        pytest.skip("reads the memory of a process as Linux tells it")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    yield webui
    webui.close()


def test_a_hundred_jobs_leave_memory_and_model_as_they_were(lean):
    control = growth(lean, ticked=False)
    assert growth(lean, ticked=True) - control <= ALLOWED
