"""A job's part in its chain: what scripts did to its prompts and seeds in the first step holds in all steps.

Scripts draw variants anew for each job. So what they left is kept when the WebUI goes on to sample, and put back at the
same point of later steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...form.arguments import INFOTEXT_PREFIX
from ..host.modules import host_module
from ..jobs.frame_prompts import PER_PICTURE, FramePrompts
from ..jobs.request import Request
from ..jobs.telling import ERROR_KEY, NOTE_KEY, SEED_KEY
from ..wrapping import once
from .chain_run import ChainRun

KEPT = (*PER_PICTURE, "all_seeds", "all_subseeds")
UNDETERMINED = -1  # the WebUI's count of jobs before it is known


class ChainLink:
    """The job of one step."""

    def __init__(self, request: Request, chain: ChainRun):
        self.request, self.chain = request, chain
        self.prompts: FramePrompts | None = None  # of layers, where any has one
        self._once: Callable[[], None] | None = None

    @property
    def p(self) -> Any:
        """What the WebUI processes."""
        return self.request.p

    def install(self) -> None:
        """Take part in the coming `setup_prompts` and `init`; grids are made of the whole result."""
        chain = self.chain
        self._once = once(self.p, "init", self._settle)
        self.request.changes.set("do_not_save_grid", True)
        prompts = FramePrompts(self.request, chain.step.makes, chain.chain.makes)
        if not prompts.given:
            return
        self.prompts = prompts
        if chain.is_first:
            prompts.install()
        else:
            prompts.recall(chain.pictures.extras, chain.pictures.heads)

    def remove(self) -> None:
        """Give `p` its own method back where it was not called, and its own seeds in texts."""
        if self._once is not None:
            self._once()
        self._once = None
        self.p.extra_generation_params.pop(SEED_KEY, None)

    def _settle(self, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if not self.request.failed:
            self._keep() if self.chain.is_first else self._put_back()
            self._use_seeds()
            self.p.extra_generation_params.update(self.chain.tell_step())
            self._count()
        return original(*arguments, **named)

    def _keep(self) -> None:
        p, kept = self.p, self.chain.pictures
        kept.lists = {name: list(getattr(p, name)) for name in KEPT if isinstance(getattr(p, name, None), list)}
        kept.batches, kept.batch_size = p.n_iter, p.batch_size
        if self.prompts is not None:
            kept.extras, kept.heads = self.prompts.extras, self.prompts.heads
        told = {key: value for key, value in p.extra_generation_params.items() if key.startswith(INFOTEXT_PREFIX)}
        kept.texts = {key: value for key, value in told.items() if key not in (ERROR_KEY, NOTE_KEY)}
        kept.texts |= self.chain.tell_seeds()

    def _put_back(self) -> None:
        p, kept = self.p, self.chain.pictures
        for name, values in kept.lists.items():
            setattr(p, name, list(values))
        p.n_iter, p.batch_size = kept.batches, kept.batch_size
        p.main_prompt = kept.lists["all_prompts"][0]

    def _use_seeds(self) -> None:
        (frame,) = self.chain.step.makes
        self.p.all_seeds = self.chain.seeds_of(frame) or self.p.all_seeds

    def _count(self) -> None:
        """One progress bar over all steps."""
        state = host_module("shared").state
        if state.job_count == UNDETERMINED:
            state.job_count = self.p.n_iter * len(self.chain.chain.steps)
        state.textinfo = self.chain.title.capitalize()
