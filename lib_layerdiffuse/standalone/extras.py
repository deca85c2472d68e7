"""The optional dependencies: how to install them, and whether they are there."""

from __future__ import annotations

from importlib.util import find_spec

from ..core.errors import MissingExtraError

MODULES = {
    "standalone": ("torch", "diffusers", "transformers", "huggingface_hub", "tqdm"),
    "training": ("torch", "diffusers", "transformers", "accelerate", "tokenizers", "tqdm"),
}


def install_line(extra: str) -> str:
    """The line to type in a clone; the project is in no package index."""
    return f'pip install ".[{extra}]" in the folder of this project'


def require(extra: str) -> None:
    """MissingExtraError with the line to type when a module of an extra is not installed."""
    missing = [name for name in MODULES[extra] if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"no module {', '.join(missing)}", f"the {extra} extra", install_line(extra))
