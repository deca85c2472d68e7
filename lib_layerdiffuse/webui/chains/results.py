"""What goes out of a chain: the layers of each set side by side, then whatever else the steps made; notes; a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from ...sets.chains import FRAMES
from ..host.modules import host_module, option
from ..jobs.telling import ERROR_KEY, NOTE_KEY
from ..saving import files
from ..tile_scripts.selected import selected_of
from .chain_run import LAYER_KEY, ChainRun

INFOTEXT = "parameters"  # in a picture's `info`


@dataclass(frozen=True)
class Picture:
    """One picture of the result: its place in the job, and the frame that it is; empty for what is none."""

    image: Any
    text: str
    place: int
    frame: str = ""


class Results:
    """The results of all steps of a chain, to be put into that of the first."""

    def __init__(self, p: Any, chain: ChainRun):
        self.p, self.chain = p, chain
        self.layers: list[Picture] = []
        self.others: list[Picture] = []
        self.comments: list[str] = []
        self.error, self.notes = "", list[str]()
        self.extra_images: list[Any] = []

    @property
    def is_whole(self) -> bool:
        """Whether the step at hand made as many pictures as it should."""
        (frame,) = self.chain.step.makes
        return set(self.chain.layers.get(frame, {})) >= set(range(len(self.chain.pictures.seeds)))

    def add(self, processed: Any) -> None:
        """What a step's job gave out."""
        (frame,) = self.chain.step.makes
        places = {id(image): place for place, image in self.chain.layers.get(frame, {}).items()}
        count, most = 0, len(self.chain.pictures.seeds) - 1
        for number, image in enumerate(processed.images):
            text = infotext(processed, number)
            place = places.get(id(image))
            if place is not None:
                self.layers.append(Picture(image, text, place, frame))
                continue
            self.others.append(Picture(image, text, min(count, most)))
            count += 1
        self._hear(processed)

    def _hear(self, processed: Any) -> None:
        """Notes and comments, each once."""
        told = processed.extra_generation_params
        self.notes += [note for note in [told.get(NOTE_KEY)] if note and note not in self.notes]
        error = told.get(ERROR_KEY)
        lines = [line for line in (processed.comments or "").split("\n") if line]
        self.comments += [line for line in lines if line not in self.comments and not (error and error in line)]
        if not self.chain.is_first:
            self.extra_images += getattr(processed, "extra_images", None) or []

    def fail(self, why: str) -> str:
        """The step at hand could not be made."""
        self.error = f"{self.chain.title}: {why}"
        return why

    def end(self, why: str) -> None:
        """There will be no more steps."""
        missing = [frame for frame in self.chain.chain.makes if not self.chain.layers.get(frame)]
        made = [frame for frame in self.chain.chain.makes if frame not in missing] or ["nothing"]
        note = f"the set is not whole: {self.chain.title} is missing ({why}); made: {', '.join(made)}"
        self.comments.append(f"LayerDiffuse: {note}")
        if not self.error:
            self.notes.append(note)

    def deliver(self, processed: Any) -> None:
        """Put all into the first step's result."""
        order = {frame: number for number, frame in enumerate(FRAMES)}
        layers = sorted(self.layers, key=lambda picture: (picture.place, order[picture.frame]))
        pictures = [*layers, *self.others]
        self._name(processed, pictures)
        self._tell(processed, pictures)
        processed.index_of_first_image = 0
        grid = self._grid(layers)
        if grid is not None and option("return_grid", True):
            processed.images.insert(0, grid)
            processed.infotexts.insert(0, grid.info[INFOTEXT])
            processed.index_of_first_image = 1
        if selected_of(self.p) is None:  # a chosen script goes on with the pictures themselves
            files.for_api(self.p, processed)

    def _name(self, processed: Any, pictures: list[Picture]) -> None:
        processed.images[:] = [picture.image for picture in pictures]
        processed.infotexts[:] = [picture.text for picture in pictures]
        for name, values in self.chain.pictures.lists.items():
            if hasattr(processed, name):
                setattr(processed, name, [values[picture.place] for picture in pictures] or values)
        processed.seed = self.chain.pictures.seeds[0]
        processed.info = processed.infotexts[0] if pictures else processed.info
        if self.extra_images:
            processed.extra_images += self.extra_images

    def _tell(self, processed: Any, pictures: list[Picture]) -> None:
        told = processed.extra_generation_params
        told[LAYER_KEY] = [picture.frame for picture in pictures]
        if self.notes:
            told[NOTE_KEY] = "; ".join(self.notes)
        if self.error:
            told[ERROR_KEY] = self.error
        processed.comments = "".join(f"{line}\n" for line in self.comments)

    def _grid(self, layers: list[Picture]) -> Image.Image | None:
        """A set in each row, as the WebUI's settings want grids; None for none."""
        p, images = self.p, host_module("images")
        used = option("return_grid", True) or option("grid_save", True)
        alone = len(layers) < 2 and option("grid_only_if_multiple", True)
        if not layers or alone or not used or p.do_not_save_grid:
            return None
        sets = len({picture.place for picture in layers})
        grid = images.image_grid([picture.image for picture in layers], sets, rows=sets)
        first = layers[0]
        grid.info[INFOTEXT] = first.text
        if option("grid_save", True):
            names = {"info": first.text, "short_filename": not option("grid_extended_filename", False), "grid": True}
            kept = self.chain.pictures.lists
            of_name = (kept["all_seeds"][0], kept["all_prompts"][0], option("grid_format", "png"))
            images.save_image(grid, p.outpath_grids, "grid", *of_name, p=p, **names)
        return grid


def infotext(processed: Any, number: int) -> str:
    """The text of a picture in a result: a WebUI has none for masks, but says in most pictures what is theirs."""
    image = processed.images[number]
    own = getattr(image, "info", {}).get(INFOTEXT)
    if isinstance(own, str):
        return own
    return processed.infotexts[number] if number < len(processed.infotexts) else ""
