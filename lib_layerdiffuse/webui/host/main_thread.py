"""Where a WebUI computes."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from .modules import has_module


def in_main_thread(call: Callable[[], None]) -> None:
    """Calls where the WebUI computes: the Forge family does so in one thread alone, which swallows exceptions."""
    if has_module("modules_forge.main_thread"):
        importlib.import_module("modules_forge.main_thread").run_and_wait_result(call)
    else:
        call()
