"""Which component of the Layers tab calls which handler; runs on gradio 3.41, 4.40 and newer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .fields import FIELDS
from .handlers import AGAIN, FLOW, StackHandlers
from .layout import HISTORY, TOOLS, StackLayout, is_modern

WAITING = 16  # paintings that may be asked for at a time


class StackEvents:
    """The events of a tab."""

    def __init__(self, handlers: StackHandlers):
        self.handlers = handlers
        self.layout: StackLayout = handlers.layout

    @property
    def outputs(self) -> list[Any]:
        """All components that any handler answers."""
        return [self.layout[name] for name in self.handlers.output_names]

    def connect(self) -> None:
        """Ties the handlers to their components."""
        on, layout = self.on, self.layout
        on(layout["list"].input if hasattr(layout["list"], "input") else layout["list"].change, self.handlers.choose)
        for name in (*HISTORY, *TOOLS):
            on(layout[name].click, functools.partial(self.handlers.do, name), ["list"])
        for name in ("scale", "opacity", "right", "down"):
            on(layout[name].release, functools.partial(self.handlers.change, (name,)), ["list", *FIELDS])
        on(layout["visible"].input, functools.partial(self.handlers.change, ("visible",)), ["list", *FIELDS])
        on(layout["apply"].click, functools.partial(self.handlers.change, FIELDS), ["list", *FIELDS])
        for name in ("add_picture", "set_background", "replace"):
            on(layout[name].click, functools.partial(self.handlers.give, name), ["list", "picture"])
        on(layout["new"].click, self.handlers.begin_anew, ["width", "height"])
        on(layout["save"].click, self.handlers.save, ["format"])
        on(layout["load"].upload, self.handlers.load, ["load"])
        on(layout["stop"].click, self.handlers.stop, [])
        self.on_arrival(layout["arrive"].click, queue=False, **self.options)
        asking = ["list", "prompt", "seed", "weight"]
        for name in ("paint_layer", "paint_background"):
            self.on_painting(layout[name].click, functools.partial(self.handlers.paint, name), asking)
        self.on_painting(layout["again"].click, functools.partial(self.handlers.paint, "again"), ["list", *AGAIN])

    def on(self, event: Any, handler: Callable[..., Any], names: list[str] | None = None) -> Any:
        """An event of the token and the components of these names, which answers all outputs at once."""
        parts = [self.layout[name] for name in ["token", *(["list"] if names is None else names)]]
        return event(self.handlers.guarded(handler), parts, self.outputs, queue=False, **self.options)

    def on_arrival(self, event: Any, **options: Any) -> None:
        """The event of a page that was loaded: what there is, then the painting that goes on."""
        call, token = self.handlers, [self.layout["token"]]
        shown = event(call.guarded(call.arrive), token, self.outputs, **options)
        self.then_finish(shown.then(call.streamed(call.follow), token, self.flow, **self.options))

    def on_painting(self, event: Any, handler: Callable[..., Any], names: list[str]) -> None:
        """An event that paints: progress in few components, as often as that is told, then the stack with the layer."""
        parts = [self.layout[name] for name in ["token", *names]]
        once = {"concurrency_limit": WAITING, "trigger_mode": "once"} if is_modern(self.layout.gradio) else {}
        inputs = [*parts, *self.layout.setting_parts.values()]
        self.then_finish(event(self.handlers.streamed(handler), inputs, self.flow, **once, **self.options))

    def then_finish(self, painted: Any) -> None:
        """After a painting: what came of it."""
        finish = self.handlers.guarded(self.handlers.finish)
        painted.then(finish, [self.layout["token"]], self.outputs, queue=False, **self.options)

    @property
    def flow(self) -> list[Any]:
        """The components that change while something is painted."""
        return [self.layout[name] for name in FLOW]

    @property
    def options(self) -> dict[str, Any]:
        """What gradio is told of every event."""
        return {"show_progress": "hidden", "preprocess": not self.handlers.place.raw}
