"""A script chosen from the WebUI's list, at work with the box ticked: what it loses of transparency is kept for it.

Such a script runs the WebUI's jobs by itself, on pictures that it cuts and joins as RGB. While it runs, and only then,
the functions of the WebUI by which it does that are replaced by ones that mind alpha.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from ...core.errors import InputError, LayerDiffuseError
from ...core.picture.hidden import with_hidden_colours
from ...core.picture.verdicts import HAZE, AlphaFigures
from ...diagnosis.diagnosis import ADVICE
from ...form.arguments import LayerArguments
from ..host.modules import host_module
from ..jobs.changes import Changes
from ..jobs.job import Job
from ..jobs.pictures import ClearLayer
from ..jobs.telling import NOTE_KEY
from ..page.options import read_options
from ..saving import files
from ..wrapping import until_removed
from .in_turn import InTurn
from .joining import enlarged, joined, on_canvas, start_layer
from .outpainting import Outpainting

logger = logging.getLogger(__name__)

ATTRIBUTE = "layerdiffuse_selected"
Functions = dict[str, Callable[..., Any]]


class Selected:
    """The script at work on `p`; a context manager around its `run`."""

    def __init__(self, p: Any, title: str, arguments: Mapping[str, Any]):
        self.p, self.title, self.arguments = p, title, arguments
        self.way: Way | None = None
        self.failed: LayerDiffuseError | None = None
        self.transparent = False  # whether any of its jobs gave a transparent picture
        self.whole: Image.Image | None = None  # the last joined picture
        self.notes: list[str] = []
        self.visitor = ""  # the page that wants it
        self.told = False  # that transparency is lost
        self._changes = Changes(p)
        self._wrapped: list[Callable[[], None]] = []  # functions of the WebUI's module; each undoes one

    def __enter__(self) -> Selected:
        setattr(self.p, ATTRIBUTE, self)
        make = WAYS.get(self.title.lower())
        if make is not None and getattr(self.p, "init_images", None):
            try:
                self._prepare(make)
            except LayerDiffuseError as error:
                self.lose(error)
        return self

    def _prepare(self, make: Callable[..., Way]) -> None:
        start = start_layer(self.p.init_images[0])
        self.way = make(self, start)
        self._changes.set("init_images", [start.opaque, *self.p.init_images[1:]])
        for name, around in self.way.functions().items():
            self._wrapped.append(until_removed(host_module("images"), name, around))

    def __exit__(self, *_exception: object) -> None:
        while self._wrapped:
            self._wrapped.pop()()
        self._changes.undo()
        delattr(self.p, ATTRIBUTE)

    # --- its jobs

    @property
    def has_tiles(self) -> bool:
        """Whether its jobs' pictures are tiles that it joins with their alpha."""
        return self.way is not None

    def check(self, arguments: LayerArguments) -> None:
        """InputError unless a job of it can work; no method yet is the single method of the loaded base."""
        if not self.has_tiles:
            return
        method = arguments.method_row
        if self.failed is not None:
            raise self.failed
        if method is not None and (len(method.frames) > 1 or method.images):
            raise InputError(
                f"the method {method.title} in the script {self.title}",
                "a method that makes one transparent picture from a prompt, as every tile is a job of its own",
                "choose the mode Single, or no script",
            )
        if arguments.output_origin:
            self.note("the opaque pictures of tiles are left out")

    def see(self, job: Job) -> None:
        """What comes of one of its jobs."""
        self.visitor = job.request.visitor
        self.transparent = self.transparent or any(layer.rgba is not None for layer in job.outcome.layers)
        self._keep(job.p.extra_generation_params.get(NOTE_KEY))
        if self.way is not None:
            self.failed = self.failed or job.failed

    def _keep(self, note: str | None) -> None:
        if note and note not in self.notes:
            self.notes.append(note)

    def note(self, text: str) -> None:
        """Tell the user something, as a job does."""
        if text in self.notes:
            return
        logger.warning("%s", text)
        self.p.comment(f"LayerDiffuse: {text}")
        self._keep(text)

    def lose(self, error: LayerDiffuseError) -> None:
        """The script goes on without its alpha being kept, and the user is told."""
        self.told = True
        self.note(f"the transparency is lost in the script {self.title}: {error}")

    # --- its results

    def finished(self, picture: Image.Image) -> Image.Image:
        """A joined picture, marked as ours."""
        verdict = AlphaFigures.of(picture).verdict
        if verdict is not None and verdict is not HAZE:  # what is joined may be a part of something soft
            self.note(f"{verdict.sentence} {ADVICE}")
        if picture.mode == "RGBA":  # in place: the script keeps this very object
            picture.paste(with_hidden_colours(picture, read_options().hidden_colours))
        self.whole = files.mark(picture, "", several=False)
        return self.whole

    def deliver(self, processed: Any) -> None:
        """The script's own result: joined pictures with alpha, all notes, texts for an API."""
        if processed is None:
            return
        if self.way is not None:
            processed.images[:] = map(self.way.finished, processed.images)
        kept = any(getattr(image, "mode", "") == "RGBA" for image in processed.images)
        if self.transparent and not kept and not self.told and getattr(self.p, "do_not_save_samples", False):
            self.note(f"the script {self.title} puts its pictures together without alpha: got {LOSS}")
            processed.comments = f"{processed.comments or ''}LayerDiffuse: {self.notes[-1]}\n"
        if self.notes:
            self.p.extra_generation_params[NOTE_KEY] = "; ".join(self.notes)
        files.for_api(self.p, processed)


LOSS = (
    "RGB pictures; expected RGBA. What to do: choose no script, "
    'or one of "SD upscale", "Poor man\'s outpainting" and "Outpainting mk2"'
)


class Joining:
    """A script that cuts by `images.split_grid` and joins by `images.combine_grid`."""

    def __init__(self, selected: Selected, start: ClearLayer, place: Callable[[Image.Image, ClearLayer], Image.Image]):
        self.selected, self.start, self.place = selected, start, place

    def functions(self) -> Functions:
        """What goes around the WebUI's functions."""
        return {"split_grid": self._split, "combine_grid": self._combine}

    def _split(self, original: Callable[..., Any], image: Image.Image, *arguments: Any, **named: Any) -> Any:
        return original(self._with_alpha(image), *arguments, **named)

    def _combine(self, original: Callable[[Any], Image.Image], grid: Any) -> Image.Image:
        if self.selected.failed is not None:
            raise self.selected.failed
        if not any(cell[2].mode == "RGBA" for _, _, row in grid.tiles for cell in row):
            return original(grid)
        return self.selected.finished(joined(original, grid))

    def _with_alpha(self, image: Image.Image) -> Image.Image:
        if image.mode != "RGB":  # a mask
            return image
        try:
            return self.place(image, self.start)
        except LayerDiffuseError as error:
            self.selected.lose(error)
            return image

    def give(self, p: Any) -> None:
        """Before a job: its tiles have alpha."""

    def take(self, pictures: list[Image.Image]) -> None:
        """After a job: the script keeps its pictures."""

    def finished(self, image: Any) -> Any:
        """A picture in the script's result, which is joined with alpha."""
        return image


class SideBySide:
    """A script that paints side by side, and joins by itself."""

    def __init__(self, selected: Selected, start: ClearLayer):
        self.selected, self.canvases = selected, Outpainting(start, selected.arguments)
        self.lost = False

    def functions(self) -> Functions:
        """What goes around the WebUI's functions by which the script gives its pictures out."""
        return {"image_grid": self._grid, "save_image": self._save}

    def _grid(self, original: Callable[..., Any], imgs: list[Any], *arguments: Any, **named: Any) -> Any:
        return original([self.finished(image) for image in imgs], *arguments, **named)

    def _save(self, original: Callable[..., Any], image: Any, *arguments: Any, **named: Any) -> Any:
        return original(self.finished(image), *arguments, **named)

    def give(self, p: Any) -> None:
        """Before a job: alpha for its tiles."""
        if self.lost:
            return
        try:
            p.init_images = self.canvases.tiles(p.init_images, p.image_mask)
        except LayerDiffuseError as error:
            self.lost = True
            self.selected.lose(error)

    def take(self, pictures: list[Image.Image]) -> None:
        """After a job: its pictures go into the canvases."""
        if not self.lost:
            self.canvases.take(pictures)

    def finished(self, image: Any) -> Any:
        """The picture with alpha that belongs to one of the script's own; any other as it is."""
        found = None if self.lost else self.canvases.finished(image)
        if found is None:
            return image
        return found if files.is_ours(found, None) else self.selected.finished(found)


Way = Joining | SideBySide | InTurn
WAYS: dict[str, Callable[..., Way]] = {  # by title, in small letters
    "sd upscale": functools.partial(Joining, place=enlarged),
    "poor man's outpainting": functools.partial(Joining, place=on_canvas),
    "outpainting mk2": SideBySide,
    "ultimate sd upscale": InTurn,
}


def selected_of(p: Any) -> Selected | None:
    """The script that `p` is a job of, if one was chosen."""
    return getattr(p, ATTRIBUTE, None)


def way_of(p: Any) -> Way | None:
    """How the chosen script joins what `p` makes, where `p` is a job of it that makes tiles."""
    selected = selected_of(p)
    return None if selected is None else selected.way
