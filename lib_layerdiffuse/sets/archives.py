"""ZIP files: written the same at any time, and read without trust in what they say of themselves."""

from __future__ import annotations

import zipfile
from contextlib import nullcontext, suppress
from typing import BinaryIO

MOST_BYTES, MOST_TOTAL, MOST_MEMBERS = 2**28, 2**31, 2048
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a ZIP has
PACKED_ALREADY = (".png", ".webp")
ORDINARY = 0o644 << 16


class Archive:
    """A ZIP being written to a stream, as a context; pictures are stored as they are, the rest is packed."""

    def __init__(self, stream: BinaryIO):
        self._zip = zipfile.ZipFile(stream, "w")

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        with suppress(OSError, ValueError) if kind is not None else nullcontext():  # a stream that is full stays so
            self._zip.close()

    def add(self, name: str, content: bytes) -> None:
        """A member."""
        entry = zipfile.ZipInfo(name, DATE)
        entry.external_attr = ORDINARY
        plain = name == "mimetype" or name.endswith(PACKED_ALREADY)
        self._zip.writestr(entry, content, zipfile.ZIP_STORED if plain else zipfile.ZIP_DEFLATED)


def checked_archive(stream: BinaryIO) -> zipfile.ZipFile:
    """A ZIP to read; ValueError for one of more members or bytes than any layered picture has."""
    archive = zipfile.ZipFile(stream)
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_MEMBERS or total > MOST_TOTAL:
        raise ValueError(f"{len(entries)} members of {total} bytes, more than {MOST_MEMBERS} or {MOST_TOTAL}")
    return archive


def member(archive: zipfile.ZipFile, name: str, most: int | None = None) -> bytes:
    """A member's content, of at most so many bytes; ValueError for a larger one or none of that name."""
    most = MOST_BYTES if most is None else most
    try:
        entry = archive.getinfo(name)
    except KeyError as error:
        raise ValueError(f"no {name!r} in the archive") from error
    if entry.file_size > most:
        raise ValueError(f"{name} of {entry.file_size} bytes, more than {most}")
    with archive.open(entry) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{name} of more bytes than it says")
    return content
