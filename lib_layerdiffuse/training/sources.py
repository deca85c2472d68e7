"""Where RGBA training images come from: a folder, a tar archive (npm packages too) or a zip file.

Every source yields `(member name, bytes)`; decoding and its failures are the business of `data.py`, so that one bad
file is listed and skipped and never ends a run.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import InputError

IMAGE_SUFFIXES = (".png", ".webp", ".avif", ".tif", ".tiff", ".gif", ".bmp")
TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


def iterate_files(path: str | Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Iterator[tuple[str, bytes]]:
    """Yield `(name, content)` of every file under `path` whose name ends with one of `suffixes`, sorted by name.

    Raises `InputError` when `path` is neither a folder nor a readable tar or zip archive.
    """
    path = Path(path)
    if path.is_dir():
        yield from _iterate_folder(path, suffixes)
    elif path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}, which is no file", "a folder or an archive", "check the path")
    elif path.name.lower().endswith(TAR_SUFFIXES):
        yield from _iterate_tar(path, suffixes)
    elif path.suffix.lower() == ".zip":
        yield from _iterate_zip(path, suffixes)
    else:
        raise InputError(
            got=f"{path}" + ("" if path.exists() else " (does not exist)"),
            expected="a folder of images, a .tar/.tgz archive (an npm package is one) or a .zip file",
            what_to_do="check the path, or unpack the archive into a folder and name the folder",
        )


def _iterate_folder(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name.lower().endswith(suffixes):
            yield file.relative_to(path).as_posix(), file.read_bytes()


def _iterate_tar(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as archive:
            members = [member for member in archive if member.isfile() and member.name.lower().endswith(suffixes)]
            for member in sorted(members, key=lambda member: member.name):
                yield member.name, archive.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _unreadable(path, error) from error


def _iterate_zip(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if name.lower().endswith(suffixes):
                    yield name, archive.read(name)
    except (zipfile.BadZipFile, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(got=f"{path}: {error}", expected="a whole archive", what_to_do="download the archive again")
