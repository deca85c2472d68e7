"""One generation of a WebUI with the box ticked: what was asked for, what is at work, what has come of it.

A job lives on the WebUI's `p` while it is processed. All faults end in `fail`: the model is what it was, no picture
is given out as if it were a result, and the user reads why, once: under the gallery, in the API's info, in the log.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ...core.errors import LayerDiffuseError
from ...core.methods import own_prompt, round_up_batch
from ...form.arguments import LayerArguments
from ..chains.link import ChainLink
from ..host.host import computing_device, token_merging_off
from ..host.sampling import give_back, take_over
from .frame_prompts import FramePrompts
from .init_images import InitImages, distinct
from .outcome import Outcome
from .request import Request
from .run import Run, checked
from .second_pass import SecondPass

ATTRIBUTE = "layerdiffuse_job"


class Job:
    """The parts of one generation, by the WebUI's order: request, run, outcome."""

    def __init__(self, request: Request):
        self.request = request
        self._empty()

    def _empty(self) -> None:
        """Hold nothing large: no picture, and no part of the WebUI's model; at the start, and at the end."""
        self._run: Run | None = None
        self.prompts: FramePrompts | None = None  # where a result has several frames
        self.link: ChainLink | None = None  # where this is a step of a chain
        self.init_images: InitImages | None = None
        self.second_pass: SecondPass | None = None
        self.outcome = Outcome()

    @property
    def p(self) -> Any:
        """What the WebUI processes."""
        return self.request.p

    @property
    def failed(self) -> LayerDiffuseError | None:
        """Why there is no picture of it."""
        return self.request.failed

    @property
    def run(self) -> Run:
        """What is at work; from `prepare` on, unless that failed: then LookupError."""
        if self._run is None:
            raise LookupError("the job was not prepared")
        return self._run

    # --- before sampling

    def take_place(self) -> None:
        """Take part in the chain, where there is one, and see that the batch holds whole results."""
        if self.request.chain is None:
            self.round_batch()
            return
        self.link = ChainLink(self.request, self.request.chain)
        self.link.install()
        self.prompts = self.link.prompts

    def round_batch(self) -> None:
        """A batch that the frames do not divide would be noise: round it up, and say so."""
        method, p, request = self.request.arguments.method_row, self.p, self.request
        if method is None or len(method.frames) == 1:
            return
        token_merging_off(p, request.changes.set)
        self.prompts = FramePrompts(request, method.frames, method.extra_prompts)
        self.prompts.install()
        frames = len(method.frames)
        starts = len(distinct(getattr(p, "init_images", None) or []))
        wanted = round_up_batch(max(p.batch_size, starts * frames if starts > 1 else 1), frames)
        if wanted != p.batch_size:
            result = ", ".join(method.frames)
            told = f"batch size rounded up from {p.batch_size} to {wanted}: a result is {result}"
            request.note(told, in_files=False)
            request.changes.set("batch_size", wanted)

    def prepare(self) -> None:
        """Check everything against the loaded model and read the files; typed errors before anything is touched."""
        self._run = checked(self.request)

    def take_part(self) -> None:
        """Give the WebUI start pictures that the VAE can see, and take part in a second pass."""
        if getattr(self.p, "init_images", None):
            self.init_images = InitImages(self.run)
            self.init_images.install()
        self.second_pass = SecondPass(self.run, self._told_now)
        self.second_pass.install()

    def prepare_pass(self, latent: torch.Tensor) -> None:
        """Encode what the method sees at this pass's size ([B,4,h,w]) and take the sampler call over."""
        try:
            if not self.failed:
                self.run.prepare_pass(latent)
        finally:  # a job that failed does not sample
            take_over(self.p.sampler, weakly(self.sample))

    # --- sampling

    def sample(self, run: Callable[[], Any]) -> Any:
        """The sampler call of one pass; the final latents, also after an interrupt."""
        return self.p.sampler.last_latent if self.failed else self.run.sample(run)

    def before_step(self, parameters: Any) -> None:
        """The WebUI's on_cfg_denoiser."""
        if self._run is not None:
            self._run.before_step(parameters)

    # --- what is told

    @property
    def told_seeds(self) -> list[int]:
        """The seeds that make the job's pictures again, each with its set: what users read."""
        if self.request.chain is not None:
            return self.request.chain.pictures.seeds
        return (self.prompts.set_seeds if self.prompts is not None else []) or self.p.all_seeds

    def tell_seeds(self) -> None:
        """Before a batch is saved, and after its noise was drawn: the names of its files tell these seeds."""
        self.p.seeds = self._told_now() or self.p.seeds

    def _told_now(self) -> list[int]:
        """Those of the batch at hand; none where somebody made it larger or smaller."""
        first = self.p.iteration * self.p.batch_size
        told = self.told_seeds[first : first + self.p.batch_size]
        return told if len(told) == len(self.p.seeds) else []

    def seed_of_layer(self, frame: str, place: int) -> int | None:
        """The seed that belongs into the field of a layer: its own where one was chosen, else that of its set."""
        own = self.prompts.own_seeds.get(frame) if self.prompts is not None else None
        if self.request.chain is not None:
            own = self.request.chain.seeds_of(frame)
        told = own or self.told_seeds
        return int(told[place]) if place < len(told) else None

    def prompt_of_layer(self, frame: str, place: int) -> str:
        """What a layer is painted from: its own prompt, where it has one, before that of its set."""
        texts = getattr(self.p, "all_prompts", None) or []
        return own_prompt(self.own_words(place).get(frame, ""), texts[place] if place < len(texts) else "")

    def own_words(self, place: int) -> dict[str, str]:
        """What layers are painted from beside the prompt of their set, by frame, as other scripts expanded it."""
        extras = self.prompts.extras if self.prompts is not None else []
        return extras[place] if place < len(extras) else {}

    # --- the end

    def finish(self) -> None:
        """Undo what may be left, also after an exception elsewhere; safe to call again."""
        give_back(getattr(self.p, "sampler", None))
        for part in (self.prompts, self.link, self.init_images, self.second_pass):
            if part is not None:
                part.remove()
        self.request.changes.undo()
        self.request.networks.rest(computing_device())
        self.request.take(LayerArguments())  # which holds pictures
        self._empty()


def weakly(method: Callable[[Callable[[], Any]], Any]) -> Callable[[Callable[[], Any]], Any]:
    """A job's way around a sampling, for a sampler that outlives the job: then the sampling is the WebUI's own."""
    known = weakref.WeakMethod(method)

    def around(run: Callable[[], Any]) -> Any:
        ours = known()
        return run() if ours is None else ours(run)

    return around


def job_of(p: Any) -> Job | None:
    """The job of `p` itself; a copy that a script made of `p` has none."""
    job = getattr(p, ATTRIBUTE, None)
    return None if job is None or job.p is not p else job


def fresh(p: Any, arguments: LayerArguments) -> LayerArguments:
    """The arguments with what an X/Y/Z plot set for this cell."""
    axes = getattr(p, "layerdiffuse_axes", None)
    return replace(arguments, **axes) if axes else arguments
