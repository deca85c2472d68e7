"""The core stands on torch, numpy, Pillow, safetensors and the standard library alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import lib_layerdiffuse

CORE = Path(lib_layerdiffuse.__file__).parent / "core"
ALLOWED = {"torch", "numpy", "PIL", "safetensors", "__future__"} | set(sys.stdlib_module_names)


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """(level, name) of every import, also of those inside functions; level 1 is the core itself."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


def outside(source: str) -> list[str]:
    """What a core file imports and may not."""
    return [
        "." * level + name
        for level, name in imported(ast.parse(source))
        if level > 1 or (level == 0 and name.split(".")[0] not in ALLOWED)
    ]


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.name)
def test_core_imports_nothing_else(path):
    assert outside(path.read_text(encoding="utf-8")) == []


def test_the_check_sees_every_way_to_import():
    source = """
import modules, torch.nn
from backend.x import y
def f():
    import gradio as g
    from ..hosts import z
    from .errors import InputError
"""
    assert outside(source) == ["modules", "backend.x", "gradio", "..hosts"]


def test_the_core_has_files():
    assert len(list(CORE.rglob("*.py"))) > 10
