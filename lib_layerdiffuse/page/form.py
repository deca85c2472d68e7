"""From the raw values of the page's form, whatever they may be, to the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.methods import choose_method
from ..core.picture.resize_modes import ResizeMode
from ..form.arguments import ARGUMENTS, LayerArguments, parse_mapping, visible_arguments
from ..form.frames import IMAGE_SETTINGS, PROMPT_SETTINGS, SEED_SETTINGS
from ..form.ranges import Range, encodable, shown
from ..form.ways import find_way
from ..standalone.settings import MAX_SEED, SIZE_MIN, GenerateSettings
from .uploads import opened

# Names that the accordion's arguments have among the settings of a run.
SETTING_OF = {
    "weight": "weight",
    "ending_step": "stop_at",
    "passes": "passes",
    **IMAGE_SETTINGS,
    **PROMPT_SETTINGS,
    **SEED_SETTINGS,
}
# What the page's fields take: less than the program, because everybody shares one model.
LIMITS = {
    "count": Range(1, 16, whole=True),
    "seed": Range(-1, MAX_SEED, whole=True),
    "steps": Range(1, 100, whole=True),
    "guidance": Range(0, 15),
    "width": Range(SIZE_MIN, 2048, whole=True),
    "height": Range(SIZE_MIN, 2048, whole=True),
    "denoise": Range(0, 1),
    "control_strength": Range(0, 2),
}
TEXTS = ("prompt", "negative_prompt")
SWITCHES, PICTURES = ("clear_haze", "draw_lines"), ("init", "control_image")
CONTROL = ("control_image", "control_strength", "draw_lines")
TEXT_LENGTH = 2000  # a model reads the first 77 tokens


@dataclass(frozen=True)
class Form:
    """What stands in the page's form: ordinary settings by name, and the accordion's arguments."""

    settings: dict[str, Any]
    layers: LayerArguments

    @classmethod
    def parse(cls, names: list[str], values: tuple[Any, ...], base: str) -> Form:
        """The form from the components' raw values: first those of `names`, then the accordion's by position.

        InputError names the field that cannot be used; only pictures that the run needs are opened.
        """
        settings = dict(zip(names, values, strict=False))
        for names_of_kind, read in ((TEXTS, text), (LIMITS, number), (SWITCHES, switch), (PICTURES, opened)):
            settings |= {name: read(name, settings[name]) for name in names_of_kind}
        return cls(settings, parse_layers(values[len(names) :], base))

    def generate_settings(self, base: str, controlnet: Path | None = None) -> GenerateSettings:
        """Settings of a run on the loaded base; InputError where an image or a prompt is missing."""
        ordinary = {name: value for name, value in self.settings.items() if name not in CONTROL}
        if self.settings["control_image"] is not None:
            ordinary = {**self.settings, "controlnet": controlnet}
        if not self.layers.enabled:
            return GenerateSettings(**ordinary, transparent=False)
        layers = self.layers.with_method_for(base)
        layers.check()
        chosen = {setting: getattr(layers, name) for name, setting in SETTING_OF.items()}
        return GenerateSettings(
            **ordinary,
            **chosen,
            method=layers.method,
            mode=find_way(layers.method).mode,
            resize_mode=ResizeMode.named(layers.resize_mode).key,
        )


def parse_layers(values: tuple[Any, ...], base: str) -> LayerArguments:
    """The accordion's arguments from its components' raw values, without those that the method has no use for."""
    raw = {argument.name: value for argument, value in zip(ARGUMENTS, values, strict=False)}
    chosen = parse_mapping({name: raw[name] for name in ("enabled", "method") if name in raw})
    if not chosen.enabled:
        return chosen
    used = visible_arguments(chosen.method_row or choose_method(base))
    readers = {"image": opened, "text": text}
    parsed = {
        argument.name: readers.get(argument.kind, as_it_is)(argument.name, raw[argument.name])
        for argument in used
        if argument.name in raw
    }
    return parse_mapping(parsed)


def as_it_is(name: str, value: Any) -> Any:
    """The value: the table of arguments checks it."""
    return value


def number(name: str, value: Any) -> float:
    """A field's number within its limits, int where only whole ones are allowed; InputError for anything else."""
    if value is None:
        raise InputError(f"{name} that is empty", str(LIMITS[name]), f"fill in {name}")
    return LIMITS[name].checked(name, value)


def switch(name: str, value: Any) -> bool:
    """A box's state; InputError for anything else."""
    if not isinstance(value, bool):
        raise InputError(f"{name} {shown(value)}", "true or false", f"tick {name} or not")
    return value


def text(name: str, value: Any) -> str:
    """A field's text, without what no file can hold; InputError for what is none, or too long."""
    if value is None:  # as an untouched field is sent
        return ""
    if not isinstance(value, str):
        raise InputError(f"{name} {shown(value)}", "a text", f"fill in {name}")
    if len(value) > TEXT_LENGTH:
        raise InputError(
            f"{name} of {len(value)} characters",
            f"at most {TEXT_LENGTH}",
            "say it shorter: a model reads about 60 words",
        )
    return encodable(value).replace("\0", "")
