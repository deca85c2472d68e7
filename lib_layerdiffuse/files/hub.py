"""One file of a hub repository, fetched over HTTP: goes on where an earlier try stopped, also in another process.

`hf_hub_download` begins anew after a crash or Ctrl-C, which is hard on files of several hundred megabytes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

logger = logging.getLogger(__name__)

ORIGIN = "https://huggingface.co"  # the hub itself; every other address is a mirror
ASKED = 5  # seconds that the hub has to answer for a file of a mirror
SHA256 = re.compile(r"[0-9a-f]{64}")
BLOCK = 2**20
Watch = Callable[[int, "int | None"], None]


class DamagedDownload(Exception):
    """What arrived is not what the hub announced."""


class WatchedFile:
    """A binary file whose `watch(bytes it has, bytes it will have)` is told of each block; what it raises ends it all.

    All releases of the hub's client write to the file that they are given, while their progress bars differ.
    """

    def __init__(self, file: BinaryIO, size: int | None, watch: Watch):
        self._file, self._size, self._watch = file, size, watch

    def write(self, block: bytes) -> int:
        """Write, then tell."""
        written = self._file.write(block)
        self._watch(self._file.tell(), self._size)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def fetch_file(
    repository: str, name: str, folder: Path, endpoint: str | None = None, watch: Watch = lambda done, size: None
) -> Path:
    """Download `name` into `folder`; what has arrived waits in `<name>.<checksum>.partial` until the file is whole.

    `endpoint` is another hub than HF_ENDPOINT's, and gets no token; `watch` is told what has arrived, and may raise.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    token = False if endpoint else None  # None: the user's own, if there is one
    address = (endpoint or os.environ.get("HF_ENDPOINT") or ORIGIN).rstrip("/")
    url = hf_hub_url(repository, name, endpoint=address)
    announced = get_hf_file_metadata(url, token=token)
    checksum = announced.etag or "" if address == ORIGIN else _checksum_of(repository, name, address, announced)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.{(checksum or 'unknown')[:12]}.partial"
    partial.touch()
    with partial.open("r+b") as file:
        have = file.seek(0, os.SEEK_END)
        watch(have, announced.size)
        if have != announced.size:  # older clients would ask for the bytes after the last
            _append(url, WatchedFile(file, announced.size, watch), (have, announced.size), token)
    check_whole(partial, announced.size, checksum)
    partial.replace(folder / name)
    return folder / name


def _checksum_of(repository: str, name: str, mirror: str, announced: Any) -> str:
    """What a mirror's file must have: the hub's own checksum, for a mirror's proves nothing about itself.

    Where the hub does not answer (which mirrors are for) the mirror's, and the log says so.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        url = hf_hub_url(repository, name, endpoint=ORIGIN)
        checksum = get_hf_file_metadata(url, token=False, timeout=ASKED).etag or ""
    except Exception as error:  # noqa: BLE001  whatever the client of this release raises where nobody answers
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        logger.warning(
            "%s of %s is checked against that mirror's own checksum alone: %s says %s", name, mirror, ORIGIN, reason
        )
        return announced.etag or ""
    if all(map(SHA256.fullmatch, (checksum, announced.etag or ""))) and checksum != announced.etag:
        raise DamagedDownload(f"{mirror} offers another {name} than {ORIGIN} has, and nothing was downloaded")
    return checksum


def _append(url: str, file: WatchedFile, sizes: tuple[int, int | None], token: bool | None) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    # it writes and asks where it is, which a WatchedFile does as every file
    http_get(
        url, cast("BinaryIO", file), resume_size=sizes[0], headers=build_hf_headers(token=token), expected_size=sizes[1]
    )


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
