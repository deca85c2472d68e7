"""Who asks why there is no alpha: the button of a page, which gets HTML, and the REST route, which gets data."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ...core.errors import InputError, LayerDiffuseError
from ...diagnosis.findings import Finding, conclude
from ...form.findings_table import findings_html
from ..host.modules import host_module
from .finding_out import find_out
from .recipes import Recipes
from .trial_jobs import Recipe

JOB = "layerdiffuse find out"


def button(recipes: Recipes, tab: str) -> Callable[[str, str], Any]:
    """What answers the button of a tab: `(task, visitor)` gives a list of HTML.

    The WebUI waits for its turn, shows the progress of the task and tells what went wrong.
    """

    def answer(task: str, visitor: str) -> list[str]:  # the WebUI looks at the task alone
        return for_page(recipes, tab, visitor)

    return host_module("call_queue").wrap_gradio_gpu_call(answer, extra_outputs=[])


def for_page(recipes: Recipes, tab: str, visitor: str) -> list[str]:
    """The table of the visitor's last job, as HTML."""
    try:
        return [findings_html(find_out(last(recipes, visitor, tab)))]
    except LayerDiffuseError as error:
        return [f"<p>{html.escape(str(error))}</p>"]


def for_api(recipes: Recipes, tab: str) -> dict[str, Any]:
    """The table of the API's last job; InputError where there is none."""
    recipe = last(recipes, "", tab)
    state = host_module("shared").state
    with host_module("call_queue").queue_lock:
        state.begin(job=JOB)
        try:
            found = find_out(recipe)
        finally:
            state.end()
    conclusion = conclude(found)
    told = {"conclusion": str(conclusion), "helpful": list(conclusion.names)}
    return {**told, "runs": [row_of(finding) for finding in found]}


def row_of(finding: Finding) -> dict[str, Any]:
    """A run as data."""
    pictures = zip(finding.figures, finding.verdicts, strict=True)
    rows = [{**asdict(figures), "verdict": verdict.name if verdict else None} for figures, verdict in pictures]
    return {"name": finding.name, "error": finding.error or None, "pictures": rows}


def last(recipes: Recipes, visitor: str, tab: str) -> Recipe:
    """The last job; InputError before the first."""
    recipe = recipes.get(visitor, tab)
    if recipe is None:
        raise InputError(
            f"no job in {tab} to look into",
            "a transparent picture that was made here before",
            "generate first, with the box of LayerDiffuse ticked, and ask then",
        )
    return recipe
