"""The diagnosis of a job: its facts, and one comment under its pictures where their alpha failed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image

from ...core.bases import BASES
from ...core.methods import FOREGROUND, own_prompt
from ...core.picture.verdicts import AlphaFigures
from ...diagnosis.base_prints import drift_of
from ...diagnosis.diagnosis import Case, diagnose
from ...diagnosis.facts import Facts
from ...diagnosis.words import named_networks
from ...files.demo_folder import DEMO_FOLDER
from ..host.host import ForgeFamily
from ..host.modules import host_module
from ..host.sampling import samplers
from ..jobs.job import Job
from ..jobs.run import checkpoint_name
from ..page.localisation import texts_of_page
from .trial_jobs import guidance_name

UNLIKE = ("Euler", "DPM++ 2M", "DDIM")  # one of them to try in place of another sampler


def cases_of(job: Job, picture: Image.Image) -> list[Case]:
    """The alpha of a picture as it goes out; none of a tile, nor where the user cut the sampling short."""
    state = host_module("shared").state
    if job.request.is_tile or getattr(state, "interrupted", False) or getattr(state, "skipped", False):
        return []
    figures = AlphaFigures.of(picture)
    p = job.p
    place = p.iteration * p.batch_size + p.batch_index
    if figures.verdict is None:  # nobody looks at the job, whose start pictures take time to measure
        return [Case(figures, Facts(job.run.method.base), place)]
    return [Case(figures, replace(facts_of(job, place), start_alpha=start_alpha(job)), place)]


def tell(job: Job) -> None:
    """One comment where pictures of a job that is over have no alpha worth the name; files do not tell it."""
    found = diagnose(job.outcome.cases, lambda: drift(job))
    if found is not None:
        # a page replaces whole texts alone, and this one tells names and numbers
        texts = {} if getattr(job.p, "is_api", False) else texts_of_page()
        job.request.note(found.said(texts), in_files=False)


def facts_of(job: Job, place: int) -> Facts:
    """What a job does, with the words of the transparent picture at a place; but for its start pictures."""
    run, p = job.run, job.p
    base, arguments = run.method.base, run.arguments
    sampler = str(getattr(p, "sampler_name", "") or "")
    return Facts(
        base,
        own_prompt(job.own_words(place).get(FOREGROUND, ""), prompt_at(p, place)),
        weight=arguments.weight,
        stop_at=arguments.ending_step,
        guidance=getattr(p, guidance_name(base), None),
        steps=getattr(p, "steps", None),
        sampler=sampler,
        other_sampler=other_sampler(base, sampler),
        prediction=run.host.prediction,
        checkpoint=checkpoint_name(p.sd_model),
        method_file=arguments.method_file,
        decoder_file=arguments.decoder_file,
        encoder_file=arguments.encoder_file,
        denoise=1.0 if job.init_images is None else p.denoising_strength,
        layers=words_at_work(job, place),
    )


def prompt_at(p: Any, place: int) -> str:
    """The prompt at a place of a job, with its tags."""
    prompts = getattr(p, "all_prompts", None) or [p.prompt]
    return str(prompts[min(place, len(prompts) - 1)])


def words_at_work(job: Job, place: int) -> dict[str, str]:
    """Own words of the layers that this job paints, by frame: the networks that they name work on all of them."""
    frames = job.prompts.frames if job.prompts is not None else ()
    return {frame: text for frame, text in job.own_words(place).items() if frame in frames}


def start_alpha(job: Job) -> float | None:
    """The share of the start pictures that is opaque, of the least opaque one; None where there are none."""
    if job.init_images is None:
        return None
    return min(AlphaFigures.of(picture).opaque for picture in job.init_images.given)


def other_sampler(base: str, chosen: str) -> str:
    """A sampler of this WebUI that is quite unlike the chosen one; empty where a base is made for few."""
    known = () if BASES[base].is_flow_matching else samplers()
    return next((name for name in UNLIKE if name in known and name != chosen), "")


def drift(job: Job) -> float | None:
    """How far the loaded checkpoint is from its base, without LoRAs; None where that cannot be told."""
    host = job.run.host
    if isinstance(host, ForgeFamily) and loads_networks(job):
        return None  # they are in the weights
    folders = [*job.request.files.choice_folders(), DEMO_FOLDER]
    return drift_of(dict(host.unet.named_modules()), job.run.method.base, folders)


def loads_networks(job: Job) -> bool:
    """Whether the words of a job load LoRAs or hypernetworks."""
    prompts = getattr(job.p, "all_prompts", None) or []
    own = [text for place in range(len(prompts)) for text in words_at_work(job, place).values()]
    return any(named_networks(str(text)) for text in (job.p.prompt, *prompts, *own))
