"""The command `page` in a process of its own: what it prints, how it ends, what it leaves, who may come in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from page_visitor import Caller

pytest.importorskip("gradio", minversion="6.0")
tiny = pytest.importorskip("tiny", reason="needs the standalone extra")

from lib_layerdiffuse.page.cli import ending_on_signals  # noqa: E402

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.write_demo_folder(tmp_path_factory.mktemp("demo"))


def listen_to_interrupts() -> None:
    """Where SIGINT is ignored, as under nohup, a child would ignore it as well."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def started(model: Path, folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The running command and the page's address; killed at the end whatever happens."""
    command = [sys.executable, "-m", "lib_layerdiffuse", "page", "--port", "0", "--demo", str(model), "--device", "cpu"]
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    environment.pop("GRADIO_TEMP_DIR", None)
    ready = listen_to_interrupts if os.name == "posix" else None
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, *options], **pipes, env=environment, cwd=ROOT, preexec_fn=ready) as process:
        try:
            line = process.stdout.readline()
            yield process, next(word for word in line.split() if word.startswith("http"))
        finally:
            process.kill()


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith("layerdiffuse-page-")]


def test_a_password_lets_those_in_who_know_it_until_ctrl_c_and_no_files_stay(model, tmp_path):
    with started(model, tmp_path, "--auth", "me:se:cret") as (process, url):
        with pytest.raises(urllib.error.HTTPError) as refused:
            Caller(url)
        assert refused.value.code == 401
        assert login(url, "me", "wrong") == 400
        assert login(url, "me", "se:cret") == 200
        assert left_in(tmp_path)
        assert "loading the model" in process.stderr.readline() + process.stderr.readline()
        if os.name == "posix":
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0 and not left_in(tmp_path)


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_that_end_it_are_listened_to_while_it_serves(name):
    number = getattr(signal, name)
    usual = signal.getsignal(number)
    went_on = False
    with ending_on_signals():
        assert signal.getsignal(number) is not usual
        os.kill(os.getpid(), number)
        went_on = True
    assert not went_on and signal.getsignal(number) is usual


@posix
def test_a_signal_that_was_chosen_to_be_ignored_does_not_end_it():
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_on_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, usual)


@posix
@pytest.mark.long
def test_it_ends_by_sigterm_during_a_run_where_sigint_is_ignored(model, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "listen_to_interrupts", ignore_interrupts)
    with started(model, tmp_path) as (process, url):
        caller = Caller(url)
        assert "LayerDiffuse" in caller.get("/").decode()
        row = caller.event("page_generate", "click")
        values = [caller.config_value(part) for part in row["inputs"]]
        values[0], values[3] = "banana", 100
        body = {"data": values, "fn_index": row["id"], "session_hash": caller.session}
        caller.post("/gradio_api/queue/join", body)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not left_in(tmp_path)


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def login(url: str, user: str, password: str) -> int:
    """The status of an attempt to log in."""
    body = urllib.parse.urlencode({"username": user, "password": password}).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(f"{url.rstrip('/')}/login", body, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code
