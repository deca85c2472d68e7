"""Where everything stands on the page: components by name, no behaviour but clicks that fill in the form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio

from ..form.accordion import LayerAccordion, build_accordion
from ..form.arguments import ARGUMENTS, BY_NAME
from ..form.surroundings import TITLE
from ..standalone.settings import MAX_SEED
from . import style
from .form import LIMITS, TEXT_LENGTH
from .layer_files import CHOICES
from .model import PageModel

# The opaque picture beside the transparent one is something that only the WebUIs offer.
HIDDEN_ARGUMENTS = ("output_origin",)


@contextmanager
def ticked_header(gradio: Any, prefix: str) -> Iterator[Any]:
    """The box that opens the accordion's body; ticked at first, because transparency is what this page is for."""
    with gradio.Column(elem_id=f"{prefix}_accordion"):
        enabled = gradio.Checkbox(True, label=TITLE, info=BY_NAME["enabled"].help, elem_id=f"{prefix}_enabled")
        with gradio.Column(elem_id=f"{prefix}_body") as body:
            yield enabled
    quiet = {"show_progress": "hidden", "queue": False}
    enabled.change(lambda ticked: gradio.update(visible=bool(ticked)), [enabled], [body], **quiet)


@dataclass
class Layout:
    """The components of one page: the form by the names of settings, buttons, results, and the accordion."""

    model: PageModel
    form: dict[str, Any] = field(default_factory=dict)
    buttons: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    accordion: LayerAccordion = field(init=False)
    token: Any = None

    def build(self) -> None:
        """Builds everything inside the running Blocks: in the order of the keyboard, placed by the style sheet."""
        self.token = gradio.Textbox("", visible=False, label="Tab")
        with gradio.Row(equal_height=False, elem_id="page_columns"):
            with gradio.Column(min_width=0, elem_id="page_ask"):
                self.build_prompt()
            with gradio.Column(min_width=0, elem_id="page_choose"):
                place = {"base": self.model.base, "hidden": HIDDEN_ARGUMENTS, "header": ticked_header, "chains": True}
                place["offers"] = self.model.pipeline.files.offers
                self.accordion = build_accordion(gradio, **place)
                self.build_main_settings()
                self.build_more_settings()
                self.build_control()
            if self.model.captions:
                with gradio.Column(min_width=0, elem_id="page_try"):
                    self.build_words(self.model.captions)
            with gradio.Column(min_width=0, elem_id="page_results"):
                self.build_results()

    @property
    def inputs(self) -> list[Any]:
        """All components of the form: settings by name, then the accordion's in positional order."""
        return [*self.form.values(), *self.accordion.inputs]

    @property
    def pictures(self) -> dict[str, Any]:
        """The fields that take pictures, by name."""
        layers = {row.name: self.accordion.components[row.name] for row in ARGUMENTS if row.kind == "image"}
        return {name: self.form[name] for name in ("init", "control_image")} | layers

    @property
    def remembered(self) -> list[Any]:
        """The components that are put back when a tab is loaded again: form and accordion."""
        return [*self.form.values(), self.accordion.components["enabled"], *self.accordion.outputs]

    def build_prompt(self) -> None:
        """Prompt and buttons."""
        captions = self.model.captions
        example = captions[0] if captions else "a glass of water"
        self.form["prompt"] = gradio.Textbox(
            label="Prompt",
            placeholder=f"for example: {example}",
            lines=2,
            max_length=TEXT_LENGTH,
            autofocus=True,
            elem_id="page_prompt",
        )
        self.results["hints"] = gradio.HTML("", elem_id="page_hints", visible=False, padding=False)
        with gradio.Row(elem_id="page_buttons"):
            self.buttons["generate"] = gradio.Button("Generate", variant="primary", elem_id="page_generate", scale=3)
            self.buttons["stop"] = gradio.Button(
                "Stop", variant="stop", elem_id="page_stop", interactive=False, scale=1, min_width=90
            )

    def build_words(self, captions: list[str]) -> None:
        """Clickable examples, and all words of the demo model in a list that opens."""
        for number, (title, names) in enumerate(self.model.examples.items()):
            element = f"page_examples_{number}" if number else "page_examples"
            self.build_word_list(f"Click to try: {title}" if self.model.scenes else "Click to try", names, element)
        with gradio.Accordion(f"All {len(captions)} names that the model knows", open=False, elem_id="page_words"):
            for number, (group, words) in enumerate(self.model.words.items()):
                self.build_word_list(group.capitalize(), words, f"page_words_{number}")

    def build_word_list(self, label: str, words: list[str], element: str) -> None:
        """A list of words; a click writes one into the prompt."""
        samples = [[word] for word in words]
        data = gradio.Dataset(
            components=[self.form["prompt"]],
            samples=samples,
            label=label,
            samples_per_page=len(samples),
            type="values",
            elem_id=element,
        )
        data.click(first_of, [data], [self.form["prompt"]], queue=False, show_progress="hidden")

    def build_main_settings(self) -> None:
        """Number of pictures and seed."""
        with gradio.Row():
            self.build_slider("count", 4, "Pictures")
            self.form["seed"] = gradio.Number(
                -1, precision=0, minimum=-1, maximum=MAX_SEED, label="Seed (-1: random)", elem_id="page_seed"
            )

    def build_slider(self, name: str, value: float, label: str, step: float = 1, info: str | None = None) -> None:
        """A slider between the limits of a field."""
        rule = LIMITS[name]
        self.form[name] = gradio.Slider(
            rule.low, rule.high, value, step=step, label=label, info=info, elem_id=f"page_{name}"
        )

    def build_more_settings(self) -> None:
        """The rest of the ordinary settings and the picture to start from, in a list that opens."""
        defaults, form = self.model.defaults, self.form
        with gradio.Accordion("More settings", open=False, elem_id="page_more"):
            with gradio.Row():
                self.build_slider("steps", defaults.steps, "Steps")
                self.build_slider("guidance", defaults.guidance, "Guidance", 0.1)
            with gradio.Row():
                for name in ("width", "height"):
                    self.build_slider(name, defaults.size, name.capitalize(), 8, f"The model learned {defaults.size}.")
            form["clear_haze"] = gradio.Checkbox(
                True,
                label="Clear haze",
                info="Almost invisible pixels become invisible, almost solid ones solid; soft gradients stay.",
                elem_id="page_clear_haze",
            )
            form["negative_prompt"] = gradio.Textbox(
                label="Negative prompt", max_length=TEXT_LENGTH, elem_id="page_negative_prompt"
            )
            form["init"] = gradio.Image(
                type="pil", image_mode="RGBA", sources=["upload"], height=200, label="Start from a picture (optional)",
                elem_id="page_init",
            )  # fmt: skip
            self.build_slider("denoise", 0.75, "How much to change it", 0.01)

    def build_control(self) -> None:
        """A picture whose lines are followed, in a list that opens; hidden where the model has no ControlNet."""
        has_one = self.model.controlnet is not None
        with gradio.Accordion("Advanced: a ControlNet", open=False, visible=has_one, elem_id="page_control"):
            self.form["control_image"] = gradio.Image(
                type="pil", image_mode="RGBA", sources=["upload"], height=200, label="A picture to follow (optional)",
                elem_id="page_control_image",
            )  # fmt: skip
            self.form["draw_lines"] = gradio.Checkbox(
                True,
                label="Draw its lines first",
                info="Off: the picture is what the ControlNet takes, such as a drawing in white on black.",
                elem_id="page_draw_lines",
            )
            self.build_slider("control_strength", 1.0, "How closely to follow it", 0.05)

    def build_results(self) -> None:
        """Messages, progress, gallery, files and the text of the settings."""
        results = self.results
        results["messages"] = gradio.HTML("", elem_id="page_messages", visible=False, padding=False)
        results["progress"] = gradio.HTML("", elem_id="page_progress", visible=False, padding=False)
        results["gallery"] = gradio.Gallery(
            label="Pictures",
            show_label=False,  # it would stand on the first picture
            format="png",
            columns=2,
            height=None,
            object_fit="contain",
            elem_id="page_gallery",
            elem_classes=[style.CHECKERBOARD_CLASS],
            buttons=["download", "fullscreen"],
            interactive=False,
        )
        with gradio.Row():
            results["zip"] = gradio.DownloadButton("Download all as ZIP", elem_id="page_zip", visible=False)
            self.buttons["reuse"] = gradio.Button("Use this seed again", elem_id="page_reuse", visible=False)
        with gradio.Row():
            results["kind"] = gradio.Dropdown(
                [("Save layers as ...", ""), *CHOICES], value="", show_label=False, elem_id="page_kind", visible=False
            )
            results["layers"] = gradio.DownloadButton("Download the layers", elem_id="page_layers", visible=False)
        results["files"] = gradio.File(
            label="Files (PNG; transparent ones keep their alpha)",
            file_count="multiple",
            elem_id="page_files",
            interactive=False,
            visible=False,
        )
        results["parameters"] = gradio.Textbox(
            label="Seed and settings of the chosen picture",
            lines=3,
            interactive=False,
            buttons=["copy"],
            elem_id="page_parameters",
            visible=False,
        )


def first_of(sample: Any) -> Any:
    """The word of a list's sample; no change where there is none."""
    return sample[0] if sample else gradio.update()
