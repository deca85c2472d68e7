"""What happens on the page: generate, stop, hints, the chosen picture, the last seed, good-bye."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio

from lib_layerdiffuse.core.errors import LayerDiffuseError
from lib_layerdiffuse.hosts.outputs import PictureFolder, file_stem, write_whole
from lib_layerdiffuse.page import style
from lib_layerdiffuse.page.form import Form
from lib_layerdiffuse.page.layout import Layout
from lib_layerdiffuse.page.model import PageModel, Progress
from lib_layerdiffuse.page.visits import Visit, Visits
from lib_layerdiffuse.pictures import Picture, Pictures

LOGGER = logging.getLogger(__name__)
QUIET = {"show_progress": "hidden", "queue": False}
Updates = dict[Any, Any]


@dataclass
class Handlers:
    """The page's behaviour: every handler answers updates of the layout's components."""

    model: PageModel
    layout: Layout
    visits: Visits

    def connect(self, blocks: gradio.Blocks) -> None:
        """Ties the handlers to buttons, prompt and gallery."""
        layout, results = self.layout, self.layout.results
        prompt, generate, stop = layout.form["prompt"], layout.buttons["generate"], layout.buttons["stop"]
        outputs = [*results.values(), generate, stop, layout.buttons["reuse"]]
        for event in (generate.click, prompt.submit):
            event(self.generate, layout.inputs, outputs, show_progress="hidden", concurrency_limit=4)
        stop.click(self.stop, None, [stop], **QUIET)
        prompt.change(self.hint, [prompt], [results["hints"]], trigger_mode="always_last", **QUIET)
        results["gallery"].select(self.choose, None, [results["parameters"]], **QUIET)
        layout.buttons["reuse"].click(self.last_seed, None, [layout.form["seed"]], **QUIET)
        blocks.unload(self.leave)

    def generate(self, request: gradio.Request, *values: Any) -> Iterator[Updates]:
        """Runs the form: progress while it works, then pictures and files, or a message that says what was wrong."""
        visit = self.visits.of(session_of(request))
        yield self.busy()
        try:
            form = Form.parse(list(self.layout.form), values)
            settings = form.generate_settings(self.model.base)
            run = FinishedFiles(visit.begin_run())
            for report in self.model.run(settings, visit.stop):
                if isinstance(report, Progress):
                    yield {self.layout.results["progress"]: style.progress_html(report.fraction, report.text)}
                elif isinstance(report, Picture):
                    run.add(report)
                    yield self.gallery(run, form.layers.enabled and form.layers.checkerboard)
                else:
                    yield self.done(report, run, visit)
        except LayerDiffuseError as error:
            yield self.idle(style.error_html(error))
        except Exception as error:  # whatever it was, the visitor gets an answer and the log the rest
            LOGGER.exception("a run of the page failed")
            yield self.idle(style.failure_html(error))

    def busy(self) -> Updates:
        """Updates at the start of a run."""
        results, buttons = self.layout.results, self.layout.buttons
        return {
            buttons["generate"]: gradio.update(interactive=False),
            buttons["stop"]: gradio.update(interactive=True, value="Stop"),
            results["messages"]: gradio.update(visible=False),
            results["progress"]: gradio.update(value=style.progress_html(0, "Waiting for the model"), visible=True),
        }

    def idle(self, messages: str) -> Updates:
        """Updates at the end of a run."""
        results, buttons = self.layout.results, self.layout.buttons
        return {
            buttons["generate"]: gradio.update(interactive=True),
            buttons["stop"]: gradio.update(interactive=False, value="Stop"),
            results["messages"]: gradio.update(value=messages, visible=bool(messages)),
            results["progress"]: gradio.update(visible=False),
        }

    def gallery(self, run: FinishedFiles, checkerboard: bool) -> Updates:
        """Updates with the pictures that are done so far."""
        items = [(str(path), caption(picture)) for picture, path in run.files]
        look = {
            "columns": columns_for([picture for picture, _ in run.files]),
            "elem_classes": [style.CHECKERBOARD_CLASS] if checkerboard else [],
        }
        return {self.layout.results["gallery"]: gradio.update(value=items, selected_index=None, **look)}

    def done(self, pictures: Pictures, run: FinishedFiles, visit: Visit) -> Updates:
        """Updates at the end of a run: files, ZIP, settings, and notes on what the run changed or could not do."""
        # Unknown words stand under the prompt already.
        notes = [note for note in pictures.notes if "does not know the word" not in note]
        if not run.files:
            return self.idle(style.hints_html(notes))
        visit.parameters = [picture.parameters for picture, _ in run.files]
        visit.seed = run.files[0][0].seed
        results, paths = self.layout.results, [str(path) for _, path in run.files]
        return self.idle(style.hints_html(notes)) | {
            results["files"]: gradio.update(value=paths, visible=True),
            results["zip"]: gradio.update(value=str(run.zip()), visible=True),
            results["parameters"]: gradio.update(value=visit.parameters[0], visible=True),
            self.layout.buttons["reuse"]: gradio.update(visible=True),
        }

    def stop(self, request: gradio.Request) -> Any:
        """Asks the visitor's run to stop after the step at hand."""
        self.visits.of(session_of(request)).stop.set()
        return gradio.update(value="Stopping", interactive=False)

    def hint(self, prompt: str) -> Any:
        """Messages on words that the demo model does not know."""
        hints = style.hints_html(self.model.hints(prompt))
        return gradio.update(value=hints, visible=bool(hints))

    def choose(self, event: gradio.SelectData, request: gradio.Request) -> Any:
        """The settings of the picture that was clicked in the gallery."""
        parameters = self.visits.of(session_of(request)).parameters
        return parameters[event.index] if event.index < len(parameters) else gradio.update()

    def last_seed(self, request: gradio.Request) -> int:
        """The first seed of the visitor's last run; -1 before the first."""
        return self.visits.of(session_of(request)).seed

    def leave(self, request: gradio.Request) -> None:
        """Stops the run and removes the files of a visitor who closed the page."""
        self.visits.leave(session_of(request))


def session_of(request: gradio.Request | None) -> str | None:
    """Identifier of the browser session behind a request."""
    return request.session_hash if request is not None else None


def caption(picture: Picture) -> str:
    """What stands under a picture in the gallery."""
    return f"{picture.frame}, seed {picture.seed}" if picture.frame else f"seed {picture.seed}"


def columns_for(pictures: list[Picture]) -> int:
    """Gallery columns: the layers of a result stay in one line, else 2 to 4 by the number of pictures."""
    frames = len({picture.frame for picture in pictures})
    by_count = next((columns for columns in (2, 3) if len(pictures) <= columns**2), 4)
    return frames if frames > 1 else by_count


class FinishedFiles:
    """The finished pictures of one run and their files, each written whole, in one folder."""

    def __init__(self, folder: Path):
        self.target = PictureFolder(folder)
        self.files: list[tuple[Picture, Path]] = []

    def add(self, picture: Picture) -> None:
        """Writes a picture as PNG with its settings."""
        self.files.append((picture, self.target.save(picture)))

    def zip(self) -> Path:
        """Writes all files into one ZIP named after the first; PNG is packed already, so it is only stored."""
        path = self.target.folder / f"{file_stem(self.files[0][0])}.zip"
        write_whole(path, self._write_zip)
        return path

    def _write_zip(self, partial: Path) -> None:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for _, path in self.files:
                archive.write(path, path.name)
