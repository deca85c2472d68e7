"""Running the short jobs one after the other, in the WebUI's queue, with its progress bar and its Interrupt."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator
from pathlib import Path

from ...core.errors import LayerDiffuseError, unforeseen
from ...diagnosis import findings
from ...diagnosis.findings import Finding
from ...diagnosis.trials import ShortRun
from ...form.ways import steps_of
from ..chains.steps import end, is_stopped
from ..host.main_thread import in_main_thread
from ..host.modules import host_module
from ..jobs.telling import ERROR_KEY
from ..page.localisation import texts_of_page
from .trial_jobs import Recipe, trial_p

logger = logging.getLogger(__name__)

HISTORY = "params.txt"  # the last picture's settings, which pages take up again


def find_out(recipe: Recipe) -> list[Finding]:
    """What the short runs of a job say; within the WebUI's queue, with its state begun."""
    found: list[Finding] = []

    def work() -> None:
        state, way = host_module("shared").state, recipe.arguments.method_row
        state.job_count = findings.most_runs(recipe.facts) * (len(steps_of(way)) if way else 1)
        with history_kept():
            found.extend(findings.find_out(recipe.facts, functools.partial(run, recipe), is_stopped))

    in_main_thread(work)
    return found


def run(recipe: Recipe, short: ShortRun) -> Finding:
    """One short job; whatever happens is told."""
    texts = {} if getattr(recipe.p, "is_api", False) else texts_of_page()
    host_module("shared").state.textinfo = texts.get(short.name, short.name)
    p, trial = trial_p(recipe, short)
    try:
        made = host_module("processing").process_images(p)
        error = made.extra_generation_params.get(ERROR_KEY, "")
    except Exception as fault:  # what a WebUI's job may end in: no memory, no numbers
        logger.exception("the short run %s failed", short.name)
        error = str(fault if isinstance(fault, LayerDiffuseError) else unforeseen(fault))
    finally:
        end(p)
    return Finding.of(short.name, trial.cases, error=error)


@contextlib.contextmanager
def history_kept() -> Iterator[None]:
    """Around jobs that nobody wants to find among the last settings."""
    path = Path(host_module("paths").data_path) / HISTORY
    before = path.read_bytes() if path.is_file() else None
    try:
        yield
    finally:
        if before is not None:
            path.write_bytes(before)
        else:
            path.unlink(missing_ok=True)
