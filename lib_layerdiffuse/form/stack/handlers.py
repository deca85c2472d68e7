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
from .layout import HISTORY, USUAL_SCALES, StackLayout
from .place import StackPlace, read_text
from .work import Watch, Work

logger = logging.getLogger(__name__)

AGAIN = ("again_prompt", "again_seed", "again_weight")
PAINTING = ("paint_layer", "paint_background", "again")
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
    def output_names(self) -> tuple[str, ...]:
        return (*OUTPUTS, *(f"setting_{name}" for name in self.layout.setting_parts))

    def guarded(self, handler: Callable[..., Updates]) -> Callable[..., list[Any]]:
        """A handler whose errors are told in the tab, and whose updates are put into the order of the outputs."""

        def call(token: Any, *values: Any) -> list[Any]:
            try:
                token = known_kind(token)
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
                token = known_kind(token)
                for updates in handler(token, *values):
                    yield self.answer(updates, FLOW)
            except LayerDiffuseError as error:
                yield self.answer(self.told(error), FLOW)
            except Exception as error:  # as above
                logger.exception("the Layers tab failed")
                yield self.answer(self.told(unforeseen(error)), FLOW)

        return call

    def answer(self, updates: Updates, names: tuple[str, ...] | None = None) -> list[Any]:
        """Updates by name as a list in the order of some outputs, or of all."""
        return [updates.get(name, self.gradio.update()) for name in names or self.output_names]

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
        state, picture = stack.state, looks.preview(stack.state, self.place.preview_side)
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
        layer = stack.state.layer(key_of(chosen))
        key: int | None = layer.key
        if name == "duplicate":
            self.place.check_room(stack)
            key = stack.duplicate(layer.key).key
        elif name == "delete":
            place = stack.state.found(layer.key)
            stack.delete(layer.key)
            left = stack.state.layers
            key = left[min(place, len(left) - 1)].key if left else None
        else:
            stack.move(layer.key, 1 if name == "raise" else -1)
        return self.shown(token, key) | self.noted()

    def change(self, names: tuple[str, ...], token: str, chosen: Any, *values: Any) -> Updates:
        """Other values for the chosen layer: of those named that differ from what it has."""
        stack = self.place.stack(token)
        key = stack.state.layer(key_of(chosen)).key
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
            key = stack.replace_picture(stack.state.layer(key_of(chosen)).key, image).key
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

    def arrive(self, token: str) -> Updates:
        """What a browser had before its page was loaded."""
        return self.shown(token) | self.suggested(token) | self.noted()

    def suggested(self, token: str) -> Updates:
        """For a stack that nothing was done with yet: size and settings that suit the model, which may have changed."""
        stack, update = self.place.stack(token), self.gradio.update
        if stack.state.layers or stack.can_undo or stack.can_redo:
            return {}
        if (stack.state.width, stack.state.height) != self.place.canvas():
            stack = self.place.new_stack(*self.place.canvas())
            self.place.store.save(token, stack)
        updates = {f"setting_{name}": update(value=value) for name, value in self.place.suggested().items()}
        return updates | {"width": update(value=stack.state.width), "height": update(value=stack.state.height)}

    def paint(self, name: str, token: str, chosen: Any, *values: Any) -> Iterator[Updates]:
        """A layer, a background, or the chosen layer again: progress, then the stack with it."""
        stack = self.place.stack(token)
        prompt, seed, weight = values[:3]
        settings = self.read_settings(values[3:])
        asked = (read_text("prompt", prompt), int(SEED.checked("seed", seed)), WEIGHT.checked("weight", weight))
        request = self.request(name, stack, key_of(chosen), asked)
        run = functools.partial(self.painted, token, stack, settings)
        self.place.works.begin(token, request, run)
        yield from self.follow(token)

    def request(self, name: str, stack: Stack, chosen: int | None, asked: tuple[str, int, float]) -> PaintRequest:
        """What a button asks for."""
        if name == "again":
            return stack.request_again(stack.state.layer(chosen).key, *asked)
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

    def follow(self, token: str) -> Iterator[Updates]:
        """The progress of a painting, from wherever it is, to its end."""
        work = self.place.works.last(token)
        if work is None or work.ended:
            yield self.idle()
            return
        yield self.busy(work.watch) | self.noted()
        for watch in work.follow():
            yield self.busy(watch)
        yield self.idle() | (self.told(work.error) if work.error is not None else self.noted(*work.watch.notes))

    def finish(self, token: str) -> Updates:
        """What came of a painting, once."""
        work = self.place.works.last(token)
        if work is None or work.key is None:
            return {}
        key, work.key = work.key, None
        return self.shown(token, key)

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
        if self.place.works.stop(token) is None:
            return {}
        return {"stop": self.gradio.update(interactive=False, value="Stopping")}


FLOW = ("messages", "progress", *PAINTING, "stop")
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


def known_kind(token: Any) -> str:
    """A token as it was sent; empty, and so refused, for what is no text."""
    return token if isinstance(token, str) else ""
