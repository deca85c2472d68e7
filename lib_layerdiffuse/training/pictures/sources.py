"""Where RGBA training images come from: a folder, a tar archive (npm packages too) or a zip file.

Every source yields `(member name, bytes)`; decoding and its failures are the business of `data.py`, so that one bad
file is listed and skipped and never ends a run. An archive may claim anything: `LIMITS` says what is still read.
"""

from __future__ import annotations

import itertools
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import InputError

IMAGE_SUFFIXES = (".png", ".webp", ".avif", ".tif", ".tiff", ".gif", ".bmp")
TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
MEMBER_FAILURES = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Limits:
    """What is read of one source: files of any kind in it, bytes of one file, bytes of all of them unpacked."""

    members: int = 500_000
    member_bytes: int = 256 * 2**20
    total_bytes: int = 16 * 2**30


LIMITS = Limits()


def iterate_files(
    path: str | Path,
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    skipped: list[str] | None = None,
    limits: Limits = LIMITS,
) -> Iterator[tuple[str, bytes]]:
    """Yield `(name, content)` of every file under `path` whose name ends with one of `suffixes`, sorted by name.

    Raises `InputError` when `path` is neither a folder nor a readable tar or zip archive, or when it holds more than
    `limits` allow. A file that is too large or cannot be unpacked is left out, with a line in `skipped`.
    """
    path = Path(path)
    skipped = [] if skipped is None else skipped
    if path.is_dir():
        yield from _iterate_folder(path, suffixes, skipped, limits)
    elif path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}, which is no file", "a folder or an archive", "check the path")
    elif path.name.lower().endswith(TAR_SUFFIXES):
        yield from _iterate_tar(path, suffixes, skipped, limits)
    elif path.suffix.lower() == ".zip":
        yield from _iterate_zip(path, suffixes, skipped, limits)
    else:
        raise InputError(
            got=f"{path}" + ("" if path.exists() else " (does not exist)"),
            expected="a folder of images, a .tar/.tgz archive (an npm package is one) or a .zip file",
            what_to_do="check the path, or unpack the archive into a folder and name the folder",
        )


class _Census:
    """Counts the files of a source while they are listed, and tells which of them are read."""

    def __init__(self, path: Path, skipped: list[str], limits: Limits) -> None:
        self.path, self.skipped, self.limits = path, skipped, limits
        self.members = self.total = 0

    def admits(self, name: str, size: int) -> bool:
        """Whether a file of `size` bytes is read; InputError once the source holds too much."""
        self.members, self.total = self.members + 1, self.total + size
        if self.members > self.limits.members:
            raise self.too_many()
        if self.total > self.limits.total_bytes:
            raise self._too_much(f"more than {self.limits.total_bytes / 2**30:.1f} GiB unpacked", "a smaller source")
        if size > self.limits.member_bytes:
            self.skipped.append(f"{name}: {size / 2**20:.0f} MiB, more than {self.limits.member_bytes / 2**20:.0f}")
            return False
        return True

    def too_many(self) -> InputError:
        """What is said of a source with more files than are read."""
        return self._too_much(f"more than {self.limits.members} files", "fewer files")

    def _too_much(self, got: str, expected: str) -> InputError:
        return InputError(f"{self.path} with {got}", expected, "check that it is the right one, or split it")

    def read(self, name: str, read: Callable[[], bytes]) -> bytes | None:
        """The content of a file; None, and a line, when it cannot be unpacked."""
        try:
            return read()
        except MEMBER_FAILURES as error:
            self.skipped.append(f"{name}: {error}")
            return None


def _iterate_folder(
    path: Path, suffixes: tuple[str, ...], skipped: list[str], limits: Limits
) -> Iterator[tuple[str, bytes]]:
    census = _Census(path, skipped, limits)
    listed = list(itertools.islice(path.rglob("*"), limits.members + 1))  # of "/" not even the names are wanted
    if len(listed) > limits.members:
        raise census.too_many()
    for file in sorted(listed):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name.lower().endswith(suffixes) and census.admits(name, file.stat().st_size):
            content = census.read(name, file.read_bytes)
            if content is not None:
                yield name, content


def _iterate_tar(
    path: Path, suffixes: tuple[str, ...], skipped: list[str], limits: Limits
) -> Iterator[tuple[str, bytes]]:
    census = _Census(path, skipped, limits)
    try:
        with tarfile.open(path) as archive:
            # sizes are asked before the archive is read on: a packed desert of zeros is never unpacked
            admitted = [member for member in archive if census.admits(member.name, member.size)]
            members = [member for member in admitted if member.isfile() and member.name.lower().endswith(suffixes)]
            for member in sorted(members, key=lambda member: member.name):
                content = census.read(member.name, lambda member=member: _unpacked(archive, member))
                if content is not None:
                    yield member.name, content
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def _unpacked(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _iterate_zip(
    path: Path, suffixes: tuple[str, ...], skipped: list[str], limits: Limits
) -> Iterator[tuple[str, bytes]]:
    census = _Census(path, skipped, limits)
    try:
        with zipfile.ZipFile(path) as archive:
            admitted = [info for info in archive.infolist() if census.admits(info.filename, info.file_size)]
            members = [info for info in admitted if info.filename.lower().endswith(suffixes)]
            for info in sorted(members, key=lambda info: info.filename):
                content = census.read(info.filename, lambda info=info: archive.read(info))
                if content is not None:
                    yield info.filename, content
    except (zipfile.BadZipFile, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(got=f"{path}: {error}", expected="a whole archive", what_to_do="download the archive again")
