"""What a job was asked for, before the model is known; what is told about it, and what it changes of its `p`."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from typing import Any

from ...core.errors import LayerDiffuseError
from ...files.layer_choice import Files
from ...form.arguments import LayerArguments
from ..chains.chain_run import ChainRun
from ..finding.trial_jobs import TrialJob
from ..page.options import Options
from .changes import Changes
from .networks import Networks
from .telling import Telling


@dataclass(eq=False)
class Request:
    """One job as it was asked for; all its parts have it."""

    of: weakref.ref[Any]  # `p`, which has the job: a circle would keep both from being freed
    options: Options
    files: Files
    networks: Networks
    visitor: str = ""  # the page that wants it; empty for an API's
    is_tile: bool = False  # of a picture that a chosen script joins
    arguments: LayerArguments = field(default_factory=LayerArguments)  # the method may be left to the loaded base
    chain: ChainRun | None = None  # whose step this job is
    asked: Any = None  # a copy of `p` before anything was done to it
    trial: TrialJob | None = None  # what this job is to find out
    telling: Telling = field(init=False)
    changes: Changes = field(init=False)

    def __post_init__(self) -> None:
        self.telling, self.changes = Telling(self.p), Changes(self.p)
        self.changes.remember("n_iter")  # scripts that count prompts set it too, and count anew in each job

    @property
    def p(self) -> Any:
        """What the WebUI processes."""
        return self.of()

    @property
    def failed(self) -> LayerDiffuseError | None:
        """Why there will be no picture, if that is known."""
        return self.telling.failed

    def take(self, arguments: LayerArguments) -> None:
        """The arguments that were sent."""
        self.arguments = replace(arguments, enabled=True)

    def take_step(self, chain: ChainRun) -> None:
        """The arguments of a step of a chain."""
        self.chain = chain
        self.take(chain.arguments_of_step())

    def note(self, text: str, in_files: bool = True) -> None:
        """Tell the user something about the pictures."""
        self.telling.note(text, in_files)

    def fail(self, error: LayerDiffuseError, logged: bool = False) -> None:
        """No picture of this job is what the user asked for: say why, and let none out."""
        if not self.failed:
            self.changes.set("do_not_save_grid", True)  # there is nothing to put into one
        self.telling.fail(error, logged)

    def stop(self) -> None:
        """Let the WebUI make no picture of this job; its queue, and the next use of the same `p`, go on."""
        self.changes.set("n_iter", 0)
