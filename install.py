"""Run by the WebUI at start: adds a package only where it is missing altogether, so normally does nothing.

Versions are the WebUI's business: what it pins or has installed is never changed, a too old one only told.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import logging
import re
import sys
from pathlib import Path

logger = logging.getLogger("LayerDiffuse")

MODULES = {"pillow": "PIL"}  # where the module is not called as its package is
HOST_ONLY = ("torch",)  # never from here: the WebUI chooses the build for the machine
DOWNLOADS = "huggingface_hub>=0.20"  # what the extension needs of a WebUI beyond the library's own dependencies


def requirements(project: Path) -> list[str]:
    """The requirements that may be installed, from the project file's dependencies."""
    listed = re.search(r"^dependencies = (\[.*?\])$", project.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    wanted = [*ast.literal_eval(listed.group(1)), DOWNLOADS] if listed else [DOWNLOADS]
    return [requirement for requirement in wanted if split(requirement)[0] not in HOST_ONLY]


def split(requirement: str) -> tuple[str, str]:
    """`name>=1.2` -> (name, 1.2)."""
    name, _, version = requirement.partition(">=")
    return name.strip(), version.strip()


def is_missing(requirement: str) -> bool:
    """Whether no package of this name can be imported."""
    name = split(requirement)[0]
    return importlib.util.find_spec(MODULES.get(name.lower(), name)) is None


def is_old(requirement: str) -> bool:
    """Whether the installed package is older than the extension was made for."""
    name, wanted = split(requirement)
    try:
        have = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return numbers(have) < numbers(wanted)


def numbers(version: str) -> tuple[int, ...]:
    """`1.26.2` -> (1, 26, 2); what follows the numbers does not count."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def install(project: Path) -> None:
    """Install what is missing, and say so."""
    for requirement in requirements(project):
        if is_missing(requirement):
            launch = importlib.import_module("launch")  # the WebUI's

            logger.info("%s is missing and will be installed", requirement)
            launch.run_pip(f'install "{requirement}"', f"{split(requirement)[0]} for LayerDiffuse")
        elif is_old(requirement):
            logger.warning("this WebUI's %s is older than %s; LayerDiffuse may fail", *split(requirement))


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(name)s: %(message)s")
    install(Path(__file__).with_name("pyproject.toml"))
