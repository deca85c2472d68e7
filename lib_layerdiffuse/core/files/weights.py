"""Weight files: found, opened lazily and checked against what their reader needs before any model is touched."""

from __future__ import annotations

import json
import logging
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import WeightsError
from ..methods import hub_of, is_shipped
from .state_check import state_differences

logger = logging.getLogger(__name__)

Shape = tuple[int, ...]
SUFFIX = ".safetensors"
BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MAX_HEADER = 100 * 2**20  # what the safetensors library itself accepts
FOREIGN_STARTS = (
    (b"PK\x03\x04", "a PyTorch checkpoint or a ZIP archive"),
    (b"\x80\x02", "a pickled PyTorch checkpoint"),
    (b"\x80\x04", "a pickled PyTorch checkpoint"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file itself"),
    (b"<!", "a web page"),
    (b"<html", "a web page"),
    (b"GGUF", "a GGUF file"),
)


class WeightFile:
    """An open safetensors file: `shapes` of all keys at once, tensors one by one; a context manager.

    WeightsError for a file that is none.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        header = _read_header(self.path)
        self.metadata, self.shapes = metadata_of(header), shapes_of(header)
        self._places = {key: (DTYPES[entry["dtype"]], *entry["data_offsets"]) for key, entry in _entries(header)}
        try:
            safe_open(str(self.path), framework="pt", device="cpu")  # the library's own checks of the file
            self._mapped: torch.Tensor | None = _mapped(self.path)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise broken_file(self.path, f"a file that cannot be read ({error})", "a safetensors file") from error

    def tensor(self, key: str) -> torch.Tensor:
        """One tensor on the CPU, in the dtype of the file and of its shape there.

        The library's own `get_tensor` never frees two numbers for each tensor, and a WebUI reads files for days.
        WeightsError once the file is closed.
        """
        if self._mapped is None:
            raise WeightsError(f"{self.path}, which is closed", "an open file", "read tensors before closing it")
        dtype, begin, end = self._places[key]
        piece = self._mapped[begin:end]
        aligned = piece if piece.storage_offset() % dtype.itemsize == 0 else piece.clone()
        return aligned.view(dtype).reshape(self.shapes[key])

    def tensors(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """All tensors whose key starts with `prefix`, which is cut off."""
        return {key[len(prefix) :]: self.tensor(key) for key in self.shapes if key.startswith(prefix)}

    def close(self) -> None:
        """Unmap the file; tensors already read stay valid."""
        self._mapped = None

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def read_header(path: Path) -> tuple[dict[str, str], dict[str, Shape]]:
    """Metadata and shapes of a safetensors file, without its tensors; WeightsError for one that is not whole."""
    header = _read_header(path)
    return metadata_of(header), shapes_of(header)


def metadata_of(header: dict) -> dict[str, str]:
    """The metadata in a header."""
    metadata = header.get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def shapes_of(header: dict) -> dict[str, Shape]:
    """The shapes of a header's tensors."""
    return {key: tuple(entry["shape"]) for key, entry in _entries(header)}


def _mapped(path: Path) -> torch.Tensor:
    """The bytes [N] uint8 behind the header of a file, read when they are used; writing does not reach the file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    return torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)[8 + length :]


def stamp(path: Path) -> tuple[str, int, int]:
    """What changes when a file is replaced."""
    state = path.stat()
    return str(path), state.st_mtime_ns, state.st_size


def keep_latest(kept: dict[str, tuple[tuple, Any]], kind: str, key: tuple, read: Callable[[], Any]) -> Any:
    """What `kept` has of this kind; read anew where its key is another. At most one of a kind is in memory."""
    if kind not in kept or kept[kind][0] != key:
        kept.pop(kind, None)  # before the new one is read: two would need twice the memory
        kept[kind] = (key, read())
    return kept[kind][1]


def broken_file(path: Path, got: str, expected: str) -> WeightsError:
    """The error of a file that cannot be used as it is, with how to mend it."""
    return WeightsError(
        f"{got} in {path}",
        expected,
        f"delete {path.name} and download it again; {by_hand(path.name, path.parent)}",
    )


def by_hand(file_name: str, folder: str | Path | None = None) -> str:
    """How to get a published file without this program."""
    if is_shipped(file_name.removesuffix(SUFFIX)):
        return (
            "the file is part of the demo model: get this package again, or make it with `train export` for a demo "
            "model of your own"
        )
    where = f" and put it into {folder}" if folder is not None else ""
    hub = hub_of(file_name.removesuffix(SUFFIX))
    if hub is None:
        return f"by hand: take {file_name} from those who made it{where}"
    return f"by hand: take {hub.name_of(file_name)} from the Hugging Face repository {hub.repository}{where}"


def check_keys(path: Path, shapes: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """WeightsError naming what is missing, unexpected or of another shape, unless `shapes` equals `expected`."""
    differences = state_differences(expected, shapes)
    if differences:
        raise broken_file(path, differences, f"{len(expected)} tensors of known names and shapes")


def find_weights(stem: str, folders: Iterable[str | Path], fetch: Callable[[str], str | Path] | None = None) -> Path:
    """The path of `<stem>.safetensors`: the first folder that has it, else what `fetch(file name)` gives.

    WeightsError where neither has it.
    """
    name, looked = stem + SUFFIX, [Path(folder) for folder in folders]
    for folder in looked:
        if (folder / name).is_file():
            return folder / name
    if fetch is not None:
        logger.info("%s is in none of the folders given: fetching it", name)
        return Path(fetch(name))
    places = ", ".join(str(folder) for folder in looked) or "no folder"
    raise WeightsError(
        f"no file {name} (looked in {places})",
        "the weight file of the method",
        by_hand(name, looked[0] if looked else "the models folder"),
    )


def _read_header(path: Path) -> dict:
    """The header of a safetensors file, after checks of its length, its entries and the size of the file."""
    try:
        with path.open("rb") as file:
            start = file.read(24)
            size = path.stat().st_size
            _check_start(path, start, size)
            (length,) = struct.unpack("<Q", start[:8])
            file.seek(8)
            header = json.loads(file.read(length))
    except OSError as error:
        raise broken_file(path, f"a file that cannot be opened ({error.strerror})", "a safetensors file") from error
    except (ValueError, RecursionError) as error:  # the latter from lists in lists in lists
        raise broken_file(path, "an unreadable header", "a safetensors file") from error
    _check_entries(path, header)
    promised = 8 + length + max((entry["data_offsets"][1] for key, entry in _entries(header)), default=0)
    if size != promised:
        kind = "a truncated file" if size < promised else "a file that is too long"
        raise broken_file(path, f"{kind} of {size} bytes", f"the {promised} bytes that its header promises")
    return header


def _check_start(path: Path, start: bytes, size: int) -> None:
    for signature, kind in FOREIGN_STARTS:
        if start.lower().startswith(signature.lower()):
            raise broken_file(path, kind, "a safetensors file")
    if len(start) < 8 or struct.unpack("<Q", start[:8])[0] > MAX_HEADER:
        raise broken_file(path, f"something that is not safetensors ({size} bytes)", "a safetensors file")
    if struct.unpack("<Q", start[:8])[0] > size - 8:
        raise broken_file(path, f"a truncated file of {size} bytes", "a whole safetensors header")


def _entries(header: dict) -> list[tuple[str, dict]]:
    return [(key, entry) for key, entry in header.items() if key != "__metadata__"]


def _check_entries(path: Path, header: object) -> None:
    if not isinstance(header, dict) or not _entries(header):
        raise broken_file(path, "no tensor", "a safetensors file with tensors")
    for key, entry in _entries(header):
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            whole = end - begin == math.prod(shape) * BYTES_OF.get(dtype, math.nan)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise broken_file(path, f"a malformed entry for {key}", "dtype, shape and data_offsets") from error
        if dtype not in BYTES_OF:
            raise broken_file(path, f"{key} stored as {dtype}", f"one of {', '.join(BYTES_OF)}")
        if not whole:
            raise broken_file(path, f"{key} with a length that its shape contradicts", "a sound safetensors header")
