"""Files of sets: tensors, and lists and numbers as JSON in a safetensors header."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ...core.errors import InputError
from ...files.whole_files import save_tensors


def save_set(path: str | Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header, under the file's name only when it is whole; OutputError where that fails."""
    save_tensors(tensors, path, {name: json.dumps(value) for name, value in header.items()})


@contextmanager
def open_set(path: str | Path, commands: str, names: tuple[str, ...]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The open file and these entries of its header; InputError for what `commands` did not write.

    That also where what is done inside fails.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            yield file, {name: json.loads(header[name]) for name in names}
    except Exception as error:  # safetensors raises its own type; a wrong file may fail in any of these lines
        raise InputError(f"{path}: {error}", f"a file that {commands} wrote", f"make one with {commands}") from error
