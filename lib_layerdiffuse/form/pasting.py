"""How a WebUI restores the accordion from a picture's generation parameters, and carries it over to another tab."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .arguments import BY_NAME, INFOTEXT_PREFIX, Argument, from_infotext
from .ways import Way

Parameters = Mapping[str, Any]
METHOD_KEY, ENABLED_KEY = BY_NAME["method"].infotext_key, BY_NAME["enabled"].infotext_key
MODE_KEY = f"{INFOTEXT_PREFIX}mode"  # never in an infotext: it names the component for other tabs
WHOLE = "Steps"  # in all generation parameters, but not in a lone prompt


class PasteKey(str):
    """A key of generation parameters that is also the function of them that gives a component's value or update.

    WebUIs take a function or a text: they call the one when they paste, and look for the other between tabs.
    """

    read: Callable[[Parameters], Any]

    def __new__(cls, key: str, read: Callable[[Parameters], Any]) -> PasteKey:
        """The key with its function."""
        made = super().__new__(cls, key)
        made.read = read
        return made

    def __call__(self, parameters: Parameters) -> Any:
        """Value or update from the parameters; None leaves the component as it is."""
        return self.read(parameters)


def is_ours(parameters: Parameters) -> bool:
    """Whether a picture was made with LayerDiffuse, by this or an older extension."""
    return METHOD_KEY in parameters or ENABLED_KEY in parameters


def method_in(parameters: Parameters) -> Way | None:
    """The method that generation parameters name, if any."""
    return from_infotext({key: parameters[key] for key in (METHOD_KEY,) if key in parameters}).method_row


def key_of_argument(argument: Argument) -> PasteKey:
    """The key of an argument; what our infotexts leave out has its default."""

    def read(parameters: Parameters) -> Any:
        if not is_ours(parameters):
            return None
        value = argument.parse(parameters.get(argument.infotext_key, argument.default))
        return argument.title_of(value) if argument.kind == "choice" else value

    return PasteKey(argument.infotext_key, read_enabled if argument.name == "enabled" else read)


def key_of_file(argument: Argument, update: Callable[[str], Any]) -> PasteKey:
    """The key of the choice of a layer file; empty, for the usual one, where our infotext names none."""

    def read(parameters: Parameters) -> Any:
        return update(argument.parse(parameters.get(argument.infotext_key))) if is_ours(parameters) else None

    return PasteKey(argument.infotext_key, read)


def read_enabled(parameters: Parameters) -> bool | None:
    """On for a picture of ours, off for another one, and as it is for a lone prompt."""
    if is_ours(parameters):
        return BY_NAME["enabled"].parse(parameters.get(ENABLED_KEY, True))
    return False if WHOLE in parameters else None


def key_of_mode(update: Callable[[Way], Any]) -> PasteKey:
    """The key of the choice of a mode, which follows from the method."""
    return PasteKey(MODE_KEY, _of_method(update))


def key_of_method(update: Callable[[Way], Any]) -> PasteKey:
    """The key of the choice of a method."""
    return PasteKey(METHOD_KEY, _of_method(update))


def _of_method(update: Callable[[Way], Any]) -> Callable[[Parameters], Any]:
    def read(parameters: Parameters) -> Any:
        method = method_in(parameters)
        return None if method is None else update(method)

    return read
