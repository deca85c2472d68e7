"""All model work behind the page: one loaded pipeline, what it knows, and runs that go one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import api
from ..core.modes import MODES
from ..diagnosis.facts import USUAL_GUIDANCE
from ..files.demo_folder import CONTROLNET
from ..standalone.pictures import Pictures, Watchers
from ..standalone.run_plan import own_size
from ..standalone.settings import GenerateSettings, ModelSettings
from ..standalone.vocabulary import SCENES, Scene, read_scenes, read_things, unknown_word_hints
from .turns import Turns

SEE_ALL = "the list below has them all"
EXAMPLES, EXAMPLE_SCENES = 12, 6


@dataclass(frozen=True)
class Defaults:
    """What stands in the form at first; size in pixels of a side."""

    steps: int = 20
    guidance: float = 7.0
    size: int = 512


class PageModel:
    """A loaded model for the page; runs of all visitors go one after the other."""

    def __init__(self, pipeline: Any, words: dict[str, list[str]], things: int = 0, scenes: Sequence[Scene] = ()):
        self.pipeline = pipeline
        self.words = words  # names of things and scenes, by group
        self.things = things  # a thing may have several names
        self.scenes = scenes
        self.controlnet: Path | None = None  # by which visitors may let a picture be followed
        self.turns = Turns()

    @classmethod
    def load(cls, settings: ModelSettings, controlnet: str | Path | None = None) -> PageModel:
        """Loads the model that the settings name, and a ControlNet; errors are the library's typed ones."""
        model = cls._load(settings)
        model.controlnet = model.checked_controlnet(controlnet)
        return model

    @classmethod
    def _load(cls, settings: ModelSettings) -> PageModel:
        pipeline = api.load(settings)
        if settings.checkpoint is None:
            things = sum(map(len, read_things(settings.demo).values()))
            return cls(pipeline, api.words(settings), things, read_scenes(settings.demo))
        captions: list[str] = list(getattr(pipeline, "captions", ()))
        words = {"Words": captions} if captions else {}
        return cls(pipeline, words, len(captions))

    def checked_controlnet(self, path: str | Path | None) -> Path | None:
        """A ControlNet's file that fits the model: the one named, or the demo model's own where it has one."""
        if path is None:
            return self.pipeline.files.present(CONTROLNET) if self.base == "demo" else None
        self.pipeline.controlnet_of(path)
        return Path(path)

    @property
    def base(self) -> str:
        """The loaded base model, as the method table calls it."""
        return self.pipeline.base

    @property
    def defaults(self) -> Defaults:
        """Ordinary settings that suit the loaded model."""
        return Defaults(guidance=USUAL_GUIDANCE[self.base], size=own_size(self.base, self.pipeline.pipeline))

    @property
    def captions(self) -> list[str]:
        """Everything the demo model was trained on, each once; empty for other models."""
        return list(dict.fromkeys(caption for captions in self.words.values() for caption in captions))

    @property
    def examples(self) -> dict[str, list[str]]:
        """A few prompts to click, by what they show: things, things in scenes, and scenes alone."""
        things = [name for group, names in self.words.items() if group != SCENES for name in names]
        phrases = [scene.phrases[0] for scene in self.scenes if scene.phrases]
        chosen, phrases = spread(things, EXAMPLES), spread(phrases, EXAMPLE_SCENES)
        inside = [f"{thing} {phrase}" for thing, phrase in zip(chosen[::-2], phrases, strict=False)]
        alone = spread([scene.captions[0] for scene in self.scenes if scene.captions], EXAMPLE_SCENES)
        shown = {"things": chosen, f"things in scenes, mode {MODES['joint'].title}": inside, "scenes": alone}
        return {title: names for title, names in shown.items() if names}

    def hints(self, prompt: str) -> list[str]:
        """Hints for words of a prompt that the demo model does not know."""
        return unknown_word_hints([prompt], self.captions, SEE_ALL) if self.captions else []

    def paint(self, settings: GenerateSettings, watchers: Watchers) -> Pictures:
        """Pictures of a run, when it is its turn; raises what the run raised."""
        with self.turns.taken(watchers) as its_turn:
            if not its_turn:
                return Pictures(notes=["stopped before it was its turn"], stopped=True)
            pictures = api.generate(
                settings,
                pipeline=self.pipeline,
                progress=watchers.progress,
                should_stop=watchers.should_stop,
                on_picture=watchers.on_picture,
            )
        told = self.pipeline.hints(settings.prompts)  # they stand under the prompt already
        pictures.notes = [note for note in pictures.notes if note not in told]
        return pictures


def spread(names: Sequence[str], count: int) -> list[str]:
    """At most so many names, from all over the list."""
    return list(names[:: max(1, len(names) // count)][:count])
