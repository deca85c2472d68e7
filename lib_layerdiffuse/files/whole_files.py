"""Files that are written whole or not at all, and never over a file that is not ours to replace."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import OutputError

if TYPE_CHECKING:
    import torch

Writer = Callable[[Path], object]
# what systems answer whose file system has no hard links
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EMLINK, errno.EXDEV}


def write_whole(path: Path, write: Writer) -> None:
    """Let `write` fill a temporary file, then name it `path`; OutputError, and nothing left, when that fails."""
    with _partial(path, write) as partial:
        partial.replace(path)


def write_new(folder: Path, stem: str, suffix: str, write: Writer) -> Path:
    """Let `write` fill `stem.suffix`, or `stem_2.suffix` and so on: the first name that nobody has; gives the path.

    Other processes may do the same in the same folder: a name is taken in one step, never looked up and then used.
    """
    with _partial(folder / f"{stem}{suffix}", write) as partial:
        return next(path for path in _names(folder, stem, suffix) if _take(partial, path))


def write_new_folder(folder: Path, stem: str, contents: Iterable[tuple[str, bytes]]) -> Path:
    """Write files into a new folder `stem`, or `stem_2` and so on, that is there once it is whole; gives its path.

    OutputError, and nothing left, where that fails.
    """
    partial = folder / f".{secrets.token_hex(8)}.partial"
    try:
        partial.mkdir()
        for name, content in contents:
            (partial / name).write_bytes(content)
        return next(path for path in _names(folder, stem, "") if _take_folder(partial, path))
    except OSError as error:
        raise unwritable(folder / stem, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _take_folder(partial: Path, path: Path) -> bool:
    """Name a finished folder `path`, unless somebody has that name."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    if os.name == "nt":  # which names nothing over an empty folder
        path.rmdir()
    partial.rename(path)
    return True


def save_tensors(state: Mapping[str, torch.Tensor], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, tensors contiguous and on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}

    def write(partial: Path) -> None:
        try:
            save_file(state, str(partial), metadata=metadata)
        except SafetensorError as error:  # a full disk, in its words
            raise OSError(str(error)) from error

    write_whole(Path(path), write)


def _names(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    yield folder / f"{stem}{suffix}"
    for number in count(2):
        yield folder / f"{stem}_{number}{suffix}"


def _take(partial: Path, path: Path) -> bool:
    """Name a finished file `path`, unless somebody has that name."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    else:
        return True
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    partial.replace(path)
    return True


@contextmanager
def _partial(path: Path, write: Writer) -> Iterator[Path]:
    """A temporary file beside `path`, filled; removed at the end in any case, also on Ctrl-C."""
    # named by no more than is needed: `path` may be as long as names get
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        partial.touch(exist_ok=False)
        mode = partial.stat().st_mode
        write(partial)
        if os.name != "nt" and partial.stat().st_mode != mode:  # some libraries write files for their owner alone
            partial.chmod(mode)
        yield partial
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):  # a file system that is read-only says so again
            partial.unlink(missing_ok=True)


def ordinary_modes(folder: Path) -> None:
    """Give the files below `folder`, which this program has just written, the mode that the user's files have."""
    if os.name == "nt":
        return
    probe = folder / f".{secrets.token_hex(8)}.partial"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mode != mode:
            path.chmod(mode)


def check_file(path: str | Path, option: str = "--out") -> Path:
    """A path where a file can be written, its folders not made yet; OutputError otherwise."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path}, which is a folder", "a file to write", f"name a file in it with {option}")
    check_folder(path.parent, option)
    return path


def check_folder(folder: str | Path, option: str = "--out") -> Path:
    """A folder that can be made and written to, left as it was found; OutputError otherwise."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}, which is no folder", "a folder to write to", f"choose another {option}")
    made: list[Path] = []
    try:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        for place in reversed(missing):
            place.mkdir(exist_ok=True)
            made.append(place)
        probe = folder / f".{secrets.token_hex(8)}.partial"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise unwritable(folder, error, option) from error
    finally:
        for place in reversed(made):
            with suppress(OSError):  # somebody else has put something into it meanwhile
                place.rmdir()
    return folder


def unwritable(path: Path, error: OSError, option: str = "--out") -> OutputError:
    """The OutputError for a path that could not be written."""
    reason = error.strerror or str(error)
    return OutputError(
        f"{reason} while writing {path}", "room and permission to write there", f"free space or choose another {option}"
    )
