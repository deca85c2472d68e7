"""The accordion of every user interface, built from the table of arguments; runs on gradio 3.41, 4.40 and newer.

Nothing here names a method: what is visible follows from the chosen row of the method table.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from lib_layerdiffuse.core.methods import BASES, MODES, Method, find_method, methods_for
from lib_layerdiffuse.webui.arguments import ARGUMENTS, BY_NAME, INFOTEXT_PREFIX, Argument, from_infotext

TITLE = "Transparent picture (LayerDiffuse)"
# Arguments that stand side by side; `enabled` is in the header.
LAYOUT: tuple[tuple[str, ...], ...] = (
    ("method",),
    ("fg_image", "bg_image", "blend_image"),
    ("resize_mode",),
    ("fg_additional_prompt", "bg_additional_prompt", "blend_additional_prompt"),
    ("weight", "ending_step"),
    ("passes",),
    ("checkerboard", "output_origin"),
)

# No progress overlay, and no place in the queue of generations.
QUIET = {"show_progress": "hidden", "queue": False}
Header = Callable[[Any, str], AbstractContextManager[Any]]
Base = str | None | Callable[[], str | None]


@dataclass
class LayerAccordion:
    """The built components, by argument name in positional order, and the functions that keep them in step."""

    gradio: Any
    base: Base
    mode: Any = None
    hidden: frozenset[str] = frozenset()
    components: dict[str, Any] = field(default_factory=dict)
    lines: list[tuple[Any, tuple[str, ...]]] = field(default_factory=list)

    @property
    def inputs(self) -> list[Any]:
        """The components whose values `parse_positional` takes, in its order."""
        return [self.components[argument.name] for argument in ARGUMENTS]

    @property
    def outputs(self) -> list[Any]:
        """The components that `updates` answers: mode, then all arguments but the header's, then the lines."""
        return [self.mode, *self.inputs[1:], *(line for line, _ in self.lines)]

    @property
    def loaded_base(self) -> str | None:
        """The base model that is loaded now; None when it is not known, which offers all methods."""
        return self.base() if callable(self.base) else self.base

    def updates(self, method: Method) -> list[Any]:
        """Gradio updates of `outputs` that choose a method: choices, values and what is visible."""
        update = self.gradio.update
        shown = self.visible_names(method)
        choices = {"choices": method_choices(self.loaded_base, method.mode), "value": method.id}
        arguments = [
            update(visible=argument.name in shown, **(choices if argument.name == "method" else {}))
            for argument in ARGUMENTS[1:]
        ]
        lines = [update(visible=bool(shown & set(names))) for _, names in self.lines]
        return [update(choices=mode_choices(self.loaded_base), value=method.mode), *arguments, *lines]

    def visible_names(self, method: Method) -> set[str]:
        """Names of the arguments to show for a method of the loaded base; a list of one method shows nothing."""
        names = {argument.name for argument in ARGUMENTS if argument.needed(method)} - self.hidden
        alone = len(methods_for(self.loaded_base, method.mode)) < 2
        return names - {"method"} if alone else names

    def choose_mode(self, mode: str) -> list[Any]:
        """Updates after the mode was changed: its first method for the loaded base."""
        return self.updates(methods_for(self.loaded_base, mode)[0])

    def choose_method(self, method: str) -> list[Any]:
        """Updates after the method was changed."""
        return self.updates(find_method(method))

    def refresh(self, method: str | None) -> list[Any]:
        """Updates after another checkpoint may have been loaded: keeps the method where the base has it."""
        rows = methods_for(self.loaded_base)
        current = find_method(method) if method else rows[0]
        return self.updates(current if current in rows else rows[0])

    def infotext_fields(self) -> list[tuple[Any, Any]]:
        """Pairs of component and key, or function of the pasted parameters, by which a WebUI restores settings."""
        plain = [argument for argument in ARGUMENTS if argument.kind not in ("image", "method")]
        pairs = [(self.components[argument.name], argument.infotext_key) for argument in plain]
        return [(self.mode, self._pasted_mode), (self.components["method"], self._pasted_method), *pairs]

    def _pasted_mode(self, parameters: dict[str, Any]) -> Any:
        method = method_in(parameters)
        return None if method is None else self.gradio.update(choices=mode_choices(method.base), value=method.mode)

    def _pasted_method(self, parameters: dict[str, Any]) -> Any:
        method = method_in(parameters)
        return (
            None
            if method is None
            else self.gradio.update(choices=method_choices(method.base, method.mode), value=method.id)
        )


def method_choices(base: str | None, mode: str | None = None) -> list[tuple[str, str]]:
    """Pairs of what is shown and the id for the methods of a base and a mode; an unknown base is told by the title."""
    methods = methods_for(base, mode)
    return [(method.title if base else f"{BASES[method.base].title}: {method.title}", method.id) for method in methods]


def mode_choices(base: str | None) -> list[tuple[str, str]]:
    """Pairs of what is shown and the id for the modes that a base has methods for."""
    return [(title, mode) for mode, title in MODES.items() if methods_for(base, mode)]


def method_in(parameters: dict[str, Any]) -> Method | None:
    """The method that pasted generation parameters name, if any."""
    return from_infotext(
        {key: parameters[key] for key in (INFOTEXT_PREFIX + "method",) if key in parameters}
    ).method_row


@contextmanager
def checkbox_header(gradio: Any, prefix: str) -> Iterator[Any]:
    """A ticked box that opens the body beneath it: for interfaces that bring no accordion with a box of their own."""
    argument = BY_NAME["enabled"]
    with gradio.Column(elem_id=f"{prefix}_accordion"):
        enabled = gradio.Checkbox(argument.default, label=TITLE, info=argument.help, elem_id=f"{prefix}_enabled")
        with gradio.Column(visible=bool(argument.default), elem_id=f"{prefix}_body") as body:
            yield enabled
    enabled.change(lambda ticked: gradio.update(visible=bool(ticked)), [enabled], [body], **QUIET)


def build_accordion(
    gradio: Any = None,
    *,
    base: Base = None,
    header: Header = checkbox_header,
    prefix: str = "layerdiffuse",
    hidden: tuple[str, ...] = (),
) -> LayerAccordion:
    """Builds the accordion inside the running `gradio.Blocks`.

    `base` is the loaded base model or a function that tells it; `header(gradio, prefix)` is a context manager that
    yields the enable box; `prefix` begins every element's id; `hidden` are arguments that this interface never shows.
    """
    gradio = gradio or importlib.import_module("gradio")
    accordion = LayerAccordion(gradio, base, hidden=frozenset(hidden))
    method = methods_for(accordion.loaded_base)[0]
    shown = accordion.visible_names(method)
    with header(gradio, prefix) as enabled:
        accordion.mode = gradio.Radio(
            mode_choices(accordion.loaded_base), value=method.mode, label="Mode", elem_id=f"{prefix}_mode"
        )
        built = {"enabled": enabled}
        for names in LAYOUT:
            with gradio.Row(visible=bool(shown & set(names)), elem_id=f"{prefix}_line_{names[0]}") as line:
                for name in names:
                    built[name] = build_component(accordion, BY_NAME[name], method, f"{prefix}_{name}")
            accordion.lines.append((line, names))
    accordion.components = {argument.name: built[argument.name] for argument in ARGUMENTS}
    connect(accordion)
    return accordion


def connect(accordion: LayerAccordion) -> None:
    """Ties mode, method and box to what is visible."""
    components = accordion.components
    # `input` and `select` are the user's own acts: answering `change` would answer our own updates as well.
    accordion.mode.input(accordion.choose_mode, [accordion.mode], accordion.outputs, **QUIET)
    components["method"].input(accordion.choose_method, [components["method"]], accordion.outputs, **QUIET)
    components["enabled"].change(
        lambda enabled, method: accordion.refresh(method),
        [components["enabled"], components["method"]],
        accordion.outputs,
        **QUIET,
    )


def build_component(accordion: LayerAccordion, argument: Argument, method: Method, element: str) -> Any:
    """The gradio component of one argument, visible where the method uses it."""
    visible = argument.name in accordion.visible_names(method)
    common = {"label": argument.label, "visible": visible, "elem_id": element}
    return COMPONENTS[argument.kind](accordion, argument, method, common)


def build_switch(accordion: LayerAccordion, argument: Argument, method: Method, common: dict[str, Any]) -> Any:
    return accordion.gradio.Checkbox(argument.default, info=argument.help, **common)


def build_number(accordion: LayerAccordion, argument: Argument, method: Method, common: dict[str, Any]) -> Any:
    limits = {"minimum": argument.minimum, "maximum": argument.maximum, "step": argument.step}
    return accordion.gradio.Slider(value=argument.default, info=argument.help, **limits, **common)


def build_choice(accordion: LayerAccordion, argument: Argument, method: Method, common: dict[str, Any]) -> Any:
    return accordion.gradio.Radio(list(argument.choices), value=argument.default, info=argument.help, **common)


def build_method(accordion: LayerAccordion, argument: Argument, method: Method, common: dict[str, Any]) -> Any:
    choices = method_choices(accordion.loaded_base, method.mode)
    return accordion.gradio.Dropdown(choices, value=method.id, **common)


def build_text(accordion: LayerAccordion, argument: Argument, method: Method, common: dict[str, Any]) -> Any:
    return accordion.gradio.Textbox(argument.default, lines=1, placeholder=argument.help, **common)


def build_image(accordion: LayerAccordion, argument: Argument, method: Method, common: dict[str, Any]) -> Any:
    image = accordion.gradio.Image
    return image(type="pil", image_mode="RGBA", height=240, **upload_only(image), **common)


COMPONENTS: dict[str, Callable[[LayerAccordion, Argument, Method, dict[str, Any]], Any]] = {
    "switch": build_switch,
    "number": build_number,
    "choice": build_choice,
    "method": build_method,
    "text": build_text,
    "image": build_image,
}


def upload_only(image: Any) -> dict[str, Any]:
    """The option of this gradio's Image by which pictures come from files only (no camera)."""
    parameters = inspect.signature(image.__init__).parameters
    options = {"sources": ["upload", "clipboard"], "source": "upload"}
    return next(({name: value} for name, value in options.items() if name in parameters), {})
