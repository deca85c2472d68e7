"""All model work behind the page: one loaded pipeline, what it knows, and runs that report and can be stopped."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lib_layerdiffuse import api
from lib_layerdiffuse.hosts.run_plan import GUIDANCE
from lib_layerdiffuse.hosts.vocabulary import unknown_word_hints
from lib_layerdiffuse.pictures import Picture, Pictures
from lib_layerdiffuse.settings import GenerateSettings, ModelSettings

TURN_SECONDS = 0.2
SEE_ALL = "the list below has them all"


@dataclass(frozen=True)
class Progress:
    """How far a run is: fraction in [0,1] and a short text."""

    fraction: float
    text: str


Report = Progress | Picture | Pictures


@dataclass(frozen=True)
class Defaults:
    """What stands in the form at first; size in pixels of a side."""

    steps: int = 20
    guidance: float = 7.0
    size: int = 512


class PageModel:
    """A loaded model for the page; runs of all visitors go one after the other."""

    def __init__(self, pipeline: Any, words: dict[str, list[str]]):
        self.pipeline = pipeline
        self.words = words
        self._turn = threading.Lock()

    @classmethod
    def load(cls, settings: ModelSettings) -> PageModel:
        """Loads the model that the settings name; its errors are the library's typed ones."""
        pipeline = api.load(settings)
        shipped = settings.checkpoint is None
        captions = list(getattr(pipeline, "captions", ()))
        return cls(pipeline, api.words(settings) if shipped else {"Words": captions} if captions else {})

    @property
    def base(self) -> str:
        """The loaded base model, as the method table calls it."""
        return self.pipeline.base

    @property
    def defaults(self) -> Defaults:
        """Ordinary settings that suit the loaded model."""
        pipeline = self.pipeline.pipeline
        size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        return Defaults(guidance=GUIDANCE[self.base], size=size)

    @property
    def captions(self) -> list[str]:
        """Everything the demo model was trained on, each once; empty for other models."""
        return list(dict.fromkeys(caption for captions in self.words.values() for caption in captions))

    def hints(self, prompt: str) -> list[str]:
        """Hints for words of a prompt that the demo model does not know."""
        return unknown_word_hints([prompt], self.captions, SEE_ALL) if self.captions else []

    def run(self, settings: GenerateSettings, stop: threading.Event) -> Iterator[Report]:
        """Progress, every picture that is done and, last, all of them; raises what the run raised.

        The run works in a thread of its own so that the page stays alive; leaving the iteration stops it.
        """
        reports: queue.Queue[Report | BaseException] = queue.Queue()
        worker = threading.Thread(target=self._work, args=(settings, stop, reports), daemon=True)
        worker.start()
        try:
            yield from drained(reports)
        except GeneratorExit:
            stop.set()
            raise

    def _work(self, settings: GenerateSettings, stop: threading.Event, reports: queue.Queue[Any]) -> None:
        def progress(fraction: float, text: str) -> None:
            reports.put(Progress(fraction, text))

        try:
            if not self._wait_for_turn(stop):
                reports.put(Pictures(notes=["stopped before it was its turn"], stopped=True))
                return
            try:
                pictures = api.generate(
                    settings,
                    pipeline=self.pipeline,
                    progress=progress,
                    should_stop=stop.is_set,
                    on_picture=reports.put,
                )
            finally:
                self._turn.release()
            reports.put(pictures)
        except BaseException as error:  # noqa: BLE001 handed to the page's thread, which raises it again
            reports.put(error)

    def _wait_for_turn(self, stop: threading.Event) -> bool:
        """Takes the model when no other visitor uses it; False when stopped while waiting."""
        while not self._turn.acquire(timeout=TURN_SECONDS):
            if stop.is_set():
                return False
        return True


def drained(reports: queue.Queue[Report | BaseException]) -> Iterator[Report]:
    """Reports as they come, only the latest progress of each moment, until the pictures or an error have come."""
    while True:
        report = reports.get()
        while isinstance(report, Progress) and not reports.empty():
            report = reports.get()
        if isinstance(report, BaseException):
            raise report
        yield report
        if isinstance(report, Pictures):
            return
