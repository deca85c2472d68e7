"""The last word on a picture, and on a job's results: after the hooks of all scripts, whatever their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..chains.steps import go_on
from ..host.modules import host_module
from ..jobs.job import job_of
from ..script import LayerDiffuseScript
from ..wrapping import unwrap, wrap
from . import files
from .keeping import is_opaque


def install() -> None:
    """Wrap the WebUI's calling of two hooks, once."""
    for name, around in AROUND.items():
        wrap(host_module("scripts").ScriptRunner, name, around)


def remove() -> None:
    """Give the WebUI its own functions back."""
    for name in AROUND:
        unwrap(host_module("scripts").ScriptRunner, name)


def on_picture(original: Callable[..., Any], runner: Any, p: Any, picture: Any, *others: Any) -> None:
    """A picture before it is saved."""
    if job_of(p) is None:
        original(runner, p, picture, *others)
        return
    composite = picture.image.copy()
    original(runner, p, picture, *others)
    ours_of(runner).last_word(p, picture, composite)


def on_results(original: Callable[..., Any], runner: Any, p: Any, processed: Any, *others: Any) -> None:
    """The end of a job."""
    job = job_of(p)
    if job is None:
        original(runner, p, processed, *others)
        return
    chain, failed = job.request.chain, job.failed
    job.outcome.end()
    known = list(processed.images)
    alphas = [(image, image.getchannel("A")) for image in known if files.is_marked(image) and image.mode == "RGBA"]
    original(runner, p, processed, *others)
    for image, alpha in alphas:
        if is_opaque(image):  # made so in place
            image.putalpha(alpha)
    ours_of(runner).after_job(p, processed, known)
    if chain is not None and chain.is_first and not failed:
        go_on(p, processed, chain)


def ours_of(runner: Any) -> LayerDiffuseScript:
    """Our script in a runner; another object of it where an extension left it out of a copy."""
    found = (script for script in runner.alwayson_scripts if isinstance(script, LayerDiffuseScript))
    return next(found, None) or LayerDiffuseScript()


AROUND: dict[str, Callable[..., None]] = {
    "postprocess_image_after_composite": on_picture,
    "postprocess": on_results,
}
