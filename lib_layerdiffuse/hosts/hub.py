"""One file of a hub repository, fetched over HTTP: goes on where an earlier try stopped, also in another process.

`hf_hub_download` begins anew after a crash or Ctrl-C, which is hard on files of several hundred megabytes.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

SHA256 = re.compile(r"[0-9a-f]{64}")
BLOCK = 2**20


class DamagedDownload(Exception):
    """What arrived is not what the hub announced."""


def fetch_file(repository: str, name: str, folder: Path) -> Path:
    """Download `name` into `folder`; what has arrived waits in `<name>.<checksum>.partial` until the file is whole."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    headers = build_hf_headers()
    url = hf_hub_url(repository, name, endpoint=os.environ.get("HF_ENDPOINT") or None)
    announced = get_hf_file_metadata(url, headers=headers)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.{(announced.etag or 'unknown')[:12]}.partial"
    partial.touch()
    with partial.open("r+b") as file:
        have = file.seek(0, os.SEEK_END)
        http_get(url, file, resume_size=have, headers=headers, expected_size=announced.size)
    check_whole(partial, announced.size, announced.etag or "")
    os.replace(partial, folder / name)
    return folder / name


def check_whole(partial: Path, size: int | None, checksum: str) -> None:
    """DamagedDownload, and the file removed, unless it has the announced size and (where known) SHA-256."""
    whole = size is None or partial.stat().st_size == size
    if whole and (not SHA256.fullmatch(checksum) or sha256(partial) == checksum):
        return
    partial.unlink()
    raise DamagedDownload(f"{partial.name} arrived damaged and was removed; try again")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
