"""The button of the accordion that finds out why the last pictures have no alpha, and the place of its answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

FIND_OUT = "Find out why there is no alpha"
# javascript/layerdiffuse_finding.js: it begins a task of the WebUI, with its progress bar
SCRIPT = "(task, visitor) => [layerdiffuseFindOut('{tab}'), visitor]"


def build_finding(gradio: Any, prefix: str, visitor: Any, answer: Callable[[str, str], Any]) -> None:
    """Builds both; `answer(task, visitor)` gives a list of the HTML that is shown."""
    task = gradio.Textbox("", visible=False, label="Task", elem_id=f"{prefix}_find_out_task")
    button = gradio.Button(FIND_OUT, size="sm", elem_id=f"{prefix}_find_out")
    told = gradio.HTML("", elem_id=f"{prefix}_found")
    task.do_not_save_to_config = button.do_not_save_to_config = True
    script = {script_name(button.click): SCRIPT.format(tab=prefix.partition("_")[0])}
    button.click(answer, [task, visitor], [told], show_progress="hidden", **script)


def script_name(event: Callable[..., Any]) -> str:
    """What this gradio calls the script that runs before an event."""
    return "_js" if "_js" in inspect.signature(event).parameters else "js"
