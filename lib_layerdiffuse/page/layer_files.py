"""The set of the chosen picture as a layered file, to be downloaded: written when its format is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..core.errors import InputError
from ..core.methods import BACKGROUND, FOREGROUND
from ..files.whole_files import write_new
from ..sets.save_options import KINDS
from .runs import PictureFile, Run

if TYPE_CHECKING:
    from ..sets.layer_set import LayerSet

CHOICES = [(f"Save layers as {title}", kind) for kind, title in KINDS.items()]


def layered_file(run: Run, chosen: PictureFile, kind: str) -> Path:
    """A file of this kind with the layers of the chosen picture's set; the same one when it is asked for again.

    InputError for another format.
    """
    from ..sets.formats import pack_set

    if kind not in KINDS:
        raise InputError("that format", f"one of {', '.join(KINDS)}", "choose one of the list")
    key = chosen.place[0], kind
    with run.lock:
        known = run.layered.get(key)
        if known is None or not known.is_file():
            packed = pack_set(set_of(run, chosen), kind)
            stem = f"{chosen.path.stem}-layers"
            known = write_new(run.folder, stem, packed.suffix, lambda partial: partial.write_bytes(packed.content))
            run.layered[key] = known
    return known


def set_of(run: Run, chosen: PictureFile) -> LayerSet:
    """The layers of the chosen picture's set, those that were given among them; what was painted lies on the disk."""
    from ..sets.layer_set import set_of_frames

    files = [file for file in run.files if file.place[0] == chosen.place[0]]
    read = {}
    for file in files:
        with Image.open(file.path) as image:
            image.load()
        read[file.frame or (FOREGROUND if image.mode == "RGBA" else BACKGROUND)] = image
    size = next(iter(read.values())).size
    given = {frame: image for frame, image in run.given.items() if frame not in read and image.size == size}
    about = dict(zip(read, files, strict=True))
    return set_of_frames(
        {**given, **read},
        {frame: file.layer_prompt for frame, file in about.items()},
        {frame: file.seed_of_layer for frame, file in about.items()},
    )
