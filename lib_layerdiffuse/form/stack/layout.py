"""The components of the Layers tab by name; runs on gradio 3.41, 4.40 and newer."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from ...sets.formats import FORMATS
from ...sets.stack import WEIGHTS
from ..components import image_options
from .looks import CSS, PREFIX
from .place import Setting

PROJECT = "Project, to go on with here"
HIDDEN = "ld-layers-hidden"
FILE_TYPES = [".zip", ".psd", ".ora"]
USUAL_SCALES = (0.05, 3.0)  # of a slider: others can be had by files
TOOLS = {"raise": "Up", "lower": "Down", "duplicate": "Duplicate", "delete": "Delete"}
HISTORY = {"undo": "Undo", "redo": "Redo"}
EMPTY = "No layers yet: paint a background first, then things upon it."


def is_modern(gradio: Any) -> bool:
    """Whether this is gradio 4 or newer."""
    return int(gradio.__version__.split(".")[0]) >= 4


@dataclass
class StackLayout:
    """What a Layers tab shows: built inside the running Blocks."""

    gradio: Any
    canvas: tuple[int, int]
    settings: tuple[Setting, ...]
    destinations: dict[str, str] = field(default_factory=dict)  # other tabs that take the composite, and what says so
    parts: dict[str, Any] = field(default_factory=dict)
    setting_parts: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.parts[name]

    def add(self, name: str, kind: str, *values: Any, **options: Any) -> Any:
        """A component of gradio's by the name of its class."""
        part = getattr(self.gradio, kind)(*values, elem_id=f"{PREFIX}_{name}", **options)
        self.parts[name] = part
        part.do_not_save_to_config = True  # a WebUI would take over values of an earlier day
        return part

    def build(self) -> StackLayout:
        """All of it, in the order of the keyboard."""
        gradio = self.gradio
        with gradio.Column(elem_id=PREFIX):
            with gradio.Column(elem_classes=[HIDDEN]):
                self.add("token", "Textbox", "", label="Browser")
                self.add("arrive", "Button", "Arrive")
            self.add("style", "HTML", f"<style>{CSS}</style>")
            with gradio.Row():
                with gradio.Column(scale=6, min_width=320):
                    self.build_view()
                    self.build_list()
                with gradio.Column(scale=5, min_width=320):
                    self.build_asking()
                    self.build_chosen()
                    self.build_settings()
                    self.build_files()
        return self

    def build_view(self) -> None:
        """Messages, progress, the composite, and what can be done with the whole."""
        self.add("messages", "HTML", "", visible=False)
        self.add("progress", "HTML", "", visible=False)
        options = shown_only(self.gradio.Image)
        shown = {"label": "All layers", "show_label": False, "interactive": False, **options}
        self.add("composite", "Image", type="pil", image_mode="RGBA", **shown)
        with self.gradio.Row(elem_id=f"{PREFIX}_history"):
            for name, label in HISTORY.items():
                self.add(name, "Button", label, interactive=False, min_width=80, size="sm")
            for name, label in self.destinations.items():
                self.add(f"to_{name}", "Button", label, min_width=80, size="sm")

    def build_asking(self) -> None:
        """What to paint next."""
        gradio = self.gradio
        with gradio.Column(elem_id=f"{PREFIX}_asking"):
            text = {"lines": 2, "max_lines": 4, "placeholder": "for example: a red apple"}
            self.add("prompt", "Textbox", "", label="What to paint", **text)
            with gradio.Row():
                self.add_seed("seed")
                self.add_weight("weight")
            with gradio.Row():
                self.add("paint_layer", "Button", "Paint a layer", variant="primary", min_width=120)
                self.add("paint_background", "Button", "Paint a background", min_width=120)
                self.add("stop", "Button", "Stop", variant="stop", interactive=False, min_width=70)
            with gradio.Accordion("From a picture", open=False, elem_id=f"{PREFIX}_given"):
                self.build_given()

    def build_given(self) -> None:
        """A picture of one's own."""
        options = image_options(self.gradio.Image)
        self.add("picture", "Image", type="pil", image_mode="RGBA", height=200, label="Picture", **options)
        with self.gradio.Row():
            self.add("add_picture", "Button", "Add as a layer", min_width=100, size="sm")
            self.add("set_background", "Button", "Use as background", min_width=100, size="sm")
            self.add("replace", "Button", "Replace the chosen layer", min_width=100, size="sm")

    def build_list(self) -> None:
        """The layers, top first, and what can be done with the chosen one."""
        self.add("list", "Radio", [], label="Layers, the top one first")
        self.add("empty", "HTML", f"<p>{EMPTY}</p>")
        with self.gradio.Row(elem_id=f"{PREFIX}_tools"):
            for name, label in TOOLS.items():
                self.add(name, "Button", label, min_width=70, size="sm")

    def build_chosen(self) -> None:
        """Place, looks and words of the chosen layer."""
        gradio, (width, height) = self.gradio, self.canvas
        with gradio.Accordion("The chosen layer", open=True, elem_id=f"{PREFIX}_chosen"):
            with gradio.Row():
                self.add("name", "Textbox", "", label="Name", max_lines=1)
                self.add("visible", "Checkbox", True, label="Visible")
            with gradio.Row():
                self.add("scale", "Slider", *USUAL_SCALES, 1.0, step=0.01, label="Scale")
                self.add("opacity", "Slider", 0.0, 1.0, 1.0, step=0.01, label="Opacity")
            with gradio.Row():
                self.add("right", "Slider", -width, width, 0, step=1, label="Shift right")
                self.add("down", "Slider", -height, height, 0, step=1, label="Shift down")
            self.add("apply", "Button", "Apply")
            self.add("again_prompt", "Textbox", "", label="Painted from", lines=1, max_lines=3)
            with gradio.Row():
                self.add_seed("again_seed")
                self.add_weight("again_weight")
            self.add("again", "Button", "Paint this layer again")

    def add_seed(self, name: str) -> None:
        """A field for a seed."""
        self.add(name, "Number", -1, precision=0, label="Seed (-1: random)")

    def add_weight(self, name: str) -> None:
        """A field for a method's weight."""
        self.add(name, "Slider", *WEIGHTS, 1.0, step=0.05, label="Weight")

    def build_settings(self) -> None:
        """How to paint, in a list that opens."""
        with self.gradio.Accordion("How to paint", open=False, elem_id=f"{PREFIX}_settings"):
            for setting in self.settings:
                name = f"setting_{setting.name}"
                kind, values, options = component_of(setting)
                self.setting_parts[setting.name] = self.add(name, kind, *values, label=setting.label, **options)

    def build_files(self) -> None:
        """New stacks, and files."""
        gradio, (width, height) = self.gradio, self.canvas
        with gradio.Accordion("Files", open=False, elem_id=f"{PREFIX}_files"):
            titles = [PROJECT, *(row.title for row in FORMATS.values())]
            self.add("format", "Radio", titles, value=PROJECT, label="Save as")
            self.add("save", "Button", "Save")
            self.add("download", "File", label="Saved", interactive=False, visible=False)
            self.add("load", "UploadButton", "Open a project, PSD, ORA or ZIP", file_types=FILE_TYPES)
            with gradio.Row():
                self.add("width", "Number", width, precision=0, label="Width")
                self.add("height", "Number", height, precision=0, label="Height")
                self.add("new", "Button", "New, empty")


def shown_only(image: Any) -> dict[str, Any]:
    """Options of a picture that is only looked at, by what this gradio's Image knows."""
    known = inspect.signature(image.__init__).parameters
    wanted = {"format": "png", "buttons": ["download", "fullscreen"], "show_share_button": False}
    return {name: value for name, value in wanted.items() if name in known}


def component_of(setting: Setting) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """The class, the first values and the options of a setting's component."""
    if setting.range is not None:
        return "Slider", (setting.range.low, setting.range.high, setting.default), {"step": setting.step}
    if setting.choices:
        return "Dropdown", (list(setting.choices),), {"value": setting.default}
    return "Textbox", (setting.default,), {}
