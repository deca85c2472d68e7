"""The Layers tab of the page: the loaded model paints, in turn with everybody else's runs; files go with the visit."""

from __future__ import annotations

import functools
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio
from PIL import Image

from ..core.errors import InputError
from ..form.stack.events import StackEvents
from ..form.stack.handlers import StackHandlers
from ..form.stack.layout import StackLayout
from ..form.stack.place import Setting, StackPlace, path_of_upload
from ..form.stack.work import Watch
from ..sets.stack import PaintRequest
from ..sets.stack_store import StackStore
from ..standalone import stack_painter
from ..standalone.pictures import Watchers
from .form import LIMITS
from .handlers import TOKEN_SCRIPT, Handlers, session_of
from .model import PageModel
from .uploads import opened
from .visits import Visits, is_upload

PICTURE = "stack_picture"
MOST_LAYERS = 32  # of a visitor
# Another name than that of a tab: stacks are a browser's, and outlive its tabs.
OF_BROWSER = {"sessionStorage": "localStorage", '"layerdiffuse"': '"layerdiffuse-layers"'}
BROWSER_SCRIPT = functools.reduce(lambda script, names: script.replace(*names), OF_BROWSER.items(), TOKEN_SCRIPT)


class StackTab:
    """The tab, built inside the running Blocks."""

    def __init__(self, model: PageModel, visits: Visits):
        self.model, self.visits = model, visits
        size = model.defaults.size
        self.place = StackPlace(
            StackStore(visits.folder / "stacks"),
            self.paint,
            lambda: (size, size),
            settings_for(model),
            open_picture=self.open_picture,
            path_of=self.path_of,
            preview=self.preview,
            downloads=lambda token: visits.folder / "downloads" / token,
            raw=True,
            most_layers=MOST_LAYERS,
            most_side=int(LIMITS["width"].high),
        )
        visits.closing.append(self.place.works.stop_all)
        self.layout = StackLayout(gradio, (size, size), self.place.settings).build()
        self.events = StackEvents(StackHandlers(self.layout, self.place))

    def connect(self, blocks: gradio.Blocks, page: Handlers) -> None:
        """Ties it to the page: a browser that comes back, pictures and files that go with a visit."""
        layout = self.layout
        self.events.connect()
        token, quiet = layout["token"], {"queue": False, "show_progress": "hidden"}
        known = blocks.load(lambda name: name, [token], [token], js=BROWSER_SCRIPT, **quiet)
        self.events.on_arrival(known.then, **quiet)
        picture, told = layout["picture"], page.layout.results["messages"]
        picture.upload(page.look_at(PICTURE), [picture], [picture, told], preprocess=False, show_progress="hidden")
        layout["load"].upload(self.own, [layout["load"]], None, preprocess=False, show_progress="hidden")

    def paint(self, request: PaintRequest, choices: dict[str, Any], watch: Watch) -> Image.Image:
        """A picture by the page's model, when it is its turn."""
        watchers = Watchers(watch.report, watch.stop.is_set)
        picture, notes = stack_painter.paint(self.model.paint, request, choices, watchers)
        watch.notes += notes
        return picture

    def open_picture(self, value: Any) -> Image.Image | None:
        """A visitor's picture; of uploads only."""
        return None if value is None or self.path_of(value) is None else opened(PICTURE, value)

    def path_of(self, value: Any) -> Path | None:
        """A visitor's file; InputError for any that was not uploaded."""
        path = path_of_upload(value)
        if path is not None and not is_upload(path):
            raise InputError("a file that was not uploaded", "an uploaded one", "choose the file again")
        return path

    def preview(self, token: str, picture: Image.Image) -> str:
        """The composite as a file in place of the last one: gradio would keep all of them for a day."""
        folder = self.visits.folder / "previews" / token
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)[:-2]:  # one may be on its way
            with suppress(OSError):
                old.unlink()
        path = folder / f"layers-{secrets.token_hex(4)}.png"
        picture.save(path)
        return str(path)

    def own(self, value: Any, request: gradio.Request) -> None:
        """Notes an uploaded file, so that it goes with the visit."""
        self.visits.of(session_of(request)).own(path_of_upload(value))


def settings_for(model: PageModel) -> tuple[Setting, ...]:
    """How to paint: the ordinary settings of the page."""
    defaults = model.defaults
    return (
        Setting("steps", "Steps", defaults.steps, LIMITS["steps"]),
        Setting("guidance", "Guidance", defaults.guidance, LIMITS["guidance"], 0.1),
        Setting("negative_prompt", "Negative prompt", ""),
    )
