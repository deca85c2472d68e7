"""The gradio component of each kind of argument; runs on gradio 3.41, 4.40 and newer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .arguments import Argument
from .values import USUAL_FILE

Choices = list[tuple[str, str]]
Common = dict[str, Any]


def build_component(gradio: Any, argument: Argument, common: Common) -> Any:
    """The component of one argument but the method's; `common` are label, visibility and element id."""
    return COMPONENTS[argument.kind](gradio, argument, common)


def build_switch(gradio: Any, argument: Argument, common: Common) -> Any:
    return gradio.Checkbox(argument.default, info=argument.help, **common)


def build_number(gradio: Any, argument: Argument, common: Common) -> Any:
    limits = {"minimum": argument.minimum, "maximum": argument.maximum, "step": argument.step}
    return gradio.Slider(value=argument.default, info=argument.help, **limits, **common)


def build_seed(gradio: Any, argument: Argument, common: Common) -> Any:
    return gradio.Number(argument.default, precision=0, info=argument.help, **common)


def build_choice(gradio: Any, argument: Argument, common: Common) -> Any:
    # Texts only: a WebUI takes a number that comes from a list of choices for the place in that list.
    titles = [argument.title_of(choice) for choice in argument.choices]
    return gradio.Radio(titles, value=argument.title_of(argument.default), info=argument.help, **common)


def build_method(gradio: Any, choices: Choices, value: str, common: Common) -> Any:
    # No Dropdown: that of gradio 3.41 knows no pairs of what is shown and what is sent.
    return gradio.Radio(choices, value=value, **common)


def build_text(gradio: Any, argument: Argument, common: Common) -> Any:
    return gradio.Textbox(argument.default, lines=1, placeholder=argument.help, **common)


def build_file(gradio: Any, argument: Argument, common: Common) -> Any:
    # Texts only, and any: gradio 3.41's Dropdown knows no pairs, and names that settings bring may be of no file here.
    choice = gradio.Dropdown([USUAL_FILE], value=USUAL_FILE, allow_custom_value=True, info=argument.help, **common)
    choice.do_not_save_to_config = True
    return choice


def build_image(gradio: Any, argument: Argument, common: Common) -> Any:
    return gradio.Image(type="pil", image_mode="RGBA", height=240, **image_options(gradio.Image), **common)


COMPONENTS: dict[str, Callable[[Any, Argument, Common], Any]] = {
    "switch": build_switch,
    "number": build_number,
    "seed": build_seed,
    "choice": build_choice,
    "text": build_text,
    "file": build_file,
    "image": build_image,
}


def image_options(image: Any) -> dict[str, Any]:
    """Options that not all gradios have: pictures from files only, and what we put in is shown without loss."""
    parameters = inspect.signature(image.__init__).parameters
    lossless = {"format": "png"} if "format" in parameters else {}
    return upload_only(image) | lossless


def upload_only(image: Any) -> dict[str, Any]:
    """The option of this gradio's Image by which pictures come from files only (no camera)."""
    parameters = inspect.signature(image.__init__).parameters
    options = {"sources": ["upload", "clipboard"], "source": "upload"}
    return next(({name: value} for name, value in options.items() if name in parameters), {})
