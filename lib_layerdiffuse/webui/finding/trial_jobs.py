"""Jobs that are run to find out: their `p` made from a recipe, what tells them from others, and what they leave."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

from ...core.bases import BASES
from ...core.errors import BaseMismatchError
from ...diagnosis.diagnosis import Case
from ...diagnosis.facts import Facts
from ...diagnosis.trials import PICTURES, STEPS, ShortRun
from ...form.arguments import LayerArguments
from ...form.frames import FRAMES
from ..host.modules import option

ATTRIBUTE = "layerdiffuse_trial"
SAVE_START = "save_init_img"  # a setting by which WebUIs save start pictures, whatever a job says of saving
OF_RESULTS = ("sampler", "c", "uc", "hr_c", "hr_uc", "rng", "init_latent", "image_conditioning")
OWN_LISTS = ("extra_result_images", "latents_after_sampling", "pixels_after_sampling")  # of the Forge family
IN_ARGUMENTS = {"weight": "weight", "stop_at": "ending_step"}
IN_ARGUMENTS |= {name: name for name in ("method_file", "decoder_file", "encoder_file")}
IN_P = {"steps": "steps", "sampler": "sampler_name", "denoise": "denoising_strength"}


@dataclass(eq=False)
class TrialJob:
    """What one of these jobs is given instead of a page's values, and the alpha of what it made."""

    arguments: LayerArguments
    checkpoint: str
    cases: list[Case] = field(default_factory=list)

    def check_checkpoint(self, name: str) -> None:
        """BaseMismatchError where another checkpoint is loaded than made the pictures in question."""
        if name != self.checkpoint:
            raise BaseMismatchError(
                f"the checkpoint {name}",
                f"{self.checkpoint}, which made the pictures in question",
                "load it again, or generate anew and ask then",
            )


@dataclass(frozen=True)
class Recipe:
    """A job, to be run again: its `p` before anything was done to it, its arguments, what is known of it."""

    p: Any
    arguments: LayerArguments
    facts: Facts


def trial_of(p: Any) -> TrialJob | None:
    """What a job is to find out; None for an ordinary one."""
    return getattr(p, ATTRIBUTE, None)


def asked_for(p: Any) -> Any:
    """A copy of a job's `p` as it was asked for, with nothing that an earlier job of the same `p` made."""
    kept = copy.copy(p)
    for name in (*OF_RESULTS, *OWN_LISTS):
        if name in vars(kept):
            setattr(kept, name, [] if name in OWN_LISTS else None)
    if getattr(kept, "init_images", None):
        kept.init_images = list(kept.init_images)
    return kept


def guidance_name(base: str) -> str:
    """What a `p` calls the guidance of a base."""
    return "distilled_cfg_scale" if BASES[base].is_flow_matching else "cfg_scale"


def trial_p(recipe: Recipe, short: ShortRun) -> tuple[Any, TrialJob]:
    """The `p` of a short run, and the part of it that is ours."""
    p, asked = asked_for(recipe.p), recipe.p
    p.extra_generation_params, p.comments = dict(asked.extra_generation_params), {}
    p.override_settings = dict(getattr(asked, "override_settings", None) or {})
    if option(SAVE_START, False):
        p.override_settings[SAVE_START] = False
    p.override_settings_restore_afterwards = True
    p.do_not_save_samples = p.do_not_save_grid = True
    p.enable_hr = p.restore_faces = False
    p._ad_disabled = True  # ADetailer works on the opaque picture, and saves some of its own
    p.n_iter, p.batch_size, p.steps = 1, min(asked.batch_size, PICTURES), min(asked.steps, STEPS)
    p.prompt = short.prompt(asked.prompt, recipe.facts.is_alone)
    names = IN_P | {"guidance": guidance_name(recipe.facts.base)}
    for name in short.changes.keys() & names.keys():
        setattr(p, names[name], short.changes[name])
    changes = {IN_ARGUMENTS[name]: short.changes[name] for name in short.changes.keys() & IN_ARGUMENTS.keys()}
    changes |= {FRAMES[frame].prompt: text for frame, text in short.layers(recipe.facts.layers).items()}
    trial = TrialJob(replace(recipe.arguments, **changes), recipe.facts.checkpoint)
    setattr(p, ATTRIBUTE, trial)
    return p, trial
