"""From the values of the page's form to the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.settings import GenerateSettings
from lib_layerdiffuse.webui.arguments import LayerArguments, parse_positional

# Names that the accordion's arguments have among the settings of a run.
SETTING_OF = {
    "weight": "weight",
    "ending_step": "stop_at",
    "passes": "passes",
    "fg_image": "foreground",
    "bg_image": "background",
    "blend_image": "blended",
    "fg_additional_prompt": "foreground_prompt",
    "bg_additional_prompt": "background_prompt",
    "blend_additional_prompt": "blended_prompt",
}
WHOLE_NUMBERS = ("count", "seed", "steps", "width", "height")


@dataclass(frozen=True)
class Form:
    """What stands in the page's form: ordinary settings by name, and the accordion's arguments."""

    settings: dict[str, Any]
    layers: LayerArguments

    @classmethod
    def parse(cls, names: list[str], values: tuple[Any, ...]) -> Form:
        """The form from the components' values: first those of `names`, then the accordion's in positional order."""
        settings = dict(zip(names, values, strict=False))
        for name in WHOLE_NUMBERS:
            settings[name] = whole_number(name, settings[name])
        return cls(settings, parse_positional(values[len(names) :]))

    def generate_settings(self, base: str) -> GenerateSettings:
        """Settings of a run on the loaded base; InputError where an image or a prompt is missing."""
        if not self.layers.enabled:
            return GenerateSettings(**self.settings, transparent=False)
        layers = self.layers.with_method_for(base)
        layers.check()
        chosen = {setting: getattr(layers, name) for name, setting in SETTING_OF.items()}
        return GenerateSettings(
            **self.settings,
            **chosen,
            method=layers.method,
            mode=layers.method_row.mode,
            resize_mode=hyphened(layers.resize_mode),
        )


def hyphened(label: str) -> str:
    """A label as the settings write it: "Crop and Resize" is crop-and-resize."""
    return "-".join(label.casefold().split())


def whole_number(name: str, value: Any) -> int:
    """int of a number field's value; InputError for an empty or broken one."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number != number or not number.is_integer():
        raise InputError(f"{name} {value!r}", "a whole number", f"fill in {name}")
    return int(number)
