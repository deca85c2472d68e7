"""What happens on the page: generate, stop, hints, the chosen picture, its seed, coming back, good-bye."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio

from ..core.errors import LayerDiffuseError
from ..form.accordion import LayerAccordion
from ..form.arguments import BY_NAME, visible_arguments
from . import style
from .form import Form
from .layer_files import layered_file
from .layout import Layout
from .model import PageModel
from .runs import PictureFile, Run
from .turns import LIMIT
from .uploads import opened, path_of
from .visits import Visit, Visits

LOGGER = logging.getLogger(__name__)
QUIET = {"show_progress": "hidden", "queue": False}
HINT_LENGTH = 500  # characters of a prompt that are looked through for unknown words
# A tab keeps a name of its own while it is open, so that it is known again after it was loaded again.
TOKEN_SCRIPT = """() => {
  let token = sessionStorage.getItem("layerdiffuse");
  if (!token) {
    const bytes = Array.from(crypto.getRandomValues(new Uint8Array(16)));
    token = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("layerdiffuse", token);
  }
  return [token];
}"""
Updates = dict[Any, Any]


@dataclass
class Handlers:
    """The page's behaviour: every handler answers updates of the layout's components."""

    model: PageModel
    layout: Layout
    visits: Visits

    def connect(self, blocks: gradio.Blocks) -> None:
        """Ties the handlers to buttons, prompt and gallery."""
        layout, results, buttons = self.layout, self.layout.results, self.layout.buttons
        prompt = layout.form["prompt"]
        outputs = [*results.values(), *buttons.values()]
        # One event for both: the browser sends no second one while the first is answered. The form checks raw values.
        gradio.on(
            [buttons["generate"].click, prompt.submit],
            self.generate,
            layout.inputs,
            outputs,
            preprocess=False,
            show_progress="hidden",
            trigger_mode="once",
            concurrency_limit=2 * LIMIT,  # who comes when the line is full is told so
        )
        buttons["stop"].click(self.stop, None, [buttons["stop"]], **QUIET)
        prompt.change(self.hint, [prompt], [results["hints"]], trigger_mode="always_last", show_progress="hidden")
        chosen = [results["parameters"], results["kind"], results["layers"]]
        results["gallery"].select(self.choose, None, chosen, **QUIET)
        results["kind"].input(self.save_layers, [results["kind"]], [results["layers"]], show_progress="hidden")
        buttons["reuse"].click(self.chosen_seed, None, [layout.form["seed"]], **QUIET)
        for name, picture in layout.pictures.items():
            look = self.look_at(name)
            picture.upload(look, [picture], [picture, results["messages"]], preprocess=False, show_progress="hidden")
        blocks.load(
            self.arrive,
            [layout.token],
            [*outputs, *layout.remembered],
            js=TOKEN_SCRIPT,
            show_progress="hidden",
            concurrency_limit=LIMIT,
        )
        blocks.unload(self.leave)

    def generate(self, request: gradio.Request, *values: Any) -> Iterator[Updates]:
        """Runs the form: progress while it works, pictures as they come, or a message that says what was wrong."""
        visit = self.visits.of(session_of(request))
        try:
            run = self.begin(visit, values)
        except LayerDiffuseError as error:
            yield self.message(style.error_html(error))
            return
        except Exception as error:  # whatever it was, the visitor gets an answer and the log the rest
            LOGGER.exception("a run of the page could not begin")
            yield self.message(style.failure_html(error))
            return
        yield from self.follow(visit, run)

    def begin(self, visit: Visit, values: tuple[Any, ...]) -> Run:
        """A started run of the form's raw values; what can be refused before it begins is."""
        names = list(self.layout.form)
        form = Form.parse(names, values, self.model.base)
        settings = form.generate_settings(self.model.base, self.model.controlnet)
        settings.validated()
        run = visit.begin_run()
        visit.remember(names, values)
        run.checkerboard = form.layers.enabled and form.layers.checkerboard
        run.start(self.model, settings)
        return run

    def follow(self, visit: Visit, run: Run) -> Iterator[Updates]:
        """Updates of a run's page from its start, or from wherever it is, to its end; none relies on one before."""
        yield self.cleared() | self.busy(run)
        listed = 0
        for _ in run.follow():
            updates = self.busy(run)
            files = run.files  # more of them are another list
            if len(files) > listed:
                listed = len(files)
                updates |= self.pictures(visit, run, files)
            yield updates
        yield self.ended(visit, run)

    def cleared(self) -> Updates:
        """Updates at the start of a run: nothing of an earlier one stays listed."""
        results = self.layout.results
        names = ("files", "zip", "parameters", "layers")
        gone = {results[name]: gradio.update(value=None, visible=False) for name in names}
        gone[results["kind"]] = gradio.update(value="", visible=False)
        return gone | {
            results["gallery"]: gradio.update(value=None, selected_index=None),
            self.layout.buttons["reuse"]: gradio.update(visible=False),
        }

    def busy(self, run: Run) -> Updates:
        """Updates while a run goes on."""
        results, buttons = self.layout.results, self.layout.buttons
        stopping, bar = run.stop.is_set(), style.progress_html(run.progress.fraction, run.progress.text)
        return {
            buttons["generate"]: gradio.update(interactive=False),
            buttons["stop"]: gradio.update(interactive=not stopping, value="Stopping" if stopping else "Stop"),
            results["messages"]: gradio.update(visible=False),
            results["progress"]: gradio.update(value=bar, visible=True),
        }

    def ended(self, visit: Visit, run: Run) -> Updates:
        """Updates at the end of a run: buttons, messages, and its pictures (earlier ones where it has none)."""
        results, buttons = self.layout.results, self.layout.buttons
        shown = visit.shown
        return (self.pictures(visit, shown, shown.files) if shown is not None else {}) | {
            buttons["generate"]: gradio.update(interactive=True),
            buttons["stop"]: gradio.update(interactive=False, value="Stop"),
            results["progress"]: gradio.update(visible=False),
            **self.message(messages_of(run)),
        }

    def message(self, text: str) -> Updates:
        """The update that shows a message, or none."""
        return {self.layout.results["messages"]: gradio.update(value=text, visible=bool(text))}

    def pictures(self, visit: Visit, run: Run, files: list[PictureFile]) -> Updates:
        """Updates with the pictures that are done, their files and the settings of the chosen one."""
        results = self.layout.results
        look = {
            "columns": columns_for(files),
            "elem_classes": [style.CHECKERBOARD_CLASS] if run.checkerboard else [],
        }
        items = [(str(file.path), file.caption) for file in files]
        archive = None if run.zip is None else str(run.zip)
        return {
            results["gallery"]: gradio.update(value=items, selected_index=None, **look),
            results["files"]: gradio.update(value=[str(file.path) for file in files], visible=True),
            results["zip"]: gradio.update(value=archive, visible=archive is not None),
            results["kind"]: gradio.update(visible=archive is not None),
            results["parameters"]: gradio.update(value=chosen_of(visit, files).parameters, visible=True),
            self.layout.buttons["reuse"]: gradio.update(visible=True),
        }

    def stop(self, request: gradio.Request) -> Any:
        """Asks the visitor's run to stop after the step at hand."""
        visit = self.visits.of(session_of(request))
        visit.stop()
        running = visit.running is not None
        return gradio.update(value="Stopping" if running else "Stop", interactive=False)

    def hint(self, prompt: str | None, request: gradio.Request) -> Any:
        """Messages on words that the demo model does not know; the prompt is kept for when the tab is loaded again."""
        prompt = prompt or ""
        self.visits.of(session_of(request)).prompt = prompt
        hints = style.hints_html(self.model.hints(prompt[:HINT_LENGTH]))
        return gradio.update(value=hints, visible=bool(hints))

    def look_at(self, name: str) -> Any:
        """The handler of a picture field: a picture that cannot be used is told at once and taken out."""

        def look(value: Any, request: gradio.Request) -> list[Any]:
            visit, nothing = self.visits.of(session_of(request)), gradio.update(visible=False)
            try:
                visit.own(path_of(name, value))
                opened(name, value)
            except LayerDiffuseError as error:
                gradio.Warning(html.escape(str(error)), title="Picture")  # where the field is, the messages may not be
                return [None, gradio.update(value=style.error_html(error), visible=True)]
            return [gradio.update(), nothing]

        return look

    def choose(self, event: gradio.EventData, request: gradio.Request) -> list[Any]:
        """The settings of the picture that was clicked in the gallery; layers are saved anew for its set."""
        visit, index = self.visits.of(session_of(request)), index_of(event)
        files = shown_files(visit)
        if index is None or not 0 <= index < len(files):
            return [gradio.update()] * 3
        visit.chosen = files[index].path
        return [files[index].parameters, gradio.update(value=""), gradio.update(value=None, visible=False)]

    def save_layers(self, kind: str | None, request: gradio.Request) -> Any:
        """The button that downloads the chosen picture's set as a file of this kind."""
        visit = self.visits.of(session_of(request))
        run, files = visit.shown, shown_files(visit)
        if not kind or run is None or run is not (visit.running or run) or not files:
            return gradio.update(value=None, visible=False)
        try:
            path = layered_file(run, chosen_of(visit, files), kind)
        except LayerDiffuseError as error:
            LOGGER.warning("%s", error)
            gradio.Warning(html.escape(f"got {error.got}; expected {error.expected}"), title="Layers")
            return gradio.update(value=None, visible=False)
        return gradio.update(label=f"Download {path.name}", value=str(path), visible=True)

    def chosen_seed(self, request: gradio.Request) -> Any:
        """The seed by which the chosen picture, or its set, is made again; of the first one if none was chosen."""
        visit = self.visits.of(session_of(request))
        files = shown_files(visit)
        return chosen_of(visit, files).seed if files else gradio.update()

    def arrive(self, token: str, request: gradio.Request) -> Iterator[Updates]:
        """What a tab had before it was loaded again: prompt and fields, pictures, and the run that goes on."""
        visit = self.visits.arrive(session_of(request), token)
        running, shown = visit.running, visit.shown
        remembered = self.remembered(visit)
        if running is not None:
            for updates in self.follow(visit, running):
                yield remembered | updates
                remembered = {}
        else:
            yield remembered | (self.pictures(visit, shown, shown.files) if shown is not None else {})

    def remembered(self, visit: Visit) -> Updates:
        """Updates that put back what stood in the form at the last run, and the prompt as it stood last."""
        form, accordion = self.layout.form, self.layout.accordion
        updates = {form["prompt"]: gradio.update(value=visit.prompt) if visit.prompt else gradio.update()}
        if not visit.values:
            return updates
        values = dict(zip([*form, *BY_NAME], visit.values, strict=True))
        updates |= {form[name]: gradio.update(value=shown_value(values[name])) for name in form if name != "prompt"}
        return updates | accordion_updates(accordion, {name: values[name] for name in BY_NAME})

    def leave(self, request: gradio.Request) -> None:
        """Stops the runs and removes the files of a visitor who closed the page and does not come back."""
        self.visits.leave(session_of(request))


def session_of(request: gradio.Request | None) -> str | None:
    """Identifier of the browser session behind a request."""
    return request.session_hash if request is not None else None


def accordion_updates(accordion: LayerAccordion, values: dict[str, Any]) -> Updates:
    """Updates that put checked raw values into the accordion, and show what belongs to its method."""
    enabled = accordion.components["enabled"]
    updates = {enabled: gradio.update(value=values["enabled"])}
    if not values["enabled"]:
        return updates
    updates |= dict(zip(accordion.outputs, accordion.choose_method(values["method"]), strict=True))
    method = accordion.row_of(values["method"])
    for argument in visible_arguments(method)[2:]:  # behind the box and the method
        component = accordion.components[argument.name]
        updates[component] = {**updates[component], "value": shown_value(values[argument.name])}
    return updates


def shown_value(value: Any) -> Any:
    """A component's value from what it sent: of an uploaded picture its path."""
    return value["path"] if isinstance(value, dict) else value


def index_of(event: Any) -> int | None:
    """The place of what was clicked, from an event's data, which may be anything."""
    data = event._data
    index = data.get("index") if isinstance(data, dict) else None
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def shown_files(visit: Visit) -> list[PictureFile]:
    """The files in the visitor's gallery: those of the run that goes on, else the last ones."""
    run = visit.running or visit.shown
    return run.files if run is not None else []


def chosen_of(visit: Visit, files: list[PictureFile]) -> PictureFile:
    """The file of the picture that was clicked, else the first."""
    return next((file for file in files if file.path == visit.chosen), files[0])


def messages_of(run: Run) -> str:
    """What is said at the end of a run: its error, and notes on what it changed or could not do."""
    notes = style.hints_html(run.notes)
    if run.error is None:
        return notes
    if isinstance(run.error, LayerDiffuseError):
        return style.error_html(run.error) + notes
    return style.failure_html(run.error) + notes


def columns_for(files: list[PictureFile]) -> int:
    """Gallery columns: the layers of a result stay in one line, else 2 to 4 by the number of pictures."""
    frames = len({file.frame for file in files})
    by_count = next((columns for columns in (2, 3) if len(files) <= columns**2), 4)
    return frames if frames > 1 else by_count
