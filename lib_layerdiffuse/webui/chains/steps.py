"""The steps of a chain after the first: each is a job of the WebUI's own, started when the one before it is over."""

from __future__ import annotations

import copy
import logging
from typing import Any

from ...core.errors import LayerDiffuseError, unforeseen
from ..host.modules import host_module
from ..jobs.job import job_of
from ..jobs.telling import ERROR_KEY
from .chain_run import ChainRun
from .results import Results

logger = logging.getLogger(__name__)

ATTRIBUTE = "layerdiffuse_chain"  # on the `p` of a later step
INTERRUPTED = "the user interrupted it"
OWN_LISTS = ("extra_result_images", "latents_after_sampling", "pixels_after_sampling")  # of the Forge family


def chain_of(p: Any) -> ChainRun | None:
    """The chain that `p` is a later step of."""
    return getattr(p, ATTRIBUTE, None)


def is_stopped() -> bool:
    """Whether the user wants no more pictures."""
    state = host_module("shared").state
    return bool(state.interrupted or getattr(state, "stopping_generation", False))


def go_on(p: Any, processed: Any, chain: ChainRun) -> None:
    """After the first step's job: run the others, and put all that was made into its result.

    Whatever happens, what was made so far stays.
    """
    results = Results(p, chain)
    results.add(processed)
    while chain.number + 1 < len(chain.chain.steps):
        whole = results.is_whole
        chain.number += 1
        why = INTERRUPTED if is_stopped() else "" if whole else "pictures of the step before are missing"
        why = why or run_step(p, chain, results)
        if why:
            results.end(why)
            break
    results.deliver(processed)


def run_step(p: Any, chain: ChainRun, results: Results) -> str:
    """One step; why nothing comes of it, empty where all is well."""
    again = another(p, chain)
    try:
        made = host_module("processing").process_images(again)
    except Exception as error:  # what a WebUI's job may end in: no memory, no numbers
        logger.exception("%s failed", chain.title)
        told = error if isinstance(error, LayerDiffuseError) else unforeseen(error)
        return results.fail(str(told))
    finally:
        end(again)
    results.add(made)
    error = made.extra_generation_params.get(ERROR_KEY, "")
    return results.fail(error) if error else ""


def end(p: Any) -> None:
    """The end of a step's job, which hears nothing of an exception."""
    job = job_of(p)
    if job is not None:
        job.finish()
    p.close()


def another(p: Any, chain: ChainRun) -> Any:
    """A `p` for the step at hand, with nothing of the first step's job in it."""
    again = copy.copy(p)
    setattr(again, ATTRIBUTE, chain)
    again.extra_generation_params, again.comments = dict(p.extra_generation_params), {}
    for name in OWN_LISTS:
        if isinstance(getattr(p, name, None), list):
            setattr(again, name, [])
    again.seed = chain.pictures.seeds[0]
    return again
