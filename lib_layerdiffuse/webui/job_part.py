"""What is a job's own helper: it finds the job, and does not keep it alive."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .job import Job


class JobPart:
    """A part of one job, held by it."""

    def __init__(self, job: Job):
        self._job = weakref.ref(job)  # which has this: a circle would keep both from being freed

    @property
    def job(self) -> Job:
        """The job, which has this."""
        return self._job()

    @property
    def p(self) -> Any:
        """What the WebUI processes."""
        return self.job.p
