"""gradio's Blocks, for this page alone: no endpoints for others, no files but uploads, no tracebacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio

from ..core.errors import InputError, LayerDiffuseError
from ..form.ranges import encodable

WHAT_TO_DO = "load the page again and use its own fields"


class PageBlocks(gradio.Blocks):
    """Blocks whose events are for this page alone, and that tell a visitor what a field cannot take."""

    def close_endpoints(self) -> None:
        """Takes all events out of gradio's API."""
        for function in self.fns.values():
            function.api_visibility = "private"

    async def process_api(self, block_fn: Any, inputs: list[Any], *more: Any, **options: Any) -> Any:
        """As gradio does it, of texts that can be sent back: half a letter would end all of a visitor's answers."""
        event = options.get("event_data")
        if event is not None:
            event._data = make_encodable([event._data])[0]
        return await super().process_api(block_fn, make_encodable(inputs), *more, **options)

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more: Any, **options: Any) -> list[Any]:
        """As gradio does it; what it cannot take is told on the page by a gradio.Error instead of in a traceback."""
        try:
            refuse_addresses(inputs)
            return await super().preprocess_data(block_fn, inputs, *more, **options)
        except Exception as error:  # gradio and its components refuse values in many ways
            raise told(error) from error

    async def call_function(self, *arguments: Any, **options: Any) -> Any:
        """As gradio does it; its own Error, for data of events that it cannot take, is told on the page only."""
        try:
            return await super().call_function(*arguments, **options)
        except gradio.Error as error:
            raise told(error) from error


def told(error: Exception) -> gradio.Error:
    """The error that gradio shows on the page, with no traceback in the log."""
    got = f"a value that a field cannot take ({short(error)})"
    typed = error if isinstance(error, LayerDiffuseError) else InputError(got, "one of its own", WHAT_TO_DO)
    return gradio.Error(str(typed), print_exception=False)


def refuse_addresses(inputs: Sequence[Any]) -> None:
    """InputError for a file that names an address: gradio would fetch it."""
    for path in paths_of(inputs):
        if isinstance(path, str) and "://" in path:
            raise InputError("a file by its address", "an uploaded file", "upload it")


def paths_of(value: Any) -> Iterator[Any]:
    """What a value from the browser names as the paths of files, however deep."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            yield value.get("path")
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)


def make_encodable(values: list[Any]) -> list[Any]:
    """The same list of JSON values, its texts, however deep, replaced by what UTF-8 can hold."""
    waiting: list[Any] = [values]
    while waiting:
        part = waiting.pop()
        for key, value in list(part.items() if isinstance(part, dict) else enumerate(part)):
            if isinstance(value, str):
                part[key] = encodable(value)
            elif isinstance(value, dict | list):
                waiting.append(value)
    return values


def short(error: Exception) -> str:
    """The first line of an error, without paths of this machine, as it can be sent."""
    lines = encodable(str(getattr(error, "message", error))).strip().splitlines()
    return type(error).__name__ if not lines or "/" in lines[0] or "\\" in lines[0] else lines[0][:200]
