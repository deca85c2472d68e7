"""Commands as tests run them, in their own process."""

from __future__ import annotations

from lib_layerdiffuse.cli import main as main_module


def exit_code(words: list[str]) -> int:
    """What a command ends with, also where argparse leaves by itself."""
    try:
        return main_module.main(words)
    except SystemExit as leaving:
        return leaving.code
