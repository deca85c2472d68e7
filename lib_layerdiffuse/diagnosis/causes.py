"""What is known to break alpha, as rows: each looks at the facts of a job, says what it saw, and what to try."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..core.picture.verdicts import HAZE, OPAQUE
from .facts import Facts

LEAST_WEIGHT, LEAST_STOP, FEW_STEPS = 0.9, 0.95, 8
HIGH_GUIDANCE = 1.6  # times the usual one
FAR = 0.01  # drift: four tunings of the demo model kept their alpha at 0.004, three lost it at 0.025; 16 bits: < 0.002
OF_NOISE = ("sd15", "sdxl")  # bases that predict noise, for which the published files were made
ENGLISH: Mapping[str, str] = {}
SAID = "{seen}: {remedy}"
ANY = ("opaque", "empty", "haze")


@dataclass(frozen=True)
class Cause:
    """A row: for which verdicts, when it holds, what was seen and what to try, templates of `facts`."""

    id: str
    holds: Callable[[Facts], bool]
    seen: str
    remedy: str
    verdicts: tuple[str, ...] = ANY

    def text(self, facts: Facts, texts: Mapping[str, str] = ENGLISH) -> str:
        """What was seen in this job, and what to try; `texts` has translations of the templates."""
        said, seen, remedy = (texts.get(template, template) for template in (SAID, self.seen, self.remedy))
        return said.format(seen=seen, remedy=remedy).format(facts=facts)


CAUSES = (
    Cause(
        "weight",
        lambda facts: facts.weight < LEAST_WEIGHT,
        "Weight is {facts.weight:g}",
        "set it to 1, for the method does little below that",
    ),
    Cause(
        "stop_at",
        lambda facts: facts.stop_at < LEAST_STOP,
        "Stop At is {facts.stop_at:g}",
        "set it to 1, for the last steps are the ordinary model's",
    ),
    Cause(
        "start_picture",
        lambda facts: facts.start_alpha is not None and facts.start_alpha >= 0.99 and facts.denoise < 1,
        "the start picture has no transparency of its own",
        "give one that has, or raise Denoising strength",
        verdicts=(OPAQUE.name, HAZE.name),
    ),
    Cause(
        "prediction",
        lambda facts: facts.prediction.startswith("v") and facts.base in OF_NOISE,
        "the checkpoint predicts v, and the layer files were made for models that predict noise",
        "load one that predicts noise (epsilon)",
    ),
    Cause(
        "decoder_file",
        lambda facts: bool(facts.decoder_file),
        "the decoder file {facts.decoder_file!r} was chosen",
        "choose Automatic, for a decoder reads only what its own method wrote",
    ),
    Cause(
        "method_file",
        lambda facts: bool(facts.method_file),
        "the method file {facts.method_file!r} was chosen",
        "choose Automatic",
    ),
    Cause(
        "loras",
        lambda facts: bool(facts.loras),
        "the prompt loads {facts.loras}",
        "try without, or at a lower strength",
    ),
    Cause(
        "guidance",
        lambda facts: facts.guidance is not None and facts.guidance > HIGH_GUIDANCE * facts.usual_guidance,
        "CFG is {facts.guidance:g}",
        "try {facts.usual_guidance:g}",
    ),
    Cause(
        "distilled",
        lambda facts: bool(facts.distilled),
        'the name tells "{facts.distilled}", a model for few steps',
        "try one that is not distilled, with 20 steps or more",
    ),
    Cause(
        "few_steps",
        lambda facts: facts.steps is not None and facts.steps < FEW_STEPS and not facts.distilled,
        "the number of steps is {facts.steps}",
        "try 20 or more",
    ),
    Cause(
        "drift",
        lambda facts: facts.drift is not None and facts.drift > FAR,
        "the checkpoint's weights are {facts.drift:.0%} away from its base's",
        "try the base itself, or a checkpoint that is nearer to it",
    ),
    Cause(
        "far_tuned",
        lambda facts: facts.drift is None and bool(facts.far_tuned),
        'the name tells "{facts.far_tuned}", a checkpoint tuned far away from its base',
        "try the base itself, or a checkpoint that is nearer to it",
    ),
    Cause(
        "place",
        lambda facts: bool(facts.place),
        'the prompt asks for a scene ("{facts.place}")',
        "leave it out, or ask for a plain grey background",
        verdicts=(OPAQUE.name, HAZE.name),
    ),
)


def causes_of(facts: Facts, verdict: str) -> list[Cause]:
    """The rows that hold for a job whose pictures came out as the verdict's name says, likeliest first."""
    return [cause for cause in CAUSES if verdict in cause.verdicts and cause.holds(facts)]
