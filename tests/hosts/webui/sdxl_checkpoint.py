"""Cuts an SDXL checkpoint to one block in each transformer of its UNet: as wide, but a fifth of the UNet's weights.

`python tests/hosts/webui/sdxl_checkpoint.py sdxl.safetensors sdxl-cut.safetensors`. The Forge family knows checkpoints
by their shapes and by how many blocks there are, so that one norm of each block stays in the file. The extension in
`cut` leaves out the blocks themselves.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

CUT = re.compile(r"\.transformer_blocks\.[1-9]\d*\.(?!norm1\.weight)")


def write(source: Path, target: Path) -> None:
    """The file without what is cut."""
    with safe_open(source, "pt") as file:
        save_file({key: file.get_tensor(key) for key in file.keys() if not CUT.search(key)}, target)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
