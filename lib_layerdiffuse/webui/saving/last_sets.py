"""The sets of layers that a page made last, to be saved as files: each page its own, those of its last job."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from PIL import Image

from ...core.picture.alpha import from_tensor, rgba_array
from ...files.names import slug
from ...form.frames import FRAMES
from ...sets.layer_set import LayerSet, set_of_frames
from ...unet.images import with_alpha
from ..jobs.job import Job

VISITORS = 16  # whose sets are kept at a time
MOST_PIXELS = 2**24  # of one page's: 64 MB; the last set is kept in any case
SAVED_AS = "already_saved_as"  # the attribute by which WebUIs know the file of a picture


@dataclass(frozen=True)
class Piece:
    """A picture as it went out, and what it was painted from; `of_set` are prompt and seed of its whole set."""

    picture: Image.Image
    prompt: str
    seed: int | None
    of_set: tuple[str, int | None]


@dataclass
class Made:
    """What one job, or all steps of a chain, made; `owner` is whose it is, as long as that is there."""

    owner: weakref.ref[Any]
    given: dict[str, Image.Image] = field(default_factory=dict)
    sets: OrderedDict[int, dict[str, Piece]] = field(default_factory=OrderedDict)

    def add(self, number: int, frame: str, piece: Piece) -> None:
        """A picture of a set; of many sets the first ones go."""
        self.sets.setdefault(number, {})[frame] = piece
        while len(self.sets) > 1 and self._pixels() > MOST_PIXELS:
            self.sets.popitem(last=False)

    def _pixels(self) -> int:
        return sum(
            piece.picture.width * piece.picture.height for pieces in self.sets.values() for piece in pieces.values()
        )

    def chosen(self, name: str) -> dict[str, Piece]:
        """The set with the picture that lies in a file of this name; of no such name the last."""
        for pieces in self.sets.values():
            if name and any(file_name(piece.picture) == name for piece in pieces.values()):
                return pieces
        return self.sets[next(reversed(self.sets))]

    def told(self, name: str) -> str:
        """What names a set: its prompt and its seed."""
        prompt, seed = next(iter(self.chosen(name).values())).of_set
        return f"{slug(prompt or 'layers')} {'' if seed is None else seed}"

    def layer_set(self, name: str) -> LayerSet:
        """A set as layers, with the pictures that the user gave."""
        pieces = self.chosen(name)
        size = next(iter(pieces.values())).picture.size
        pictures = {**self.given, **{frame: piece.picture for frame, piece in pieces.items()}}
        return set_of_frames(
            {frame: picture for frame, picture in pictures.items() if picture.size == size},
            {frame: piece.prompt for frame, piece in pieces.items()},
            {frame: piece.seed for frame, piece in pieces.items()},
        )


class LastSets:
    """The sets of each page's tab, of the pages that made some last."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, str], Made] = OrderedDict()
        self._lock = threading.Lock()  # jobs and downloads run in threads of their own

    def take(self, job: Job, tab: str, place: int, frame: str, picture: Image.Image) -> None:
        """A picture of a job, as it goes out; what nobody asked for on a page is not kept."""
        request = job.request
        if not request.visitor or request.is_tile:
            return
        owner = job if request.chain is None else request.chain
        number = place if request.chain is not None else place // len(job.run.method.frames)
        of_set = at(getattr(job.p, "all_prompts", None), place, ""), at(job.told_seeds, place, None)
        piece = Piece(picture, job.prompt_of_layer(frame, place), job.seed_of_layer(frame, place), of_set)
        with self._lock:
            key = request.visitor, tab
            made = self._made.get(key)
            if made is None or made.owner() is not owner:
                made = self._made[key] = Made(weakref.ref(owner), given_to(job, picture.size))
            made.add(number, frame, piece)
            self._made.move_to_end(key)
            while len(self._made) > VISITORS:
                self._made.popitem(last=False)

    def get(self, visitor: str, tab: str, name: str = "") -> tuple[LayerSet, str] | None:
        """A page's last set in a tab, or the one with the picture in a file of this name, and its name; None before."""
        with self._lock:
            made = self._made.get((visitor, tab))
            kept = None if made is None else replace(made, sets=OrderedDict(made.sets))
        return None if kept is None else (kept.layer_set(name), kept.told(name))


def given_to(job: Job, size: tuple[int, int]) -> dict[str, Image.Image]:
    """The pictures of frames that the user gave to a job or chain, RGBA, as they were brought to this size."""
    chain = job.request.chain
    arguments, images = job.run.arguments, job.run.method.images
    if chain is not None:
        arguments, images = chain.arguments, chain.chain.images
    found = {frame: getattr(arguments, FRAMES[frame].image) for frame in images}
    return {
        frame: from_tensor(with_alpha(rgba_array(picture), size[1], size[0], arguments.resize_mode))[0]
        for frame, picture in found.items()
        if isinstance(picture, Image.Image)
    }


def at(values: Any, place: int, default: Any) -> Any:
    """A WebUI's list at a place, where it has it."""
    return values[place] if isinstance(values, list) and place < len(values) else default


def file_name(picture: Image.Image) -> str:
    """The name of the file that a WebUI saved a picture as; empty for none."""
    return PurePath(str(getattr(picture, SAVED_AS, "") or "")).name
