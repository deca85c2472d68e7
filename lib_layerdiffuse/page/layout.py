"""Where everything stands on the page: components by name, no behaviour but clicks that fill in the form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio

from lib_layerdiffuse.page import style
from lib_layerdiffuse.page.model import PageModel
from lib_layerdiffuse.settings import MAX_SEED, SIZE_MIN
from lib_layerdiffuse.webui.accordion import LayerAccordion, build_accordion

EXAMPLE_COUNT = 12
# The opaque picture beside the transparent one is something that only the WebUIs offer.
HIDDEN_ARGUMENTS = ("output_origin",)


@dataclass
class Layout:
    """The components of one page: the form by the names of settings, buttons, results, and the accordion."""

    model: PageModel
    form: dict[str, Any] = field(default_factory=dict)
    buttons: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    accordion: LayerAccordion | None = None

    def build(self) -> None:
        """Builds everything inside the running Blocks."""
        gradio.HTML(style.title_html(self.model), elem_id="page_title")
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=5, min_width=360):
                self.build_prompt()
                self.accordion = build_accordion(gradio, base=self.model.base, hidden=HIDDEN_ARGUMENTS)
                self.build_main_settings()
                self.build_more_settings()
            with gradio.Column(scale=6, min_width=360):
                self.build_results()

    @property
    def inputs(self) -> list[Any]:
        """All components of the form: settings by name, then the accordion's in positional order."""
        return [*self.form.values(), *self.accordion.inputs]

    def build_prompt(self) -> None:
        """Prompt, buttons, and the words that the demo model knows."""
        captions = self.model.captions
        example = captions[0] if captions else "a glass of water"
        self.form["prompt"] = gradio.Textbox(
            label="Prompt", placeholder=f"for example: {example}", lines=2, autofocus=True, elem_id="page_prompt"
        )
        self.results["hints"] = gradio.HTML("", elem_id="page_hints", visible=False, padding=False)
        with gradio.Row(elem_id="page_buttons"):
            self.buttons["generate"] = gradio.Button("Generate", variant="primary", elem_id="page_generate", scale=3)
            self.buttons["stop"] = gradio.Button(
                "Stop", variant="stop", elem_id="page_stop", interactive=False, scale=1, min_width=90
            )
        if captions:
            self.build_words(captions)

    def build_words(self, captions: list[str]) -> None:
        """Clickable examples, and all words in a list that opens."""
        examples = captions[:: max(1, len(captions) // EXAMPLE_COUNT)][:EXAMPLE_COUNT]
        self.build_word_list("Click to try", examples, "page_examples")
        with gradio.Accordion(f"All {len(captions)} words that the model knows", open=False, elem_id="page_words"):
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
        data.click(lambda sample: sample[0], [data], [self.form["prompt"]], queue=False, show_progress="hidden")

    def build_main_settings(self) -> None:
        """Number of pictures and seed."""
        with gradio.Row():
            self.form["count"] = gradio.Slider(1, 16, 4, step=1, label="Pictures", elem_id="page_count")
            self.form["seed"] = gradio.Number(
                -1, precision=0, minimum=-1, maximum=MAX_SEED, label="Seed (-1: random)", elem_id="page_seed"
            )

    def build_more_settings(self) -> None:
        """The rest of the ordinary settings and the picture to start from, in a list that opens."""
        defaults, form = self.model.defaults, self.form
        with gradio.Accordion("More settings", open=False, elem_id="page_more"):
            with gradio.Row():
                form["steps"] = gradio.Slider(1, 100, defaults.steps, step=1, label="Steps", elem_id="page_steps")
                form["guidance"] = gradio.Slider(
                    0, 15, defaults.guidance, step=0.1, label="Guidance", elem_id="page_guidance"
                )
            with gradio.Row():
                for name in ("width", "height"):
                    form[name] = gradio.Slider(
                        SIZE_MIN, 2048, defaults.size, step=8, label=name.capitalize(), elem_id=f"page_{name}"
                    )
            form["clear_haze"] = gradio.Checkbox(
                True,
                label="Clear haze",
                info="Almost invisible pixels become invisible, almost solid ones solid; soft gradients stay.",
                elem_id="page_clear_haze",
            )
            form["negative_prompt"] = gradio.Textbox(label="Negative prompt", elem_id="page_negative_prompt")
            form["init"] = gradio.Image(
                type="pil", image_mode="RGBA", sources=["upload"], height=200, label="Start from a picture (optional)",
                elem_id="page_init",
            )  # fmt: skip
            form["denoise"] = gradio.Slider(
                0, 1, 0.75, step=0.01, label="How much to change it", elem_id="page_denoise"
            )

    def build_results(self) -> None:
        """Messages, progress, gallery, files and the text of the settings."""
        results = self.results
        results["messages"] = gradio.HTML("", elem_id="page_messages", visible=False, padding=False)
        results["progress"] = gradio.HTML("", elem_id="page_progress", visible=False, padding=False)
        results["gallery"] = gradio.Gallery(
            label="Pictures",
            format="png",
            columns=2,
            height=None,
            object_fit="contain",
            elem_id="page_gallery",
            elem_classes=[style.CHECKERBOARD_CLASS],
            interactive=False,
        )
        with gradio.Row():
            results["zip"] = gradio.DownloadButton("Download all as ZIP", elem_id="page_zip", visible=False)
            self.buttons["reuse"] = gradio.Button("Use this seed again", elem_id="page_reuse", visible=False)
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
