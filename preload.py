"""Flags that the extension adds to the WebUI's command line."""

from __future__ import annotations

import argparse


def preload(parser: argparse.ArgumentParser) -> None:
    """Called by the WebUI before it reads its command line."""
    parser.add_argument(
        "--layerdiffuse-models", metavar="FOLDER", help="folder with LayerDiffuse's layer files, looked in first"
    )
    parser.add_argument(
        "--layerdiffuse-mirror", metavar="URL", help="mirror of the Hugging Face hub to download layer files from"
    )
    parser.add_argument("--layerdiffuse-offline", action="store_true", help="never download layer files")
