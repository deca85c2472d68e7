"""The accordion of every user interface, built from the table of arguments; runs on gradio 3.41, 4.40 and newer.

Nothing here names a method: what is visible follows from the chosen row of the method table.
"""

from __future__ import annotations

import functools
import html
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..core.bases import BASES
from ..core.methods import methods_for
from ..sets.chains import Chain
from .arguments import ARGUMENTS, BY_NAME
from .components import build_component, build_method
from .finding_out import build_finding
from .frames import FRAME_OF_IMAGE
from .layer_import import IMAGES, build_import
from .pasting import PasteKey, key_of_argument, key_of_file, key_of_method, key_of_mode
from .surroundings import QUIET, SINGLE, Surroundings
from .values import USUAL_FILE
from .ways import Way, find_way

AUTOMATIC = ("Automatic", "")
# Arguments that stand side by side; `enabled` is in the header.
MAIN: tuple[tuple[str, ...], ...] = (
    ("method",),
    ("fg_image", "bg_image", "blend_image"),
    ("fg_additional_prompt", "bg_additional_prompt", "blend_additional_prompt"),
    ("fg_seed", "bg_seed", "blend_seed"),
    ("weight",),
    ("passes",),
    ("checkerboard",),
)
ADVANCED_TITLE = "Advanced"
ADVANCED: tuple[tuple[str, ...], ...] = (  # in a fold of its own, closed at first
    ("ending_step",),
    ("resize_mode",),
    ("output_origin",),
    ("method_file", "decoder_file", "encoder_file"),
)
FILES = next(names for names in ADVANCED if "method_file" in names)
REFRESH = "Look for layer files again"
PREFERENCES = ("checkerboard",)  # the user's, whatever is pasted
USE_LAST = "Use last result"


@dataclass
class LayerAccordion:
    """The built components, by argument name in positional order, and the functions that keep them in step."""

    gradio: Any
    place: Surroundings
    mode: Any = None
    note: Any = None
    visitor: Any = None  # a hidden text, which names the page; only where last results are known
    components: dict[str, Any] = field(default_factory=dict)
    lines: list[tuple[Any, tuple[str, ...]]] = field(default_factory=list)

    @property
    def inputs(self) -> list[Any]:
        """The components whose values `parse_positional` takes, in its order."""
        return [self.components[argument.name] for argument in ARGUMENTS]

    @property
    def outputs(self) -> list[Any]:
        """The components that `updates` answers: mode, then all arguments but the header's, then note and lines."""
        return [self.mode, *self.inputs[1:], self.note, *(line for line, _ in self.lines)]

    def updates(self, method: Way, automatic: bool = False) -> list[Any]:
        """Gradio updates of `outputs` that choose a method, or leave it to the checkpoint: choices, values, what shows.

        The choices are the loaded base's, or those of the method's own base where another one is loaded.
        """
        update, base, shown = self.gradio.update, self.base_for(method), self.visible_names(method)
        choices = {
            "choices": self.method_choices(base, method.mode),
            "value": AUTOMATIC[1] if automatic else method.id,
        }
        more = {"method": choices} | self.file_choices(None if automatic else method)
        arguments = [
            update(visible=argument.name in shown, **more.get(argument.name, {})) for argument in ARGUMENTS[1:]
        ]
        note = self.note_html(method)
        lines = [update(visible=bool(shown & set(names))) for _, names in self.lines]
        return [self.mode_update(method, base), *arguments, update(value=note, visible=bool(note)), *lines]

    def file_choices(self, method: Way | None) -> dict[str, dict[str, Any]]:
        """What the drop-downs of layer files offer for a method, or for any of the loaded base's."""
        one = None if isinstance(method, Chain) else method
        offers = {name: self.place.files(name, one) for name in FILES} if self.place.files else {}
        return {name: {"choices": [USUAL_FILE, *names]} for name, names in offers.items()}

    def refresh_files(self, method: str | None) -> list[Any]:
        """Updates of the drop-downs after files may have come."""
        choices = self.file_choices(find_way(method) if method else None)
        return [self.gradio.update(**choices[name]) for name in FILES]

    def mode_update(self, method: Way, base: str | None) -> Any:
        """Update that chooses the method's mode among those of a base; a list of one shows nothing."""
        choices = self.place.modes(base)
        return self.gradio.update(choices=choices, value=method.mode, visible=len(choices) > 1)

    def visible_names(self, method: Way) -> set[str]:
        """Names of the arguments to show for a method of the loaded base; a list of one method shows nothing."""
        names = {argument.name for argument in ARGUMENTS if argument.needed(method)} - set(self.place.hidden)
        names -= set() if self.place.files else set(FILES)
        alone = len(self.place.methods(self.base_for(method), method.mode)) <= 1
        return names - {"method"} if alone else names

    def base_for(self, method: Way) -> str | None:
        """The base whose methods stand beside this one; None while nothing is loaded, which offers those of all."""
        return None if self.place.loaded_base is None else method.base

    def method_choices(self, base: str | None, mode: str | None = None) -> list[tuple[str, str]]:
        """Pairs of what is shown and the id for the methods of a base and a mode; an unknown base is told by the title.

        In a WebUI the automatic one stands before them.
        """
        automatic = [AUTOMATIC] if self.place.in_webui and mode in (None, SINGLE) else []
        return automatic + [
            (row.title if base else f"{BASES[row.base].title}: {row.title}", row.id)
            for row in self.place.methods(base, mode)
        ]

    def note_html(self, method: Way) -> str:
        """What a user of a WebUI should know about the checkpoint and the method; empty for nothing."""
        notes = [self.place.base_note()] if self.place.base_note else []
        frames = ", ".join(method.frames)
        if isinstance(method, Chain):
            notes.append(f"Each result is made in {len(method.steps)} steps: {frames}")
        elif self.place.in_webui and len(method.frames) > 1:
            notes.append(f"Batch size is rounded up to a multiple of {len(method.frames)}: {frames}")
        return "<br>".join(html.escape(note) for note in notes if note)

    def choose_mode(self, mode: str) -> list[Any]:
        """Updates after the mode was changed: its first method for the loaded base."""
        rows = self.place.methods(self.place.loaded_base, mode)
        return self.updates(rows[0], self.place.in_webui and mode == SINGLE) if rows else self.choose_method(None)

    def choose_method(self, method: str | None) -> list[Any]:
        """Updates after the method was changed."""
        return self.updates(self.row_of(method), self.is_automatic(method))

    def refresh(self, method: str | None) -> list[Any]:
        """Updates after another checkpoint may have been loaded: keeps the method where the base has it, or its mode.

        What stays as it was is not sent: the user may have chosen something else before this answer comes.
        """
        kept = self.kept(method)
        updates = self.choose_method(kept)
        return self.without_choice(updates) if kept == (method or None) else updates

    def kept(self, method: str | None) -> str | None:
        """The method where the loaded base has it, else its first one of the same mode; None for no choice."""
        base, row = self.place.loaded_base, find_way(method) if method else None
        if row is None or row in self.place.methods(base):
            return method or None
        return next((other.id for other in self.place.methods(base, row.mode) if row.mode != SINGLE), None)

    def without_choice(self, updates: list[Any]) -> list[Any]:
        """Updates of `outputs` without the values of mode and method."""
        chosen = {id(self.mode), id(self.components["method"])}
        return [
            {key: value for key, value in update.items() if key != "value" or id(component) not in chosen}
            for component, update in zip(self.outputs, updates, strict=True)
        ]

    def watch(self, mode: str, method: str | None) -> list[Any]:
        """Updates after the checkpoint was changed by whomever, then the state that they are for.

        Nothing in the middle of the user's change of the mode; the page's script asks again until the state is right.
        """
        state = self.place.state
        if self.row_of(method).mode != mode:
            return [*self.nothing(), self.gradio.update()]
        return [*self.refresh(method), state]

    def follow(self, mode: str, method: str | None) -> list[Any]:
        """Updates after method and mode were set from elsewhere: choices and what shows, but no values."""
        row = self.row_of(method)
        if row.mode != mode:  # the user's change of the mode, which is being answered
            return self.nothing()
        return self.without_choice(self.updates(row, self.is_automatic(method)))

    def nothing(self) -> list[Any]:
        """Updates of `outputs` that leave all as it is."""
        return [self.gradio.update() for _ in self.outputs]

    def row_of(self, method: str | None) -> Way:
        """The row of a method; of none, the one that the loaded base would choose."""
        return find_way(method) if method else methods_for(self.place.loaded_base, SINGLE)[0]

    def is_automatic(self, method: str | None) -> bool:
        """Whether the method is left to the checkpoint."""
        return self.place.in_webui and not method

    def use_last(self, frame: str, visitor: str) -> list[Any]:
        """Updates of an image and of its button: the visitor's last result of this frame, if there is one."""
        image = self.place.last_result(visitor, frame) if self.place.last_result else None
        update = self.gradio.update
        return [update(), update(value=f"No {frame} yet")] if image is None else [image, update(value=USE_LAST)]

    def infotext_fields(self) -> list[tuple[Any, PasteKey]]:
        """Pairs of component and key, which is also a function of the pasted parameters: what a WebUI restores."""
        plain = [
            row for row in ARGUMENTS if row.kind not in ("image", "method", "file") and row.name not in PREFERENCES
        ]
        pairs = [(self.components[argument.name], key_of_argument(argument)) for argument in plain]
        return [
            (self.mode, key_of_mode(self._paste_mode)),
            (self.components["method"], key_of_method(self._paste_method)),
            *pairs,
            *((self.components[name], key_of_file(BY_NAME[name], self._paste_file)) for name in FILES),
        ]

    @property
    def paste_field_names(self) -> list[str]:
        """Keys of what a WebUI carries over when it sends a picture to another tab."""
        return [str(key) for _, key in self.infotext_fields()]

    def _paste_mode(self, method: Way) -> Any:
        return self.mode_update(method, method.base)

    def _paste_file(self, name: str) -> Any:
        """Whatever a picture was made with stays to be read; what became of it is told when it is used."""
        choices = [USUAL_FILE, name] if name else [USUAL_FILE]
        return self.gradio.update(choices=choices, value=choices[-1])

    def _paste_method(self, method: Way) -> Any:
        return self.gradio.update(choices=self.method_choices(method.base, method.mode), value=method.id)


def build_accordion(gradio: Any = None, **surroundings: Any) -> LayerAccordion:
    """Builds the accordion inside the running `gradio.Blocks`; the keywords are the fields of `Surroundings`."""
    gradio, place = gradio or importlib.import_module("gradio"), Surroundings(**surroundings)
    accordion = LayerAccordion(gradio, place)
    method = accordion.row_of(None)
    with place.header(gradio, place.prefix) as enabled:
        accordion.components["enabled"] = enabled
        build_top(accordion, method)
        for names in MAIN:
            build_line(accordion, names, method)
            if names == IMAGES and place.in_webui:
                build_import(accordion, bool(accordion.visible_names(method) & set(names)), QUIET)
        with gradio.Accordion(ADVANCED_TITLE, open=False, elem_id=f"{place.prefix}_advanced"):
            for names in ADVANCED:
                build_line(accordion, names, method)
            if place.files:
                build_refresh(accordion)
        if place.find_out is not None:
            build_finding(gradio, place.prefix, accordion.visitor, place.find_out)
    connect(accordion)
    return accordion


def build_top(accordion: LayerAccordion, method: Way) -> None:
    """The choice of the mode, and the note beneath it."""
    gradio, place = accordion.gradio, accordion.place
    choices = place.modes(None if place.in_webui else place.loaded_base)
    common = {"label": "Mode", "visible": len(choices) > 1, "elem_id": f"{place.prefix}_mode"}
    accordion.mode = gradio.Radio(choices, value=method.mode, **common)
    accordion.mode.do_not_save_to_config = True
    note = accordion.note_html(method)
    accordion.note = gradio.HTML(note, visible=bool(note), elem_id=f"{place.prefix}_note")
    if place.last_result is not None:  # javascript/layerdiffuse.js writes it
        accordion.visitor = gradio.Textbox("", visible=False, label="Page", elem_id=f"{place.prefix}_visitor")
        accordion.visitor.do_not_save_to_config = True


def build_line(accordion: LayerAccordion, names: tuple[str, ...], method: Way) -> None:
    """Arguments side by side."""
    shown = accordion.visible_names(method)
    element = f"{accordion.place.prefix}_line_{names[0]}"
    with accordion.gradio.Row(visible=bool(shown & set(names)), elem_id=element) as line:
        for name in names:
            with image_column(accordion, name, name in shown):
                accordion.components[name] = build_argument(accordion, name, method)
    accordion.lines.append((line, names))


def build_refresh(accordion: LayerAccordion) -> None:
    """The button that looks for layer files again."""
    button = accordion.gradio.Button(REFRESH, size="sm", elem_id=f"{accordion.place.prefix}_refresh_files")
    button.do_not_save_to_config = True
    files = [accordion.components[name] for name in FILES]
    button.click(accordion.refresh_files, [accordion.components["method"]], files, **QUIET)


def build_argument(accordion: LayerAccordion, name: str, method: Way) -> Any:
    """The component of one argument, visible where the method uses it."""
    argument, place = BY_NAME[name], accordion.place
    visible = name in accordion.visible_names(method)
    common = {"label": argument.label, "visible": visible, "elem_id": f"{place.prefix}_{name}"}
    if argument.kind != "method":
        return build_component(accordion.gradio, argument, common)
    # In a WebUI all methods: it may check a page's choice against what was offered first.
    offered = (None, None) if place.in_webui else (place.loaded_base, method.mode)
    value = AUTOMATIC[1] if place.in_webui else method.id
    choice = build_method(accordion.gradio, accordion.method_choices(*offered), value, common)
    choice.do_not_save_to_config = True
    return choice


@contextmanager
def image_column(accordion: LayerAccordion, name: str, visible: bool) -> Iterator[None]:
    """Around an image where last results are known: a column with a button that fills it from them."""
    if name not in FRAME_OF_IMAGE or accordion.place.last_result is None:
        yield
        return
    gradio, element = accordion.gradio, f"{accordion.place.prefix}_{name}_last"
    with gradio.Column(visible=visible, min_width=160) as column:
        yield
        button = gradio.Button(USE_LAST, size="sm", elem_id=element)
    button.do_not_save_to_config = True
    use_last = functools.partial(accordion.use_last, FRAME_OF_IMAGE[name].name)
    button.click(use_last, [accordion.visitor], [accordion.components[name], button], **QUIET)
    accordion.lines.append((column, (name,)))


def connect(accordion: LayerAccordion) -> None:
    """Ties mode, method and box to what is visible."""
    enabled, method = accordion.components["enabled"], accordion.components["method"]
    # `input` and `select` are the user's own acts: answering `change` would answer our own updates as well.
    accordion.mode.input(accordion.choose_mode, [accordion.mode], accordion.outputs, **QUIET)
    method.input(accordion.choose_method, [method], accordion.outputs, **QUIET)
    ticked = enabled.change(lambda _, method: accordion.refresh(method), [enabled, method], accordion.outputs, **QUIET)
    ticked.then(accordion.follow, [accordion.mode, method], accordion.outputs, **QUIET)
    if accordion.place.in_webui:
        connect_page(accordion, [accordion.mode, method])


def connect_page(accordion: LayerAccordion, chosen: list[Any]) -> None:
    """Ties what a WebUI does by itself: pasted settings, those of another tab, and another checkpoint."""
    chosen[1].change(accordion.follow, chosen, accordion.outputs, **QUIET)
    gradio, prefix = accordion.gradio, accordion.place.prefix
    refresh = gradio.Button(
        "Refresh", visible=False, elem_id=f"{prefix}_refresh"
    )  # javascript/layerdiffuse.js presses it
    state = gradio.Textbox("", visible=False, label="State", elem_id=f"{prefix}_state")  # and reads this
    refresh.do_not_save_to_config = state.do_not_save_to_config = True
    watched = refresh.click(accordion.watch, chosen, [*accordion.outputs, state], **QUIET)
    # Answers may overtake each other: what shows is once more that of the choice as it stands.
    watched.then(accordion.follow, chosen, accordion.outputs, **QUIET)
