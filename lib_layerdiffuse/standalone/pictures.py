"""Results of a run: pictures with their seed, frame and settings as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

from ..core.methods import BACKGROUND, FOREGROUND
from ..form.frames import FRAMES
from ..form.ranges import Range, checked_path
from ..sets.save_options import DEFAULT, SaveOptions

if TYPE_CHECKING:
    from PIL import Image

    from ..diagnosis.diagnosis import Diagnosis
    from ..sets.formats import Saved
    from ..sets.layer_set import LayerSet

VISIBLE = 16  # of 255: alpha below it is haze that nobody sees
MARGIN = Range(0, 16_384, whole=True)


@dataclass(frozen=True)
class Picture:
    """One image: RGBA (straight alpha) where the method gives transparency, else RGB.

    `seed` makes it again, with all its set; `layer_seed` is that of this layer alone, where one was chosen. `group`
    numbers the results of a prompt, `set_number` those of all prompts, `frame` names the layer ("" where a result is
    one picture), `layer_prompt` is what it was painted from; `parameters` is the text that a WebUI writes into files.
    """

    image: Image.Image
    prompt: str
    seed: int
    group: int = 0
    frame: str = ""
    parameters: str = ""
    set_number: int = 0
    layer_prompt: str = ""
    layer_seed: int | None = None

    @property
    def caption(self) -> str:
        """Its layer and what stands in the fields of seeds, to be read beneath it."""
        own = None if self.layer_seed is None else f"own seed {self.layer_seed}"
        return ", ".join(filter(None, (self.frame, f"seed {self.seed}", own)))

    @property
    def transparent(self) -> bool:
        """Whether the image has an alpha channel."""
        return self.image.mode == "RGBA"

    @property
    def place(self) -> tuple[int, int]:
        """The number of its set, and of its layer there, by which pictures are ordered."""
        return self.set_number, [*FRAMES, ""].index(self.frame)

    def save(self, path: str | Path) -> Path:
        """Write the picture with its seed and settings; returns the path.

        A name ending in .png or .webp (lossless) is written as named, over an older file. A path without an ending is
        a folder: the file in it is named after prompt and seed, and nothing is overwritten.
        """
        from .picture_files import file_stem, write_picture

        target = Path(checked_path("path", path, optional=False))
        return write_picture(target, self.image, self.parameters, file_stem(self.prompt, self.seed, self.frame))

    def box(self, threshold: int = VISIBLE) -> tuple[int, int, int, int] | None:
        """Left, top, right and bottom of all pixels with alpha >= `threshold` of 255; None where there is none."""
        from ..core.picture.alpha import trim_box

        return trim_box(self.image, threshold)

    def trimmed(self, threshold: int = VISIBLE, margin: int = 0) -> Picture:
        """The picture cut to its `box` and `margin` pixels more, where it has them; whole where the box is empty."""
        from ..core.picture.alpha import trimmed

        return replace(self, image=trimmed(self.image, threshold, int(MARGIN.checked("margin", margin))))

    def cleaned(self) -> Picture:
        """The picture without haze: alpha of 1 and 2 of 255 becomes 0, 253 and 254 become 255, gradients excepted."""
        if not self.transparent:
            return self
        from ..core.picture.alpha import from_tensor, to_tensor
        from ..core.picture.alpha_care import clear_haze

        return replace(self, image=from_tensor(clear_haze(to_tensor(self.image)))[0])


@dataclass
class Pictures:
    """A list of pictures in order of prompt, group and frame, with notes for the user; `stopped` when cut short.

    `given` are the user's layers by frame, RGBA at the size of the pictures; `diagnosis` says why pictures have no
    alpha worth the name, where some have none.
    """

    items: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stopped: bool = False
    given: dict[str, Image.Image] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None

    def __iter__(self) -> Iterator[Picture]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        return self.items[index]

    @property
    def made(self) -> dict[str, list[Image.Image]]:
        """The images of each layer, in the order in which they were made."""
        frames = dict.fromkeys(picture.frame for picture in self)
        return {frame: [picture.image for picture in self if picture.frame == frame] for frame in frames}

    def sort(self) -> None:
        """Put the layers of each set beside each other, in the order of the form."""
        self.items.sort(key=lambda picture: picture.place)

    @property
    def set_numbers(self) -> list[int]:
        """The numbers of the sets that something was painted of."""
        return list(dict.fromkeys(picture.set_number for picture in self))

    def layer_sets(self) -> list[LayerSet]:
        """What was painted and given as layers, a set for each result; one that was cut short has fewer layers."""
        from ..sets.layer_set import set_of_frames

        groups = [{layer_of(p): p for p in self if p.set_number == number} for number in self.set_numbers]
        return [
            set_of_frames(
                {**self.given, **{frame: picture.image for frame, picture in group.items()}},
                {frame: picture.layer_prompt for frame, picture in group.items()},
                {frame: seed_of_layer(picture) for frame, picture in group.items()},
            )
            for group in groups
        ]

    def save_layers(self, folder: str | Path, kind: str = DEFAULT, options: SaveOptions | None = None) -> list[Saved]:
        """Write each set as a layered file into a folder; what is there already is left alone."""
        from ..sets.formats import save_set
        from .picture_files import file_stem

        target = checked_path("folder", folder, optional=False)
        firsts = {picture.set_number: picture for picture in reversed(self.items)}
        stems = [file_stem(firsts[number].prompt, firsts[number].seed, "") for number in self.set_numbers]
        return [
            save_set(made, target, stem, kind, options) for made, stem in zip(self.layer_sets(), stems, strict=True)
        ]


def seed_of_layer(picture: Picture) -> int:
    """The seed that belongs into the field of a picture's layer, or of all."""
    return picture.seed if picture.layer_seed is None else picture.layer_seed


def layer_of(picture: Picture) -> str:
    """The layer that a picture is: one without a name is a foreground where it has alpha, else a background."""
    return picture.frame or (FOREGROUND if picture.transparent else BACKGROUND)


@dataclass(frozen=True)
class Watchers:
    """Who is told about a run: progress in [0,1] with a text, a question whether to stop, every finished picture."""

    progress: Callable[[float, str], None] | None = None
    should_stop: Callable[[], bool] | None = None
    on_picture: Callable[[Picture], object] | None = None

    def report(self, fraction: float, text: str) -> None:
        """Tell how far the run is."""
        if self.progress is not None:
            self.progress(min(1.0, fraction), text)

    def stopping(self) -> bool:
        """Whether somebody wants the run to end."""
        return self.should_stop is not None and self.should_stop()

    def deliver(self, picture: Picture) -> None:
        """Hand over a finished picture."""
        if self.on_picture is not None:
            self.on_picture(picture)
