"""What a job did, as far as its host knows it: what the table of causes looks at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .words import DISTILLED, FAR_TUNED, named_networks, named_place, names_soft_things, words_of

SHORT = 5  # letters of a word that others may begin with by chance
ANY_TAG = re.compile(r"<\w+:[^>]+>")
USUAL_GUIDANCE = {"demo": 2.0, "sd15": 7.0, "sdxl": 7.0, "flux": 3.5}


@dataclass(frozen=True)
class Facts:
    """One job; what its host does not know is left at its default.

    `prediction` is "epsilon", "v_prediction" or another name; `drift` is |checkpoint - base| / |base| of the network's
    weights; `start_alpha` the share of the start picture that is opaque, in [0,1]; files are those chosen by the user;
    `other_sampler` is one that the host could take instead, where the base has several. `layers` are the words that
    layers have of their own beside the prompt, by frame.
    """

    base: str
    prompt: str = ""
    weight: float = 1.0
    stop_at: float = 1.0
    guidance: float | None = None
    steps: int | None = None
    sampler: str = ""
    other_sampler: str = ""
    prediction: str = ""
    checkpoint: str = ""
    drift: float | None = None
    method_file: str = ""
    decoder_file: str = ""
    encoder_file: str = ""
    start_alpha: float | None = None
    denoise: float = 1.0
    layers: Mapping[str, str] = field(default_factory=dict)

    @property
    def loras(self) -> str:
        """LoRAs and hypernetworks that the prompt and layers' own words load, in their order, with commas."""
        return ", ".join(named_networks(" ".join((self.prompt, *self.layers.values()))))

    @property
    def is_alone(self) -> bool:
        """Whether there are no words but the prompt's."""
        return not any(text.strip() for text in self.layers.values())

    @property
    def text(self) -> str:
        """The prompt without tags."""
        return ANY_TAG.sub(" ", self.prompt)

    @property
    def place(self) -> str:
        """A word of the prompt that asks for a scene; empty where none does."""
        return named_place(self.text)

    @property
    def is_soft(self) -> bool:
        """Whether the prompt asks for what is half transparent all over, such as fog."""
        return names_soft_things(self.text)

    @property
    def usual_guidance(self) -> float:
        """The guidance that pictures of this base usually have."""
        return USUAL_GUIDANCE.get(self.base, 7.0)

    @property
    def distilled(self) -> str:
        """What says that the checkpoint or a LoRA is made for few steps; empty where nothing does."""
        return first_of(DISTILLED, f"{self.checkpoint} {self.loras} {self.sampler}")

    @property
    def far_tuned(self) -> str:
        """The family of community checkpoints that the name tells; empty where none is known."""
        return first_of(FAR_TUNED, self.checkpoint)


def first_of(known: frozenset[str], text: str) -> str:
    """The first word of a text that is known, or begins with a long one that is; empty where none is."""
    long = tuple(word for word in known if len(word) > SHORT)  # "hyper" says nothing of "hyperrealism"
    return next((word for word in words_of(text) if word in known or word.startswith(long)), "")
