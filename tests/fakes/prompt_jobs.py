"""Jobs with extra prompts, beside scripts that expand them: the texts that the UNet gets, and what infotexts tell."""

from __future__ import annotations

import contextlib
import json
import re

from fakes.running import run
from lib_layerdiffuse.webui.jobs.frame_prompts import MARK, SEPARATOR

MAIN, FOREGROUND, BACKGROUND = "a {red|blue} car", "{one|two|three} cats", "in {rain|snow}"
NAMES = {
    "foreground": "fg_additional_prompt",
    "background": "bg_additional_prompt",
    "blended": "blend_additional_prompt",
}
EXTRAS = {NAMES["foreground"]: FOREGROUND, NAMES["background"]: BACKGROUND}


def with_script(webui, script: type, first: bool = False):
    """The WebUI with another always-on script, before or behind ours."""
    webui.extra_scripts = [script]
    webui.reload_ui()
    if first:
        for runner in webui.runners.values():
            runner.scripts.reverse()
    return webui


@contextlib.contextmanager
def learning(webui):
    """Inside, the texts that the UNet is conditioned on are noted, but for the empty ones."""
    texts: list[str] = []
    model = webui.sd_model
    embed = type(model).embed
    model.__dict__["embed"] = lambda text: (texts.append(text) if text else None) or embed(model, text)
    try:
        yield texts
    finally:
        del model.__dict__["embed"]


def ran(webui, layer: dict, **fields):
    """A job of one step with the texts of its pictures, without marks of ours anywhere."""
    with learning(webui) as texts:
        outcome = run(webui, layer, steps=1, **fields)
    assert outcome.error is None and not webui.errors
    left = str([texts, vars(outcome.p), outcome.processed.infotexts, outcome.processed.js()])
    assert MARK not in left and SEPARATOR not in left
    assert not {"setup_prompts", "init", "parse_extra_network_prompts"} & set(vars(outcome.p))
    return outcome, texts


def told(outcome) -> list[str]:
    """Infotexts of the pictures."""
    return outcome.processed.infotexts[outcome.processed.index_of_first_image :]


def parameters(text: str) -> dict[str, str]:
    """The generation parameters of an infotext."""
    pairs = re.findall(r'(\w[\w ]*): ("(?:\\.|[^"])*"|[^,]*)', text.split("\n")[-1])
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}
