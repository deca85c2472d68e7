"""Samplers by the names people know, as diffusers schedulers built from a model's own noise schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..core.bases import BASES
from ..core.errors import InputError


@dataclass(frozen=True)
class Sampler:
    """A row: the scheduler's class in diffusers, what is set on it, and the name that infotexts carry.

    `flow` is the class for models that were trained by flow matching (Flux); empty where there is none.
    """

    scheduler: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)
    flow: str = ""


SAMPLERS = {
    "ddim": Sampler("DDIMScheduler", "DDIM", {"clip_sample": False, "set_alpha_to_one": False}),
    "euler": Sampler("EulerDiscreteScheduler", "Euler", flow="FlowMatchEulerDiscreteScheduler"),
    "euler-a": Sampler("EulerAncestralDiscreteScheduler", "Euler a"),
    "heun": Sampler("HeunDiscreteScheduler", "Heun"),
    "dpm++-2m": Sampler("DPMSolverMultistepScheduler", "DPM++ 2M"),
    "dpm++-2m-karras": Sampler("DPMSolverMultistepScheduler", "DPM++ 2M Karras", {"use_karras_sigmas": True}),
    "dpm++-2m-sde": Sampler("DPMSolverMultistepScheduler", "DPM++ 2M SDE", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": Sampler("UniPCMultistepScheduler", "UniPC"),
}
UNLIKE = ("euler", "ddim")  # one of them to try in place of another sampler


def samplers_for(base: str) -> tuple[str, ...]:
    """The samplers that suit a base."""
    return tuple(name for name, row in SAMPLERS.items() if row.flow or not BASES[base].is_flow_matching)


def other_sampler(base: str, chosen: str | None) -> str:
    """A sampler quite unlike the chosen one (None: the model's own); empty where the base has one alone."""
    known = samplers_for(base)
    return next((name for name in UNLIKE if name in known and name != chosen), "") if len(known) > 1 else ""


def build_scheduler(name: str, config: Any) -> Any:
    """A fresh scheduler of the sampler `name` with the noise schedule of `config`; InputError on an unknown name."""
    import diffusers

    if name not in SAMPLERS:
        raise InputError(f"sampler {name!r}", f"one of {', '.join(SAMPLERS)}", "choose one of these with --sampler")
    row = SAMPLERS[name]
    kind = row.flow if config.get("_class_name", "").startswith("FlowMatch") else row.scheduler
    return getattr(diffusers, kind).from_config(config, **row.options)


def sampler_label(scheduler: Any, name: str | None) -> str:
    """What an infotext calls the sampler: the chosen one, else the row of the scheduler's class."""
    if name is not None:
        return SAMPLERS[name].label
    kind = type(scheduler).__name__
    known = {scheduler: row.label for row in SAMPLERS.values() for scheduler in (row.flow, row.scheduler)}
    return known.get(kind, kind.removesuffix("Scheduler"))
