"""A chain at work: what its steps made so far, and what is the same in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from ...core.errors import BaseMismatchError, InputError
from ...core.methods import Method
from ...form.arguments import BY_NAME, INFOTEXT_PREFIX, LayerArguments, to_infotext
from ...form.frames import FRAMES
from ...sets.chains import Chain, Step, check_given, counted, find_chain
from ..jobs.telling import SEED_KEY, per_picture

LAYER_KEY = f"{INFOTEXT_PREFIX}layer"  # in the text of each picture: which frame it is


@dataclass(eq=False)
class Pictures:
    """What is the same for the pictures of all steps, by their place in a job."""

    lists: dict[str, list[Any]] = field(default_factory=dict)  # the WebUI's lists of prompts and seeds, by name
    batches: int = 1
    batch_size: int = 1
    extras: list[dict[str, str]] = field(default_factory=list)  # prompts of layers, as they are used
    heads: dict[str, list[str]] = field(default_factory=dict)  # what stands before them
    texts: dict[str, Any] = field(default_factory=dict)  # what infotexts tell of the chain

    @property
    def seeds(self) -> list[int]:
        """The seeds of the sets."""
        return self.lists["all_seeds"]


@dataclass(eq=False)
class ChainRun:
    """One use of a chain; `arguments` are as they were sent, `number` is that of the step at hand."""

    chain: Chain
    arguments: LayerArguments
    number: int = 0
    layers: dict[str, dict[int, Image.Image]] = field(default_factory=dict)  # as they went out, by frame and place
    pictures: Pictures = field(default_factory=Pictures)
    checkpoint: str = ""

    @property
    def step(self) -> Step:
        """The step at hand."""
        return self.chain.steps[self.number]

    @property
    def method(self) -> Method:
        """The method of the step at hand."""
        return self.step.method_row()

    @property
    def is_first(self) -> bool:
        """Whether nothing was made before this step."""
        return self.number == 0

    @property
    def title(self) -> str:
        """The step at hand, as a message names it."""
        return f"step {self.number + 1} of {len(self.chain.steps)} ({', '.join(self.step.makes)})"

    # --- what a step is given

    def arguments_of_step(self) -> LayerArguments:
        """The arguments of the step at hand as a job of its own."""
        made = {FRAMES[frame].image: self.layers[frame][0] for frame in self._made_before()}
        return replace(self.arguments, method=self.method.id, **made)

    def _made_before(self) -> list[str]:
        return [given.frame for given in self.step.given if given.step is not None]

    def seen(self, frame: str, places: Sequence[int]) -> list[Image.Image] | None:
        """The pictures of a frame that the step sees at these places; None where the user gave one for all."""
        return [self.layers[frame][place] for place in places] if frame in self._made_before() else None

    def take(self, frame: str, place: int, picture: Image.Image) -> None:
        """A picture of the step at hand, as it goes out."""
        self.layers.setdefault(frame, {})[place] = picture

    # --- checks

    def check_base(self, base: str) -> None:
        """BaseMismatchError unless the chain is made for this base."""
        find_chain(base, self.chain.id)

    def check_arguments(self) -> None:
        """InputError for what no chain can do."""
        check_given(self.chain, [name for name, frame in FRAMES.items() if getattr(self.arguments, frame.image)])
        if self.arguments.method_file:
            raise InputError(
                f"the method file {self.arguments.method_file!r} for the {len(self.chain.steps)} methods of a chain",
                "none",
                "choose Automatic, or the single steps one after the other",
            )

    def check_checkpoint(self, name: str) -> None:
        """BaseMismatchError where another checkpoint was loaded since the first step."""
        self.checkpoint = self.checkpoint or name
        if name == self.checkpoint:
            return
        made = ", ".join(frame for frame in self.chain.makes if self.layers.get(frame)) or "nothing yet"
        raise BaseMismatchError(
            f"the checkpoint {name}, chosen while the set was being made (by {self.checkpoint}: {made})",
            f"{self.checkpoint} for all {len(self.chain.steps)} steps of the set",
            f"choose {self.checkpoint} again and generate anew, and choose another when all layers are there; "
            "what is made stays",
        )

    # --- what infotexts tell

    def infotext(self, of_step: LayerArguments) -> dict[str, Any]:
        """Generation parameters of the whole chain; `of_step` has the names of files as they are told."""
        files = {"decoder_file": of_step.decoder_file, "encoder_file": of_step.encoder_file}
        return to_infotext(replace(self.arguments, **files))

    def seeds_of(self, frame: str) -> list[int] | None:
        """A layer's own seeds, which count as those of the sets do; None where they are the same."""
        first = getattr(self.arguments, FRAMES[frame].seed)
        if first < 0:
            return None
        seeds = self.pictures.seeds
        return [counted(first, seed - seeds[0]) for seed in seeds]

    def tell_seeds(self) -> dict[str, Any]:
        """Generation parameters with the seeds of layers that have their own, for each picture."""
        own = {frame: self.seeds_of(frame) for frame in self.chain.makes}
        return {BY_NAME[FRAMES[frame].seed].infotext_key: per_picture(seeds) for frame, seeds in own.items() if seeds}

    def tell_step(self) -> dict[str, Any]:
        """Generation parameters of the step at hand: all steps tell the sets' seeds, whichever they use."""
        (frame,) = self.step.makes
        seeds = {SEED_KEY: per_picture(self.pictures.seeds)} if self.seeds_of(frame) else {}
        return {**self.pictures.texts, LAYER_KEY: frame, **seeds}


def chain_run(arguments: LayerArguments) -> ChainRun | None:
    """The chain that arguments ask for; None for a method."""
    way = arguments.method_row
    return ChainRun(way, arguments) if isinstance(way, Chain) else None
