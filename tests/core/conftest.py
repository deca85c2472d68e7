"""Where only what the core needs is installed, as in a WebUI, tests that compare it with diffusers are left out."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

NEEDS_DIFFUSERS = re.compile(r"^(from|import) (diffusers|small_attention|tiny)\b", re.MULTILINE)

if find_spec("diffusers") is None:
    tests = Path(__file__).parent.rglob("test_*.py")
    collect_ignore = [str(path) for path in tests if NEEDS_DIFFUSERS.search(path.read_text(encoding="utf-8"))]
