"""AUTOMATIC1111 builds the demo model by the yaml beside it, which asks the environment where its tokenizer is."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files.demo_folder import DEMO_FOLDER, TOKENIZER_NAME, TOKENIZER_VARIABLE
from .host.modules import has_module, host_module
from .wrapping import is_wrapped, unwrap, wrap

logger = logging.getLogger(__name__)

MODULE, NAME = "sd_models_config", "find_checkpoint_config"


def install() -> None:
    """Tell it before each checkpoint is loaded, unless the user has done so for the whole WebUI."""
    if not has_module(f"modules.{MODULE}") or not hasattr(host_module(MODULE), NAME):
        return
    if is_wrapped(host_module(MODULE), NAME) or TOKENIZER_VARIABLE not in os.environ:
        wrap(host_module(MODULE), NAME, before_loading)


def remove() -> None:
    """Give the WebUI its own function back."""
    if has_module(f"modules.{MODULE}") and is_wrapped(host_module(MODULE), NAME):
        unwrap(host_module(MODULE), NAME)
        os.environ.pop(TOKENIZER_VARIABLE, None)


def before_loading(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The WebUI's looking for the yaml of a checkpoint that it is about to load."""
    found = original(*arguments, **named)
    os.environ[TOKENIZER_VARIABLE] = str(tokenizer_for(found))
    return found


def tokenizer_for(config: str | None) -> Path:
    """The folder beside a checkpoint's yaml where there is one (a model of one's own), else that of the demo model."""
    beside = Path(config).with_name(TOKENIZER_NAME) if config else None
    return beside if beside is not None and beside.is_dir() else DEMO_FOLDER / TOKENIZER_NAME
