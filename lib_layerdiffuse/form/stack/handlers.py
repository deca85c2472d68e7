"""What happens in the Layers tab: every handler takes the browser's token and answers updates of the components."""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import InputError, LayerDiffuseError, unforeseen
from ...files.names import slug
from ...files.whole_files import write_whole
from ...sets.formats import FORMATS, pack_set
from ...sets.reading import read_set
from ...sets.stack import PaintRequest, Stack, StackLayer, StackState
from ...sets.stack_files import fill_project, is_project, read_project
from . import looks
from .fields import FIELDS, READ, SEED, WEIGHT, apply, key_of, reach, shown_fields
from .layout import HISTORY, TOOLS, USUAL_SCALES, StackLayout, is_modern
from .place import StackPlace, read_text
from .work import Watch, Work

logger = logging.getLogger(__name__)

AGAIN = ("again_prompt", "again_seed", "again_weight")
PAINTING = ("paint_layer", "paint_background", "again")
WAITING = 16  # paintings that may be asked for at a time
Updates = dict[str, Any]


@dataclass
class StackHandlers:
    """The behaviour of a tab: layout and place are what it acts on."""

    layout: StackLayout
    place: StackPlace

    @property
    def gradio(self) -> Any:
        return self.layout.gradio

    @property
    def outputs(self) -> list[Any]:
        """All components that any handler answers."""
        return [self.layout[name] for name in OUTPUTS]

    def connect(self) -> None:
        """Ties the handlers to their components."""
        on, layout = self.on, self.layout
        on(layout["list"].input if hasattr(layout["list"], "input") else layout["list"].change, self.choose)
        for name in (*HISTORY, *TOOLS):
            on(layout[name].click, functools.partial(self.do, name), ["list"])
        for name in ("scale", "opacity", "right", "down"):
            on(layout[name].release, functools.partial(self.change, (name,)), ["list", *FIELDS])
        on(layout["visible"].input, functools.partial(self.change, ("visible",)), ["list", *FIELDS])
        on(layout["apply"].click, functools.partial(self.change, FIELDS), ["list", *FIELDS])
        for name in ("add_picture", "set_background", "replace"):
            on(layout[name].click, functools.partial(self.give, name), ["list", "picture"])
        on(layout["new"].click, self.begin_anew, ["width", "height"])
        on(layout["save"].click, self.save, ["format"])
        on(layout["load"].upload, self.load, ["load"])
        on(layout["stop"].click, self.stop, [])
        on(layout["arrive"].click, self.arrive, [], slow=True)
        asking = ["list", "prompt", "seed", "weight"]
        for name in ("paint_layer", "paint_background"):
            on(layout[name].click, functools.partial(self.paint, name), asking, slow=True)
        on(layout["again"].click, functools.partial(self.paint, "again"), ["list", *AGAIN], slow=True)

    def on(self, event: Any, handler: Callable[..., Any], names: list[str] | None = None, slow: bool = False) -> None:
        """An event: token, the components of these names, for slow ones the settings; answers all outputs."""
        layout = self.layout
        parts = [layout["token"], *(layout[name] for name in (["list"] if names is None else names))]
        parts += layout.setting_parts.values() if slow else []
        guarded = self.streamed(handler) if slow else self.guarded(handler)
        event(guarded, parts, self.outputs, **self.event_options(slow))

    def event_options(self, slow: bool) -> dict[str, Any]:
        """What this gradio is told of an event: painting goes through its queue, the rest at once."""
        options: dict[str, Any] = {"show_progress": "hidden", "preprocess": not self.place.raw}
        if not slow:
            return options | {"queue": False}
        return options | ({"concurrency_limit": WAITING, "trigger_mode": "once"} if is_modern(self.gradio) else {})

    @staticmethod
    def named(token: Any) -> Any:
        """The name that a browser keeps, as its script gives it."""
        return token

    @property
    def arriving(self) -> Callable[..., Iterator[list[Any]]]:
        """The handler for a page that was loaded."""
        return self.streamed(self.arrive)

    def guarded(self, handler: Callable[..., Updates]) -> Callable[..., list[Any]]:
        """A handler whose errors are told in the tab, and whose updates are put into the order of the outputs."""

        def call(token: Any, *values: Any) -> list[Any]:
            try:
                return self.answer(self.saved(token, handler(token, *values)))
            except LayerDiffuseError as error:
                return self.answer(self.told(error))
            except Exception as error:  # whatever it was, the visitor gets an answer and the log the rest
                logger.exception("the Layers tab failed")
                return self.answer(self.told(unforeseen(error)))

        return call

    def streamed(self, handler: Callable[..., Iterator[Updates]]) -> Callable[..., Iterator[list[Any]]]:
        """The same of a handler that answers again and again."""

        def call(token: Any, *values: Any) -> Iterator[list[Any]]:
            try:
                for updates in handler(token, *values):
                    yield self.answer(updates)
            except LayerDiffuseError as error:
                yield self.answer(self.told(error))
            except Exception as error:  # as above
                logger.exception("the Layers tab failed")
                yield self.answer(self.told(unforeseen(error)))

        return call

    def answer(self, updates: Updates) -> list[Any]:
        """Updates by name as a list in the order of the outputs."""
        return [updates.get(name, self.gradio.update()) for name in OUTPUTS]

    def saved(self, token: str, updates: Updates) -> Updates:
        """The updates, after the stack was saved; a note where it could not be."""
        try:
            self.place.store.save(token, self.place.stack(token))
        except LayerDiffuseError as error:
            return updates | self.told(error)
        return updates

    def told(self, error: LayerDiffuseError) -> Updates:
        """An error in the tab."""
        return {"messages": self.gradio.update(value=looks.error_html(error), visible=True)}

    def noted(self, *notes: str) -> Updates:
        """Notes in the tab; none takes away what stood there."""
        text = looks.notes_html([note for note in notes if note])
        return {"messages": self.gradio.update(value=text, visible=bool(text))}

    def shown(self, token: str, chosen: int | None = None) -> Updates:
        """The whole stack, with a layer chosen: the top one where none is named."""
        stack, update = self.place.stack(token), self.gradio.update
        state, picture = stack.state, looks.preview(stack.state)
        if state.place_of(chosen) is None:
            chosen = state.layers[-1].key if state.layers else None
        return {
            "style": update(value=looks.style_html(state)),
            "composite": update(value=None if picture is None else self.place.preview(token, picture)),
            "list": update(choices=looks.titles(state), value=None if chosen is None else str(chosen)),
            "empty": update(visible=not state.layers),
            "undo": update(interactive=stack.can_undo),
            "redo": update(interactive=stack.can_redo),
            "width": update(value=state.width),
            "height": update(value=state.height),
            "download": update(value=None, visible=False),
            **(self.fields(state, state.layer(chosen)) if chosen is not None else {}),
        }

    def fields(self, state: StackState, layer: StackLayer) -> Updates:
        """The fields of the chosen layer."""
        update, (width, height) = self.gradio.update, layer.size
        values = shown_fields(layer, state)
        limits = {
            "scale": {"maximum": max(layer.scale, USUAL_SCALES[1])},
            "right": reach(values["right"], width, state.width),
            "down": reach(values["down"], height, state.height),
        }
        return {name: update(value=value, **limits.get(name, {})) for name, value in values.items()} | {
            "again_prompt": update(value=layer.prompt),
            "again_seed": update(value=-1 if layer.seed is None else layer.seed),
            "again_weight": update(value=layer.weight),
        }

    def choose(self, token: str, chosen: Any) -> Updates:
        """The fields of another layer."""
        state = self.place.stack(token).state
        return self.fields(state, state.layer(key_of(chosen))) | self.noted()

    def do(self, name: str, token: str, chosen: Any) -> Updates:
        """A button: of the history, or of the chosen layer."""
        stack = self.place.stack(token)
        if name in HISTORY:
            getattr(stack, name)()
            return self.shown(token, key_of(chosen)) | self.noted()
        key = key_of(chosen)
        stack.state.layer(key)
        if name == "duplicate":
            self.place.check_room(stack)
            key = stack.duplicate(key).key
        elif name == "delete":
            place = stack.state.place_of(key)
            stack.delete(key)
            left = stack.state.layers
            key = left[min(place, len(left) - 1)].key if left else None
        else:
            stack.move(key, 1 if name == "raise" else -1)
        return self.shown(token, key) | self.noted()

    def change(self, names: tuple[str, ...], token: str, chosen: Any, *values: Any) -> Updates:
        """Other values for the chosen layer: of those named that differ from what it has."""
        stack, key = self.place.stack(token), key_of(chosen)
        given = {name: READ[name](name, value) for name, value in zip(FIELDS, values, strict=True) if name in names}
        apply(stack, key, given)
        # no fields: somebody may be typing into another one meanwhile
        told = {name: update for name, update in self.shown(token, key).items() if name not in (*FIELDS, *AGAIN)}
        return told | self.noted()

    def give(self, name: str, token: str, chosen: Any, picture: Any) -> Updates:
        """The picture of one's own: as a layer, as the background, or in the place of the chosen layer.

        InputError where the field is empty.
        """
        stack, image = self.place.stack(token), self.place.open_picture(picture)
        if image is None:
            raise InputError("no picture", "one in the field above the button", "choose a picture first")
        if name == "replace":
            key = stack.replace_picture(key_of(chosen), image).key
        elif name == "set_background":
            key = stack.set_background(image).key
        else:
            self.place.check_room(stack)
            key = stack.add_picture(image).key
        return self.shown(token, key) | self.noted() | {"picture": self.gradio.update(value=None)}

    def begin_anew(self, token: str, width: Any, height: Any) -> Updates:
        """An empty canvas of another size; Undo brings the former one back."""
        stack = self.place.stack(token)
        stack.open(self.place.new_stack(width, height).state)
        return self.shown(token) | self.noted()

    def save(self, token: str, title: Any) -> Updates:
        """A file to download."""
        state = self.place.stack(token).state
        path, notes = self.written(state, str(title), self.fresh_folder(token))
        return self.noted(*notes) | {"download": self.gradio.update(value=str(path), visible=True)}

    def fresh_folder(self, token: str) -> Path:
        """An empty folder for a file to download: a browser may still be fetching the last one."""
        outer = self.place.downloads(token)
        outer.mkdir(parents=True, exist_ok=True)
        for old in sorted(outer.iterdir(), key=lambda path: path.stat().st_mtime)[:-1]:
            remove_files(old)
        folder = outer / secrets.token_hex(8)
        folder.mkdir()
        return folder

    def written(self, state: StackState, title: str, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """The file of a format by its title, named after the lowest layer, and notes."""
        stem = slug(state.layers[0].name) if state.layers else "layers"
        row = next((row for row in FORMATS.values() if row.title == title), None)
        if row is None:
            path = folder / f"{stem}.layers.zip"
            write_whole(path, functools.partial(fill_project, state))
            return path, ()
        packed = pack_set(state.layer_set(), row.id)
        path = folder / f"{stem}{packed.suffix}"
        write_whole(path, lambda partial: partial.write_bytes(packed.content))
        return path, packed.notes

    def load(self, token: str, value: Any) -> Updates:
        """The stack of a file; Undo brings the former one back. InputError for no file, or one that is too large."""
        path = self.place.path_of(value)
        if path is None:
            raise InputError("no file", "a project, PSD, ORA or ZIP", "choose one")
        state = read_project(path) if is_project(path) else StackState.of_set(read_set(path))
        if max(state.width, state.height) > self.place.most_side or len(state.layers) > self.place.most_layers:
            got = f"{len(state.layers)} layers on {state.width}x{state.height}"
            most = f"at most {self.place.most_layers} layers, and {self.place.most_side} pixels a side, here"
            raise InputError(got, most, "merge layers, or make it smaller")
        stack = self.place.stack(token)
        stack.open(state)
        return self.shown(token) | self.noted()

    def arrive(self, token: str, *settings: Any) -> Iterator[Updates]:
        """What a browser had before its page was loaded, and the painting that goes on."""
        yield self.shown(token) | self.idle() | self.noted()
        work = self.place.works.of(token)
        if work is not None:
            yield from self.follow(token, work)

    def paint(self, name: str, token: str, chosen: Any, *values: Any) -> Iterator[Updates]:
        """A layer, a background, or the chosen layer again: progress, then the stack with it."""
        stack = self.place.stack(token)
        prompt, seed, weight = values[:3]
        settings = self.read_settings(values[3:])
        asked = (read_text("prompt", prompt), SEED.checked("seed", seed), WEIGHT.checked("weight", weight))
        request = self.request(name, stack, key_of(chosen), asked)
        run = functools.partial(self.painted, token, stack, settings)
        yield from self.follow(token, self.place.works.begin(token, request, run))

    def request(self, name: str, stack: Stack, chosen: int | None, asked: tuple[str, int, float]) -> PaintRequest:
        """What a button asks for."""
        if name == "again":
            return stack.request_again(chosen, *asked)
        if name == "paint_background":
            return stack.request_background(*asked[:2])
        self.place.check_room(stack)
        return stack.request_layer(*asked)

    def read_settings(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """The settings of how to paint."""
        rows = self.layout.settings
        return {row.name: row.read(value) for row, value in zip(rows, values, strict=True)}

    def painted(self, token: str, stack: Stack, settings: dict[str, Any], work: Work) -> int:
        """The key of a layer that was painted and saved; the work's own thread runs this."""
        picture = self.place.paint(work.request, settings, work.watch)
        key = stack.take(work.request, picture).key
        self.place.store.save(token, stack)
        return key

    def follow(self, token: str, work: Work) -> Iterator[Updates]:
        """The progress of a painting, from wherever it is, then what came of it."""
        yield self.busy(work.watch) | self.noted()
        for watch in work.follow():
            yield self.busy(watch)
        told = self.told(work.error) if work.error is not None else self.noted(*work.watch.notes)
        changed = self.shown(token, work.key) if work.key is not None else {}
        yield changed | self.idle() | told

    def busy(self, watch: Watch) -> Updates:
        """While something is painted."""
        update, stopping = self.gradio.update, watch.stop.is_set()
        bar = looks.progress_html(watch.fraction, watch.text)
        buttons = {name: update(interactive=False) for name in PAINTING}
        stop = update(interactive=not stopping, value="Stopping" if stopping else "Stop")
        return {**buttons, "stop": stop, "progress": update(value=bar, visible=True)}

    def idle(self) -> Updates:
        """While nothing is."""
        update = self.gradio.update
        buttons = {name: update(interactive=True) for name in PAINTING}
        return {**buttons, "stop": update(interactive=False, value="Stop"), "progress": update(value="", visible=False)}

    def stop(self, token: str) -> Updates:
        """Asks what is painted to end."""
        work = self.place.works.stop(token)
        if work is None:
            return {}
        self.place.interrupt()
        return {"stop": self.gradio.update(interactive=False, value="Stopping")}


OUTPUTS = (
    "messages",
    "progress",
    "style",
    "composite",
    *HISTORY,
    "list",
    "empty",
    *FIELDS,
    *AGAIN,
    *PAINTING,
    "stop",
    "picture",
    "download",
    "width",
    "height",
)


def remove_files(folder: Path) -> None:
    """Remove a folder of downloads."""
    for path in folder.iterdir():
        path.unlink(missing_ok=True)
    folder.rmdir()
