"""A program of its own: plain tensors out of a PyTorch file (a pickle in a ZIP) into a safetensors file.

    python pickled_tensors.py SOURCE TARGET PREFIX...

Pickles can run programs, so this one is read by a reader that knows a handful of harmless names and refuses all others,
without torch, in a process of its own whose memory, time and files are limited. Only keys that begin with one of the
prefixes are written; exit code 3 and one line on stderr say why a file was refused.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose names are not for other modules

import json
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

REFUSED = 3  # exit code
MOST_ENTRIES, MOST_PICKLE = 20_000, 16 * 2**20  # of the archive, and bytes of its pickle
MOST_MEMORY, MOST_SECONDS, SPARE = 4 * 2**30, 300, 16 * 2**20
KINDS = {
    "DoubleStorage": ("F64", 8),
    "FloatStorage": ("F32", 4),
    "HalfStorage": ("F16", 2),
    "BFloat16Storage": ("BF16", 2),
}


class Refused(Exception):
    """A file that holds something else than plain tensors."""


class Kind(NamedTuple):
    """A kind of numbers: its name in safetensors, and bytes."""

    name: str
    size: int


class Storage(NamedTuple):
    """Numbers in the archive, under this name."""

    kind: Kind
    name: str
    length: int


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def rebuilt(*arguments: Any) -> Tensor:
    """What torch calls `_rebuild_tensor_v2`: storage, start, shape and strides, and more; of any shape.

    Refused for numbers that do not belong together.
    """
    if len(arguments) < 4 or not isinstance(arguments[0], Storage):
        raise Refused("a tensor without numbers")
    storage, start, shape, strides = arguments[:4]
    whole = [start, *shape, *strides]
    if len(shape) != len(strides) or not all(type(number) is int and number >= 0 for number in whole):
        raise Refused("a tensor with a shape that makes no sense")
    last = start + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.length or (math.prod(shape) and last >= storage.length):
        raise Refused("a tensor that is larger than its numbers")
    return Tensor(storage, start, tuple(shape), tuple(strides))


KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): rebuilt,
    **{("torch", name): Kind(*kind) for name, kind in KINDS.items()},
}


class Reader(pickle.Unpickler):
    """Knows the names in `KNOWN`, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of a pickle. Refused for all names but a handful."""
        if (module, name) not in KNOWN:
            raise Refused(f"the name {module}.{name}, which plain tensors do not need")
        return KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """A storage, which is beside the pickle. Refused for any other reference."""
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], Kind)):
            raise Refused("a reference that is no storage")
        _, kind, name, _place, count = pid
        if not (isinstance(name, str) and type(count) is int and count >= 0):
            raise Refused("a storage without name or size")
        return Storage(kind, name, count)


def pickle_of(archive: zipfile.ZipFile, size: int) -> str:
    """The folder in the archive that holds the pickle; Refused for archives that are no plain PyTorch file."""
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > size:
        raise Refused("an archive that is larger inside than outside")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise Refused("a compressed or encrypted archive")
    names = [entry.filename for entry in entries]
    pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
    if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl") or len(names) != len(set(names)):
        raise Refused("an archive that is no PyTorch file of tensors alone (a TorchScript program, perhaps)")
    if pickles[0].file_size > MOST_PICKLE:
        raise Refused(f"a pickle of {pickles[0].file_size} bytes")
    folder = pickles[0].filename.removesuffix("data.pkl")
    if folder + "byteorder" in names and archive.read(folder + "byteorder") != b"little":
        raise Refused("numbers with their high byte first")
    return folder


def tensors_of(archive: zipfile.ZipFile, folder: str, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors under the keys that begin with one of the prefixes. Refused where there are none."""
    with archive.open(folder + "data.pkl") as file:
        content = Reader(file).load()
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise Refused("something else than tensors by name")
    wanted = {key: value for key, value in content.items() if key.startswith(prefixes)}
    if not wanted or not all(isinstance(value, Tensor) for value in wanted.values()):
        raise Refused(f"no tensors under {' or '.join(prefixes)}")
    return wanted


def numbers_of(archive: zipfile.ZipFile, folder: str, tensor: Tensor) -> bytes:
    """The numbers of a tensor in the order of its shape. Refused where the file is too short."""
    kind = tensor.storage.kind
    data = archive.read(f"{folder}data/{tensor.storage.name}")
    if len(data) < tensor.storage.length * kind.size:
        raise Refused("a storage that is shorter than its size")
    numbers = np.frombuffer(data, np.dtype(f"u{kind.size}"), tensor.storage.length)[tensor.start :]
    strides = tuple(stride * kind.size for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False).tobytes()


def write(archive: zipfile.ZipFile, folder: str, tensors: dict[str, Tensor], target: str) -> None:
    """A safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, tensor in tensors.items():
        begin, end = end, end + math.prod(tensor.shape) * tensor.storage.kind.size
        header[key] = {"dtype": tensor.storage.kind.name, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with Path(target).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(numbers_of(archive, folder, tensor))


def limit(size: int) -> None:
    """Take from this process what it does not need; a system that has no such limits has the parent's clock alone."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        for name, most in (
            ("RLIMIT_AS", MOST_MEMORY),
            ("RLIMIT_CPU", MOST_SECONDS),
            ("RLIMIT_FSIZE", size + SPARE),
            ("RLIMIT_NPROC", 0),
        ):
            resource.setrlimit(getattr(resource, name), (most, most))


def convert(source: str, target: str, *prefixes: str) -> None:
    """The whole work; Refused, or what the file system says."""
    with Path(source).open("rb") as file:
        size = file.seek(0, 2)
        limit(size)
        try:
            with zipfile.ZipFile(file) as archive:
                folder = pickle_of(archive, size)
                write(archive, folder, tensors_of(archive, folder, prefixes), target)
        except zipfile.BadZipFile as error:
            raise Refused(f"no ZIP archive ({error})") from error
        except (pickle.UnpicklingError, EOFError, KeyError, AttributeError, IndexError, TypeError, ValueError) as error:
            raise Refused(f"a broken file ({type(error).__name__}: {error})") from error


def main() -> int:
    """The exit code."""
    try:
        convert(*sys.argv[1:])
    except (Refused, RecursionError, MemoryError) as error:
        sys.stderr.write(f"{error or type(error).__name__}\n")
        return REFUSED
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        return error.errno or 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
