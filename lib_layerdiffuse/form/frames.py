"""The frames of results as rows: what each is called, and which arguments and settings are about it."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.methods import BACKGROUND, BLENDED, FOREGROUND


@dataclass(frozen=True)
class Frame:
    """A frame; its name is that of the method table, of its files, and of the setting that gives its picture."""

    name: str
    image: str  # the argument that gives its picture
    prompt: str  # the argument that gives a prompt of its own
    seed: str  # the argument that gives a seed of its own

    @property
    def title(self) -> str:
        """What a page calls it."""
        return self.name.capitalize()

    @property
    def prompt_setting(self) -> str:
        """The setting that gives a prompt of its own."""
        return f"{self.name}_prompt"

    @property
    def seed_setting(self) -> str:
        """The setting that gives a seed of its own."""
        return f"{self.name}_seed"


FRAMES = {
    frame.name: frame
    for frame in (
        Frame(FOREGROUND, "fg_image", "fg_additional_prompt", "fg_seed"),
        Frame(BACKGROUND, "bg_image", "bg_additional_prompt", "bg_seed"),
        Frame(BLENDED, "blend_image", "blend_additional_prompt", "blend_seed"),
    )
}
FRAME_OF_IMAGE = {frame.image: frame for frame in FRAMES.values()}
# Names that the arguments of frames have among the settings of a run.
IMAGE_SETTINGS = {frame.image: frame.name for frame in FRAMES.values()}
PROMPT_SETTINGS = {frame.prompt: frame.prompt_setting for frame in FRAMES.values()}
SEED_SETTINGS = {frame.seed: frame.seed_setting for frame in FRAMES.values()}
