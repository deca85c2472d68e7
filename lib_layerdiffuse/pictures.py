"""Results of a run: pictures with their seed, frame and settings as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Picture:
    """One image: RGBA (straight alpha) where the method gives transparency, else RGB.

    `group` numbers the results of a prompt, `frame` names the layer ("" where a result is one picture);
    `parameters` is the text that a WebUI writes into PNG files.
    """

    image: Image.Image
    prompt: str
    seed: int
    group: int = 0
    frame: str = ""
    parameters: str = ""

    @property
    def transparent(self) -> bool:
        """Whether the image has an alpha channel."""
        return self.image.mode == "RGBA"


@dataclass
class Pictures:
    """A list of pictures in order of prompt, group and frame, with notes for the user; `stopped` when cut short."""

    items: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stopped: bool = False

    def __iter__(self):
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


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
