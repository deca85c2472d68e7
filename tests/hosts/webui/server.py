"""An installed WebUI: which family it is, how it is started for tests, and how it is stopped.

Everything a session writes (settings, outputs, models) goes to a data folder of its own, so the installation stays as
it is: the user's extensions and settings neither disturb the tests nor are touched by them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from client import Client

ROOT = Path(__file__).parents[3]
EXTENSION = "sd-webui-layerdiffuse"
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", "out", "build", "dist")
PATIENCE = 300  # seconds until a starting WebUI must answer
ANSWERS_LAST = "/sdapi/v1/sd-models"  # a WebUI with a page adds its API after the page
STARTED = "Startup time"  # what all families log then; one that is asked anything before can no longer add its API
WINDOWS = os.name == "nt"
TABS, PROMPTS = ("txt2img", "img2img"), ("Prompt", "Negative prompt", "Negative Prompt")
FLAGS = (
    "--skip-prepare-environment",
    "--skip-torch-cuda-test",
    "--skip-python-version-check",
    "--skip-version-check",
    "--no-hashing",
    "--disable-console-progressbars",
    "--api",
)
ENVIRONMENT = {
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Family:
    """What differs between the WebUIs when they are started: flags, further flags by base, first settings."""

    name: str
    flags: tuple[str, ...]
    base_flags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    small_checkpoints: bool = False  # whether it loads checkpoints of reduced widths, with a yaml beside them

    @property
    def is_forge(self) -> bool:
        """Whether it is of the Forge family."""
        return self.name != "a1111"


NO_PREVIEW = {"show_progress_type": "Approx cheap", "live_previews_enable": False}
A1111 = Family(
    "a1111",
    ("--use-cpu", "all", "--no-half", "--no-download-sd-model", "--do-not-download-clip"),
    settings={"show_progress_type": "Approx cheap"},
    small_checkpoints=True,
)
# bfloat16: half the memory, and four times as fast where a processor has it
FORGE_BASES = {"sdxl": ("--unet-in-fp16",), "flux": ("--unet-in-bf16",)}
FORGE = Family("forge", ("--always-cpu", "--no-download-sd-model"), FORGE_BASES, NO_PREVIEW)
REFORGE = Family(
    "reforge",
    ("--always-cpu", "--no-download-sd-model", "--do-not-download-clip"),
    {"sdxl": ("--unet-in-fp16", "--clip-in-fp16")},
    NO_PREVIEW,
)
NEO = Family("neo", ("--cpu",), {"sdxl": ("--fp16-unet", "--fp16-text-enc"), "flux": ("--bf16-text-enc",)}, NO_PREVIEW)


def detect_family(webui: Path) -> Family:
    """The family of the WebUI in a folder, by what lies in it."""
    if not (webui / "launch.py").is_file():
        raise FileNotFoundError(f"got {webui}; expected the folder of a WebUI, with launch.py in it")
    if not (webui / "modules_forge").is_dir():
        return A1111
    if (webui / "ldm_patched").is_dir():
        return REFORGE
    return NEO if (webui / "modules_forge/packages").is_dir() else FORGE


def find_python(webui: Path) -> Path:
    """The Python of the WebUI's own environment, in its folder or beside it."""
    program = "Scripts/python.exe" if WINDOWS else "bin/python"
    places = [folder / name / program for folder in (webui, webui.parent) for name in ("venv", ".venv")]
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(f"got no Python for {webui}; expected one of {', '.join(map(str, places))}")


def link_or_copy(source: Path, target: Path) -> None:
    """`target` shows `source`: a link where the system allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, target, ignore=NOT_COPIED)
        else:
            shutil.copyfile(source, target)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Launch:
    """What to start: the WebUI's folder, the session's data folder, layer files, a checkpoint, page or API only."""

    webui: Path
    data: Path
    layer_models: Path | None  # none: our extension is not there
    checkpoint: str
    bases: tuple[str, ...] = ()  # of its checkpoints
    page: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        """The family of this WebUI."""
        return detect_family(self.webui)

    def command(self, port: int) -> list[str]:
        """The command line."""
        family = self.family
        own = next((family.base_flags[base] for base in self.bases if base in family.base_flags), ())
        flags = [*FLAGS, *family.flags, *own, *(("--nowebui",) * (not self.page))]
        places = ["--data-dir", str(self.data)]
        if self.layer_models is not None:
            places += ["--layerdiffuse-models", str(self.layer_models)]
        if family.is_forge:  # Gradio 4 serves files of the data folder alone, and the page's own are not in it
            places += ["--gradio-allowed-path", str(self.webui)]
        address = ["--port", str(port), "--server-name", "127.0.0.1"]
        return [str(find_python(self.webui)), "launch.py", *flags, *places, *address]

    def variables(self) -> dict[str, str]:
        """The environment: offline, few threads, the WebUI's own hub cache where it has one."""
        hub = next((folder / "hf" for folder in (self.webui, self.webui.parent) if (folder / "hf").is_dir()), None)
        own = {} if hub is None else {"HF_HOME": str(hub)}
        return {**ENVIRONMENT, **os.environ, **own, "HF_HUB_OFFLINE": "1", **self.environment}

    def write_settings(self) -> None:
        """The WebUI's settings file, with the checkpoint to load first."""
        (self.data / "tmp").mkdir(parents=True, exist_ok=True)  # which Neo takes for there, for an interrupted picture
        settings = {"samples_format": "png", "sd_model_checkpoint": self.checkpoint}
        settings |= self.family.settings | self.settings
        version = re.search(r'VERSION_UID\b.*= "(\w+)"', (self.webui / "modules/launch_utils.py").read_text("utf-8"))
        if version:  # without it, Neo takes the settings for an older version's and waits for an answer
            settings["VERSION_UID"] = version[1]
        (self.data / "config.json").write_text(json.dumps(settings))
        page = self.data / "ui-config.json"
        if self.family.is_forge and not page.exists():
            # On a first start Gradio 4's prompt holds None; by its type these WebUIs leave a pasted prompt out.
            page.write_text(json.dumps({f"{tab}/{name}/value": "" for tab in TABS for name in PROMPTS}))


class Server:
    """A running WebUI; a context manager that stops all its processes."""

    def __init__(self, launch: Launch, log: Path):
        self.launch, self.log = launch, log
        self.log_start = 0
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = Client(self.url)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.launch.write_settings()
        with self.log.open("ab") as log:
            self.log_start = log.tell()
            self.process = self._start(log)
        try:
            self._wait()
        except BaseException:  # an interrupt of the tests must not leave it running either
            self.stop()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _start(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        group = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)} if WINDOWS else {}
        return subprocess.Popen(
            self.launch.command(self.port),
            cwd=self.launch.webui,
            env=self.launch.variables(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=not WINDOWS,
            **group,
        )

    def _wait(self) -> None:
        """Until the API answers; RuntimeError with the end of the log when it does not."""
        deadline = time.monotonic() + PATIENCE
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the WebUI ended with {self.process.returncode}; its last lines:\n{self.tail()}")
            if STARTED in self.tail(since=self.log_start):
                with contextlib.suppress(OSError), opener.open(self.url + ANSWERS_LAST, timeout=20):
                    return
            time.sleep(0.5)
        raise RuntimeError(f"the WebUI did not answer within {PATIENCE} s; its last lines:\n{self.tail()}")

    def tail(self, lines: int = 60, since: int = 0) -> str:
        """The last lines of its log, from this byte on."""
        with self.log.open("rb") as file:
            file.seek(since)
            text = file.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """End the process and all that it started."""
        if self.process is None or self.process.poll() is not None:
            return
        for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
            self._end(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
                return

    def _end(self, number: int) -> None:
        if WINDOWS:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(self.process.pid)], check=False, capture_output=True)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@contextlib.contextmanager
def changed_settings(client: Client, **changes: Any) -> Iterator[None]:
    """Settings of the WebUI that hold inside the block."""
    before = client.get("/sdapi/v1/options")
    client.post("/sdapi/v1/options", changes)
    try:
        yield
    finally:
        client.post("/sdapi/v1/options", {name: before.get(name) for name in changes})
