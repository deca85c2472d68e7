"""What has come of a job so far: layers of the batch at hand, and what went out of all batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ...diagnosis.diagnosis import Case
from .pictures import Layer

Named = tuple[str, Image.Image]  # a frame and its picture


@dataclass
class Outcome:
    """Pictures of one job; none of them outlives it here."""

    layers: list[Layer] = field(default_factory=list)  # of the batch at hand
    edited: Any = None  # the WebUI's object for the picture at hand, which scripts edit
    overlay: Any = None  # the WebUI's object with the mask of the picture at hand, which scripts edit
    results: list[Named] = field(default_factory=list)  # frames and layers as they went out, of all batches
    cut_outs: list[Named | None] = field(default_factory=list)  # what of them lies in the mask, where that goes out too
    remade: dict[int, tuple[Image.Image, Image.Image]] = field(default_factory=dict)  # by id, with its layer
    origins: list[tuple[int, Image.Image]] = field(default_factory=list)  # opaque pictures, with their place in the job
    cases: list[Case] = field(default_factory=list)  # the alpha of what went out
    is_over: bool = False  # scripts work on the finished pictures

    def begin_batch(self, layers: list[Layer]) -> None:
        """The layers of the batch at hand; none where it could not be decoded."""
        self.layers = layers

    def begin_picture(self, edited: Any) -> None:
        """Scripts go on editing this object of the WebUI: what it holds in the end tells what they did."""
        self.edited = edited

    def take_overlay(self, overlay: Any) -> None:
        """The mask of this very picture, which scripts may still change."""
        self.overlay = overlay

    def layer_at(self, place: int) -> Layer | None:
        """The layer at a place in the batch; None where there is none."""
        return self.layers[place] if place < len(self.layers) else None

    def add(self, result: Named, inside_mask: Named | None) -> None:
        """A picture as it goes out, and what of it lies in the mask."""
        self.results.append(result)
        self.cut_outs.append(inside_mask)

    def add_origin(self, place: int, opaque: Image.Image) -> None:
        """An opaque picture that is wanted too, with its place in the job."""
        self.origins.append((place, opaque))

    def remake(self, image: Image.Image, layer: Image.Image) -> None:
        """The layer in place of a picture that a script saved after the job."""
        self.remade[id(image)] = image, layer

    def end(self) -> None:
        """Whatever is saved now is made by scripts from finished pictures."""
        self.is_over = True

    def deliver(self) -> list[tuple[int, Image.Image]]:
        """What is saved from here on is our own: the opaque pictures that were wanted too."""
        self.is_over = False
        return self.origins
