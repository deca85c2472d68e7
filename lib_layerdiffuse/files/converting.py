"""A published file that is a pickle, turned once into safetensors beside it, by a restricted reader in its own process.

No other pickle is ever read: a file is asked for by the name that its hub has for it.
"""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

from ..core.errors import WeightsError
from ..core.files.codec_parts import PARTS
from ..core.files.layer_files import CODEC, read_contents
from ..core.files.weights import SUFFIX
from . import pickled_tensors
from .whole_files import write_whole

logger = logging.getLogger(__name__)

PICKLE = ".pth"
LONGEST = 600  # seconds
KEPT = ("PATH", "SYSTEMROOT", "TEMP", "TMP", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")


def as_safetensors(source: Path) -> Path:
    """`<stem>.safetensors` beside a published `.pth` with decoder and encoder; made of it where it is not there yet."""
    target = source.with_suffix(SUFFIX)
    if not target.is_file():
        logger.info("converting %s to %s, once", source.name, target.name)
        write_whole(target, lambda partial: _convert(source, partial))
    return target


def _convert(source: Path, partial: Path) -> None:
    command = [sys.executable, str(Path(pickled_tensors.__file__)), str(source), str(partial)]
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {"OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, *(f"{part}." for part in PARTS)],
            capture_output=True, text=True, timeout=LONGEST, env=environment, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (subprocess.TimeoutExpired, OSError) as error:
        raise refused(source, f"a file that could not be converted ({error})") from error
    said = done.stderr.strip().splitlines()[-1:] or [f"the reader ended with {done.returncode}"]
    if done.returncode in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG):
        raise OSError(done.returncode, said[0])
    if done.returncode:
        raise refused(source, f"a file with {said[0]}")
    contents = read_contents(partial)
    if contents is None or contents.part != CODEC:
        raise refused(source, "tensors that are no transparency decoder and encoder")


def refused(source: Path, got: str) -> WeightsError:
    """The error for a pickle that is not what its name promises."""
    return WeightsError(
        f"{got}: {source}",
        "the published file of a transparency decoder and encoder, with plain tensors alone",
        f"delete {source.name} and download it again, or put {source.with_suffix(SUFFIX).name} in its place; "
        "files from elsewhere are not opened, as a pickle can run programs",
    )
