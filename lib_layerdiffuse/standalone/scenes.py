"""A scene file painted by a loaded model: layer by layer, with one progress bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..sets.kept_scene import KeptScene, marks_of
from ..sets.layer_set import LayerSet
from ..sets.scene import Scene, paint_scene, rows_of
from ..sets.stack import PaintRequest, Stack
from .pictures import Watchers
from .run_plan import own_size
from .stack_painter import Run, paint

CHOICES = ("negative_prompt", "steps", "guidance", "sampler", "stop_at", "passes", "clear_haze", "hidden_colours")


@dataclass
class ScenePictures:
    """The layers of a scene, bottom first, with notes; `stopped` when cut short. `stack` can be gone on with."""

    stack: Stack
    notes: list[str] = field(default_factory=list)
    stopped: bool = False

    @property
    def layers(self) -> LayerSet:
        """The layers at their places."""
        return self.stack.state.layer_set()

    @property
    def image(self) -> Image.Image:
        """All layers on the canvas: RGBA."""
        return self.stack.state.composite()


class ScenePainter:
    """Answers the requests of a scene, so many in all, and tells how far the whole is."""

    def __init__(self, run: Run, choices: dict[str, Any], watchers: Watchers, count: int):
        self.run, self.choices, self.watchers, self.count = run, choices, watchers, count
        self.done, self.notes = 0, list[str]()

    def __call__(self, request: PaintRequest) -> Image.Image:
        told = f"{request.title}, {self.done + 1} of {self.count}"

        def report(share: float, text: str) -> None:
            self.watchers.report((self.done + share) / self.count, f"{told}: {text}")

        picture, notes = paint(self.run, request, self.choices, Watchers(report, self.watchers.stopping))
        self.notes += [f"{request.title}: {note}" for note in notes]
        self.done += 1
        return picture


def paint_scene_with(
    host: Any,
    scene: Scene | KeptScene,
    choices: dict[str, Any],
    watchers: Watchers,
    on_layer: Callable[[Stack], object] | None = None,
) -> ScenePictures:
    """The scene by a loaded model; what was painted stays when somebody stops it.

    A kept scene goes on from its finished layers, and keeps each that is added.
    """
    kept = scene if isinstance(scene, KeptScene) else None
    plain = scene.scene if isinstance(scene, KeptScene) else scene
    side = own_size(host.base, host.pipeline)
    marks = marks_of(plain, side, {"model": host.name, "base": host.base, **choices})
    done = kept.begin(marks) if kept is not None else []

    def added(stack: Stack) -> None:
        if kept is not None:
            kept.keep(stack, marks)
        if on_layer is not None:
            on_layer(stack)

    count = sum(row.file is None for row in rows_of(plain)[len(done) :])
    painter = ScenePainter(host.run, choices, watchers, max(1, count))
    made = paint_scene(plain, painter, side, added, done)
    watchers.report(1.0, "stopped" if made.stopped else "done")
    notes = [f"{len(done)} of {len(marks)} layers were there already"] if done else []
    return ScenePictures(made.stack, [*notes, *dict.fromkeys(painter.notes)], made.stopped)
