"""What the user of one job is told: under the gallery, in the API's info, in infotexts, in the log; once each."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from typing import Any

from ...core.errors import LayerDiffuseError, without_frames

logger = logging.getLogger(__name__)

ERROR_KEY, NOTE_KEY = "layerdiffusion_error", "layerdiffusion_note"
SEED_KEY = "Seed"  # of an infotext; among generation parameters it goes before the WebUI's own


class Telling:
    """Notes on the pictures of a job, or why it has none."""

    def __init__(self, p: Any):
        self._p = weakref.ref(p)
        self.failed: LayerDiffuseError | None = None
        self._notes: dict[str, bool] = {}  # with whether files have them too; told as soon as there are pictures
        self._has_pictures = False

    @property
    def p(self) -> Any:
        """What the WebUI processes."""
        return self._p()

    def note(self, text: str, in_files: bool = True) -> None:
        """Tell the user something about the pictures: under the gallery, in the API's info and mostly in infotexts."""
        if not self.failed:
            self._notes.setdefault(text, in_files)
        if self._has_pictures:
            self.tell()

    def tell(self) -> None:
        """There are pictures that the notes are about; those of a job without any would only hide why."""
        self._has_pictures, p = True, self.p
        parameters = p.extra_generation_params
        for text, in_files in self._notes.items():
            comment = f"LayerDiffuse: {text}"
            if comment not in p.comments:
                logger.warning("%s", text)
                p.comment(comment)
            told = parameters.get(NOTE_KEY) or ""
            line = text.replace('"', "'")  # infotexts put a backslash before each
            if in_files and line not in told:
                parameters[NOTE_KEY] = f"{told}; {line}" if told else line

    def fail(self, error: LayerDiffuseError, logged: bool = False) -> None:
        """No picture of this job is what the user asked for: say why."""
        if self.failed:
            return
        self.failed = without_frames(error)
        self._notes = self._notes if self._has_pictures else {}
        if not logged:
            logger.error("%s", error)
        self.p.comment(f"LayerDiffuse: {error}")

    def report(self, parameters: dict[str, Any]) -> None:
        """The API's info, after the infotexts: why there is no picture, all notes, texts of each picture as lists."""
        for key, value in parameters.items():
            if isinstance(value, PerPicture):
                parameters[key] = value.texts
        if self.failed:
            parameters[ERROR_KEY] = str(self.failed)
        if self._notes:
            parameters[NOTE_KEY] = "; ".join(self._notes)


def per_picture(values: Sequence[int]) -> str | PerPicture:
    """Numbers, one for each picture, as a value of generation parameters."""
    texts = [str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 else PerPicture(texts, texts[0])


class PerPicture:
    """A value of generation parameters that differs from picture to picture; WebUIs call it for each infotext."""

    def __init__(self, texts: list[str], template: str):
        self.texts, self.template = texts, template

    def __call__(self, p: Any, index: int, all_seeds: Any, use_main_prompt: bool = False, **_: Any) -> str | None:
        """The text of a picture; `index` counts within the batch where the seeds are those of the batch.

        By the prompts it cannot be told: reForge, and Neo for prompts with comments, hand out other lists of them.
        """
        if use_main_prompt:  # of a grid
            return self.template
        place = index + (p.iteration * p.batch_size if all_seeds is p.seeds else 0)
        return self.texts[place] or None
